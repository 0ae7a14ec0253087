import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import type { HubClient } from "@lockstep/client";
import { byPath, type FileEntry, parseTarget } from "@lockstep/core";
import { formatManifest, LockstepError, type RevisionDocument } from "@lockstep/protocol/wire";
import {
  addSignatures,
  appendEntry,
  EMPTY_LOG,
  encodeMetadata,
  formatKeyFile,
  type LogHead,
  makeRoot,
  makeSecret,
  makeTargets,
  type PublicKey,
  type Signer,
  signerOf,
} from "@lockstep/trust";
import { Output } from "../screen/output.ts";
import { readWaiting } from "./waiting.ts";
import { tellWaiting } from "./waiting-text.ts";

const FAR_MS = Date.UTC(2100, 0, 1);
const DIGEST = "a".repeat(64);
/** Another history than the one that was signed. */
const OTHER_LOG = appendEntry(EMPTY_LOG, { index: 1, revision: 9, digest: DIGEST });
const releaseSecret = makeSecret();
const releaseKey = signerOf(releaseSecret);
const [rootKey, stranger] = [1, 2].map(() => signerOf(makeSecret())) as [Signer, Signer];

function file(path: string, content: string, mode = 0o644): FileEntry {
  const sha256 = createHash("sha256").update(content).digest("hex");
  return { path, size: content.length, sha256, mode, backup: false };
}

interface Set {
  readonly number: number;
  readonly server: readonly FileEntry[];
}

const SAFE: Set = {
  number: 1,
  server: [file("bin/run", "good", 0o755), file("gone", "1"), file("text", "1")],
};
const EVIL: Set = {
  number: 2,
  server: [file("bin/run", "evil", 0o755), file("new", "333"), file("text", "22")],
};

/** A hub that shows a former revision and one that waits, whoever signed the former one. */
async function hubShowing(
  former: Set,
  options: {
    readonly signer?: Signer;
    readonly version?: number;
    readonly waiting?: Set;
    readonly log?: LogHead;
  } = {},
) {
  const { signer = releaseKey, version = 1, waiting = EVIL } = options;
  const manifests = new Map<string, string>();
  const describe = ({ number, server }: Set): RevisionDocument => {
    const target = parseTarget("role:Server") ?? assert.fail();
    const text = formatManifest({ target, entries: [...server].sort(byPath) });
    const sha256 = createHash("sha256").update(text).digest("hex");
    manifests.set(sha256, text);
    const bytes = server.reduce((sum, { size }) => sum + size, 0);
    return {
      number,
      digest: DIGEST,
      createdAt: Date.UTC(2026, 0, 1),
      updateArchive: { sha256: String(number).repeat(64), size: number * 1000 },
      manifests: [{ target: "role:Server", sha256, size: text.length, files: server.length, bytes }],
      packageClosure: {},
      selectableRoles: ["Server"],
      selectablePackages: [],
    };
  };
  const log = appendEntry(EMPTY_LOG, { index: 1, revision: former.number, digest: DIGEST });
  const shown = makeTargets(version, FAR_MS, { document: describe(former), log });
  await addSignatures(shown, [signer]);
  const next = { index: 2, revision: waiting.number, digest: DIGEST };
  const awaiting = makeTargets(2, FAR_MS, {
    document: describe(waiting),
    log: appendEntry(options.log ?? log, next),
  });
  const root = await rootOf(1, releaseKey.key, rootKey);
  const documents = new Map([
    [`${version}.targets.json`, encodeMetadata(shown)],
    ["root.json", root],
  ]);
  const origin = {
    releases: ["APP 2 (version)"],
    removed: [{ path: "gone", sha256: file("", "1").sha256, module: "OLD" }],
  };
  const hub = {
    signingStatus: async () => ({ roles: [{ role: "targets", version }] }),
    awaitingDocument: async () => Buffer.from(encodeMetadata(awaiting)).toString(),
    signedDocument: async (name: string) => {
      const found = documents.get(name);
      if (found !== undefined) return found;
      throw new LockstepError("NOT_FOUND", name);
    },
    manifest: async ({ sha256 }: { sha256: string }) => manifests.get(sha256) ?? assert.fail(sha256),
    connection: { read: async () => ({ body: Buffer.from(JSON.stringify(origin)) }) },
    allFiles: async function* () {
      for (const { path, sha256 } of waiting.server) yield { path, sha256, module: "APP" };
    },
  };
  return { hub: hub as unknown as HubClient, documents };
}

async function rootOf(version: number, release: PublicKey, signer: Signer): Promise<Uint8Array> {
  const role = (key: PublicKey) => ({ keys: [key], threshold: 1 });
  const root = makeRoot({
    version,
    expiresMs: FAR_MS,
    epoch: 1,
    roles: {
      root: role(rootKey.key),
      targets: role(release),
      snapshot: role(stranger.key),
      timestamp: role(stranger.key),
    },
  });
  await addSignatures(root, [signer]);
  return encodeMetadata(root);
}

/** A directory with the release key, as its owner has it. */
async function keysHere(t: TestContext): Promise<{ readonly keys: string; readonly directory: string }> {
  const directory = mkdtempSync(join(tmpdir(), "lockstep-keys-"));
  t.after(() => rmSync(directory, { recursive: true }));
  writeFileSync(join(directory, "targets.json"), await formatKeyFile(releaseSecret, "targets", 0, null));
  return { keys: directory, directory };
}

