import assert from "node:assert/strict";
import { hash, randomBytes } from "node:crypto";
import { readdir, rm, truncate } from "node:fs/promises";
import { join } from "node:path";
import { describe, test } from "node:test";
import { readStep, sourceOf } from "@lockstep/delta";
import { parseManifest, type RevisionDocument } from "@lockstep/protocol";
import { usePostgres } from "../support/postgres.ts";
import { loadAndSettle, release } from "./support/release.ts";
import { type Answer, ask, askJson, codeOf } from "./support/requests.ts";
import { startTestHub, type TestHub } from "./support/test-hub.ts";

const base = randomBytes(300_000);
const before = { "a.bin": { content: base }, "b.txt": "one\n".repeat(500), same: "same" };
const after = {
  "a.bin": { content: Buffer.concat([Buffer.from("new head"), base]) },
  "b.txt": `${"one\n".repeat(500)}two\n`,
  same: "same",
};

describe("steps", () => {
  const server = usePostgres();

  interface Loaded {
    readonly hub: TestHub;
    readonly from: string;
    readonly to: string;
    readonly address: string;
  }

  async function manifestOf(hub: TestHub, revision: number): Promise<string> {
    const document = await askJson<RevisionDocument>(hub, "GET", `/v1/revisions/${revision}`);
    return document.manifests.find(({ target }) => target === "role:Server")?.sha256 ?? "";
  }

  async function loaded(t: Parameters<typeof startTestHub>[0]): Promise<Loaded> {
    const hub = await startTestHub(t, server);
    await loadAndSettle(hub, release(before, { version: "1.0" }));
    await loadAndSettle(hub, release(after, { version: "2.0" }));
    const from = await manifestOf(hub, 1);
    const to = await manifestOf(hub, 2);
    return { hub, from, to, address: `/v1/steps/${from}/${to}` };
  }

  /** Asks for a step until it is there: its maker lets all others go first, which may take long on a busy machine. */
  async function obtain(hub: TestHub, address: string): Promise<Answer> {
    for (;;) {
      const answer = await ask(hub, "GET", `${address}?wait=30`);
      if (answer.status !== 503) return answer;
      assert.equal(codeOf(answer), "HUB_BUSY");
    }
  }

  /** The digests of what comes out of a step. */
  async function results({ hub, from, to }: Loaded, step: Buffer): Promise<string[]> {
    const entriesOf = async (sha256: string) =>
      parseManifest((await ask(hub, "GET", `/v1/manifests/sha256/${sha256}`)).body.toString()).entries;
    const found: string[] = [];
    for (const part of readStep(await entriesOf(from), await entriesOf(to), sourceOf(step))) {
      const pieces: Buffer[] = [];
      const contents = [base, Buffer.from(before["b.txt"]), Buffer.from("same")];
      const open = ({ sha256 }: { sha256: string }) =>
        sourceOf(contents.find((bytes) => hash("sha256", bytes, "hex") === sha256) ?? Buffer.alloc(0));
      part.apply(open, (bytes) => pieces.push(Buffer.from(bytes)));
      const all = Buffer.concat(pieces);
      let at = 0;
      for (const { size } of part.results) {
        found.push(hash("sha256", all.subarray(at, at + size), "hex"));
        at += size;
      }
    }
    return found.sort();
  }

  const wanted = [after["a.bin"].content, Buffer.from(after["b.txt"])]
    .map((bytes) => hash("sha256", bytes, "hex"))
    .sort();

  test("one is made when it is asked for, never changes, and is served in ranges", async (t) => {
    const world = await loaded(t);
    const { hub, address } = world;
    const whole = await obtain(hub, address);
    assert.equal(whole.status, 200);
    assert.ok(whole.body.length < 400, `${whole.body.length} bytes`);
    assert.match(whole.headers["cache-control"] ?? "", /immutable/);
    assert.deepEqual(await results(world, whole.body), wanted);
    const tag = whole.headers.etag ?? "";
    const rest = await ask(hub, "GET", address, { headers: { range: "bytes=50-", "if-range": tag } });
    assert.equal(rest.status, 206);
    assert.deepEqual(rest.body, whole.body.subarray(50));
    assert.equal((await ask(hub, "GET", address, { headers: { "if-none-match": tag } })).status, 304);
    assert.equal((await ask(hub, "GET", address, { headers: { range: "bytes=9999999-" } })).status, 416);
    // Nobody without a token: it holds content.
    assert.equal((await ask(hub, "GET", address, { token: null })).status, 401);
  });

  test("there is none where nothing is gained, where a manifest is gone, and where the setting forbids it", async (t) => {
    const { hub, from, to, address } = await loaded(t);
    const nobody = "0".repeat(64);
    assert.equal(codeOf(await obtain(hub, `/v1/steps/${from}/${from}`)), "STEP_NONE");
    assert.equal(codeOf(await obtain(hub, `/v1/steps/${nobody}/${to}`)), "STEP_NONE");
    await askJson(hub, "PUT", "/v1/settings", { "Common/Transfer/Steps": false });
    assert.equal(codeOf(await obtain(hub, address)), "STEP_NONE");
  });

  test("those who ask for the same one wait for one maker, and who does not wait is told to come again", async (t) => {
    const { hub, address } = await loaded(t);
    const now = await ask(hub, "GET", address);
    assert.equal(codeOf(now), "HUB_BUSY");
    assert.equal(now.headers["retry-after"], "2");
    const answers = await Promise.all(Array.from({ length: 20 }, () => obtain(hub, address)));
    assert.equal(new Set(answers.map(({ body }) => body.toString("hex"))).size, 1);
  });

  test("a step that was damaged on the disk, or removed, is made again", async (t) => {
    const { hub, address, from, to } = await loaded(t);
    const first = await obtain(hub, address);
    const path = join(hub.directory, "steps", `${from}-${to}`);
    await hub.stop();
    await truncate(path, first.body.length - 5);
    const again = await startTestHub(t, server, { shared: hub.database, dataDirectory: hub.directory });
    assert.deepEqual((await obtain(again, address)).body, first.body);
    await rm(path);
    assert.deepEqual((await obtain(again, address)).body, first.body);
  });

  test("after a new revision the steps from those in use are made before anybody asks", async (t) => {
    const hub = await startTestHub(t, server);
    await loadAndSettle(hub, release(before, { version: "1.0" }));
    const report = {
      host: "h",
      directory: "/i",
      roles: ["Server"],
      packages: [],
      revision: 1,
      outcome: "updated",
      problem: null,
      autoUpdate: true,
      updaterVersion: "0.1.0",
    };
    const id = "00000000-0000-4000-8000-000000000001";
    assert.equal((await ask(hub, "PUT", `/v1/installations/${id}`, { body: report })).status, 204);
    await loadAndSettle(hub, release(after, { version: "2.0" }));
    const name = `${await manifestOf(hub, 1)}-${await manifestOf(hub, 2)}`;
    while (!(await readdir(join(hub.directory, "steps"))).includes(name))
      await new Promise((resolve) => setTimeout(resolve, 50));
    assert.equal((await ask(hub, "GET", `/v1/steps/${name.replace("-", "/")}`)).status, 200);
  });
});
