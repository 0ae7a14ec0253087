import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import {
  CONTENT_STREAM_TYPE,
  encodeContentHeader,
  encodeDocument,
  encodeEnd,
  encodeMagic,
  type LoadComparison,
  type LoadRequest,
} from "@lockstep/protocol";
import { startTestHub, type TestHub } from "../cli/hub.ts";
import { HOSTILE_NAMES, KNOWN_NAMES, TWINS } from "./known-names.ts";

const directory = mkdtempSync(join(tmpdir(), "lockstep-hostile-test-"));
let hub: TestHub;

before(async () => {
  hub = await startTestHub(directory);
});

after(async () => {
  await hub.stop();
  rmSync(directory, { recursive: true, force: true, maxRetries: 3 });
});

const content = Buffer.from("hostile");
const sha256 = createHash("sha256").update(content).digest("hex");

function requestOf(paths: readonly string[]): LoadRequest {
  return {
    module: { id: "HOSTILE", version: "1", name: null, requires: [] },
    kind: "service-pack",
    note: null,
    declared: null,
    files: paths.map((path) => ({
      path,
      size: content.length,
      sha256,
      mode: 0o644,
      version: null,
      backup: false,
      targets: ["role:Server"],
    })),
    allowDowngrade: true,
  };
}

/** By the bare protocol, without our client and its checks: what anyone with a token could send. */
function post(path: string, type: string, body: Uint8Array): Promise<{ status: number; value: unknown }> {
  return new Promise((resolve, reject) => {
    const sent = request(
      new URL(path, hub.url),
      // A connection for each: one that was kept may be closed by the hub just then.
      { method: "POST", headers: { "content-type": type }, agent: false },
      (answer) => {
        const chunks: Buffer[] = [];
        answer.on("data", (chunk: Buffer) => chunks.push(chunk));
        answer.on("end", () =>
          resolve({
            status: answer.statusCode ?? 0,
            value: JSON.parse(Buffer.concat(chunks).toString() || "null"),
          }),
        );
      },
    );
    // A hub that refuses may close while we still send.
    sent.on("error", reject);
    sent.end(body);
  });
}

const compare = (paths: readonly string[]) =>
  post("/v1/loads/compare", "application/json", Buffer.from(JSON.stringify(requestOf(paths))));

function load(paths: readonly string[]) {
  const stored = { sha256, encoding: "identity", size: content.length, stored: content.length } as const;
  const stream = [
    encodeMagic(),
    encodeDocument(requestOf(paths)),
    encodeContentHeader(stored),
    content,
    encodeEnd(1),
  ];
  return post("/v1/loads", CONTENT_STREAM_TYPE, Buffer.concat(stream));
}

async function storedPaths(): Promise<string[]> {
  const answer = await fetch(new URL("/v1/files", hub.url));
  const { files } = (await answer.json()) as { files: { path: string }[] };
  return files.map((file) => file.path);
}

const codeOf = (value: unknown) => (value as { error?: { code?: string } }).error?.code;

test("the hub names every hostile path of a comparison", async () => {
  // What its schema refuses by length alone is tried one by one below.
  const names = HOSTILE_NAMES.filter((name) => name !== "" && name.length <= 4096);
  const { status, value } = await compare(["harmless", ...names]);
  assert.equal(status, 200, JSON.stringify(value).slice(0, 500));
  const told = new Set((value as LoadComparison).refusals.map((refusal) => refusal.where));
  assert.deepEqual(
    names.filter((name) => !told.has(name)),
    [],
  );
  assert.equal(told.has("harmless"), false);
});

test("the hub refuses a load with any kind of hostile path, and keeps nothing of it", async () => {
  const before = await storedPaths();
  const groups = Object.values(KNOWN_NAMES).flatMap((names) => [[names[0] ?? ""], names.slice(0, 40)]);
  for (const names of [...groups, [""], ["x".repeat(5000)]]) {
    const { status, value } = await load(["harmless", ...names]);
    const name = JSON.stringify(names[0]).slice(0, 80);
    assert.ok(status === 409 || status === 400, `${status} for ${name}`);
    assert.match(codeOf(value) ?? "", /^(PATH_REFUSED|LOAD_REFUSED|REQUEST_INVALID)$/, name);
  }
  assert.deepEqual(await storedPaths(), before);
});

test("the hub refuses twins, within a load and against what it holds", async () => {
  for (const pair of TWINS) {
    const { value } = await compare(pair);
    assert.ok((value as LoadComparison).refusals.length > 0, pair.join(" and "));
  }
  assert.equal((await load(["Readme"])).status, 200);
  const { status, value } = await load(["README"]);
  assert.deepEqual([status, codeOf(value)], [409, "PATH_REFUSED"]);
  assert.equal((await load(["readme/inside"])).status, 409);
});

test("names of every length up to the limits are taken, beyond them refused", async () => {
  const deep = (names: number) => Array.from({ length: names }, () => "d").join("/");
  const long = (length: number) => `${"p".repeat(200)}/`.repeat(5).slice(0, 1000) + "q".repeat(length - 1000);
  const good = ["n".repeat(254), "m".repeat(255), deep(63), long(1023), `${long(1024)}`];
  const { value } = await compare(good);
  assert.deepEqual((value as LoadComparison).refusals, []);
  for (const bad of ["n".repeat(256), deep(65), long(1025)]) {
    const { value: refused } = await compare([bad]);
    assert.equal((refused as LoadComparison).refusals.length, 1, bad.slice(0, 20));
  }
});

test("patterns and assignments cannot bring in what a load may not", async () => {
  for (const name of ["nul.txt", ".lockstep/x", "x.", "README"]) {
    const body = { match: name, add: ["role:Server"], remove: [], only: true };
    const { status, value } = await post(
      "/v1/files/assign",
      "application/json",
      Buffer.from(JSON.stringify(body)),
    );
    assert.ok(status >= 400, `${name}: ${JSON.stringify(value)}`);
  }
  const slow = { match: `${"*a".repeat(2000)}b` };
  const answer = await post("/v1/files/remove", "application/json", Buffer.from(JSON.stringify(slow)));
  assert.equal(codeOf(answer.value), "FILE_UNKNOWN");
});