test("what waits is compared with the revision that a key which is here signed", async (t) => {
  const { hub } = await hubShowing(SAFE);
  const { shown } = await readWaiting(hub, await keysHere(t));
  assert.equal(shown.former?.revision, 1);
  assert.deepEqual(shown.problems, []);
  assert.deepEqual(shown.releases, ["APP 2 (version)"]);
  assert.deepEqual(
    shown.files.map(({ kind, path, module, from, to, marks }) => [
      kind,
      path,
      module,
      from?.size ?? null,
      to?.size ?? null,
      marks,
    ]),
    [
      ["changed", "bin/run", "APP", 4, 4, ["executable"]],
      ["removed", "gone", "OLD", 1, null, []],
      ["added", "new", "APP", null, 3, []],
      ["changed", "text", "APP", 1, 2, []],
    ],
  );
  assert.deepEqual(shown.summary, [
    { module: "APP", kind: "added", files: 1, bytes: 3 },
    { module: "APP", kind: "changed", files: 2, bytes: 6 },
    { module: "OLD", kind: "removed", files: 1, bytes: 1 },
  ]);
});

test("behind a former revision that a hub made up, and that has the same files already, nothing hides", async (t) => {
  const { hub } = await hubShowing({ ...EVIL, number: 1 }, { signer: stranger });
  const { shown } = await readWaiting(hub, await keysHere(t));
  assert.equal(shown.former, null);
  assert.match(shown.problems.join(), /signed by no release key that is here/);
  assert.deepEqual(
    shown.files.map(({ kind, path }) => `${kind} ${path}`),
    ["added bin/run", "added new", "added text"],
  );
  assert.notEqual(shown.updateArchive.to, null);
  assert.equal(shown.updateArchive.from, null);
});

test("an older revision, genuine as it is, is not taken for the one right before", async (t) => {
  // Going back to what was signed before would not be seen.
  const back = { ...SAFE, number: 3 };
  for (const options of [
    { version: 7, waiting: back },
    { log: OTHER_LOG, waiting: back },
  ]) {
    const { hub } = await hubShowing(SAFE, options);
    const { shown } = await readWaiting(hub, await keysHere(t));
    assert.match(shown.problems.join(), /not the one right before/);
    assert.equal(shown.files.length, 3);
  }
});

test("without a release key a known root says whose signature counts, and one that leads elsewhere is refused", async (t) => {
  const { directory } = await keysHere(t);
  const root = join(directory, "known.json");
  writeFileSync(root, await rootOf(1, releaseKey.key, rootKey));
  const { hub, documents } = await hubShowing(SAFE);
  assert.match((await readWaiting(hub, {})).shown.problems.join(), /--root FILE/);
  const { shown } = await readWaiting(hub, { root });
  assert.equal(shown.former?.vouchedBy, "the release keys of root version 1");
  // The hub goes on to a root of its own, and shows what that one's key signed.
  documents.set("2.root.json", await rootOf(2, stranger.key, stranger));
  await assert.rejects(readWaiting(hub, { root }), { code: "TRUST_REFUSED" });
  // One that the root keys signed is followed: then another release key counts.
  documents.set("2.root.json", await rootOf(2, stranger.key, rootKey));
  assert.equal((await readWaiting(hub, { root })).shown.former, null);
});

class Lines extends Output {
  readonly lines: string[] = [];
  readonly warnings: string[] = [];
  override line(text = ""): void {
    this.lines.push(text);
  }
  override warn(text: string): void {
    this.warnings.push(text);
  }
}

test("what stands out comes first, all files on demand, and no name reaches the terminal as it is", async (t) => {
  const many = Array.from({ length: 60 }, (_, index) => file(`a/${String(index).padStart(2, "0")}`, "1"));
  const waiting = { number: 2, server: [...many, file("z\u001b[2J\nrun", "1", 0o755)] };
  const { hub } = await hubShowing({ number: 1, server: [] }, { waiting });
  const { shown } = await readWaiting(hub, await keysHere(t));
  const few = new Lines({});
  assert.equal(tellWaiting(few, shown, false), 21);
  const rows = few.lines.filter((line) => line.startsWith("+\t"));
  assert.equal(rows.length, 40);
  assert.equal(
    rows[0],
    `+\tz\\u001b[2J\\u000arun\t\t1\t755\trole:Server\t${file("", "1").sha256.slice(0, 16)}\t! executable`,
  );
  assert.match(
    few.lines.join("\n"),
    /! updater and plug-ins \(Update.zip\): 1{16} \(1\.0 kB\) -> 2{16} \(2\.0 kB\)/,
  );
  assert.match(few.lines.join("\n"), /! 1 file stands out: 1 executable/);
  assert.match(few.lines.at(-1) ?? "", /21 more files: --all/);
  const all = new Lines({});
  assert.equal(tellWaiting(all, shown, true), 0);
  assert.equal(all.lines.filter((line) => line.startsWith("+\t")).length, 61);
  assert.ok([...few.lines, ...all.lines].every((line) => !/[\p{Cc}]/u.test(line.replaceAll("\t", ""))));
});
