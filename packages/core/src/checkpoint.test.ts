import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import {
  CHECKPOINT_LIMITS,
  type CheckpointEntry,
  type CheckpointManifest,
  checkpointRoots,
  findCheckpointExcess,
  findManifestProblem,
  type StoredEntry,
} from "./checkpoint.ts";
import { type FoundEntry, isNothingToDo, planLayDown } from "./checkpoint-plan.ts";
import {
  batchesOf,
  CHECKPOINT_MANIFEST,
  garbageOf,
  manifestKey,
  newestManifestKey,
  pieceKey,
} from "./checkpoint-store.ts";
import { DEFAULT_VIRTUAL_SERVER } from "./cluster-documents.ts";
import type { VirtualServerDefinition } from "./cluster-types.ts";
import { DEFAULT_RESOURCE_POLICY } from "./resource-policy.ts";

const definition = (given: Partial<VirtualServerDefinition>): VirtualServerDefinition => ({
  ...DEFAULT_VIRTUAL_SERVER,
  name: "jobs",
  ...given,
});

const HASHES = ["a", "b", "c"].map((digit) => digit.repeat(64));
const file = (path: string, content = 0, root = "data"): StoredEntry => ({
  ...{ root, path, kind: "file", mode: 0o644, size: 1, sha256: HASHES[content] ?? "" },
  pieces: [pieceKey(1, content + 1)],
});
const directory = (path: string, root = "data"): StoredEntry => ({
  ...{ root, path, kind: "directory", mode: 0o755, size: 0, sha256: "" },
  pieces: [],
});
const manifest = (entries: readonly StoredEntry[], number = 1): CheckpointManifest => ({
  ...{ number, node: "alpha", token: 1, roots: ["data"] },
  entries,
});

test("settings are found by convention, without anybody registering them (S13)", () => {
  const found = checkpointRoots(
    definition({ config: { path: "/opt/app/app.toml", hash: null }, checkpoints: ["/etc/app.conf"] }),
    "/var/lib/jobs/",
  );
  assert.deepEqual(found.roots, [
    { id: "data", path: "/var/lib/jobs/settings" },
    { id: "config", path: "/opt/app/settings" },
    { id: "/etc/app.conf", path: "/etc/app.conf" },
  ]);
  assert.deepEqual(found.left, []);
});

test("what every node sees anyway, what each has of its own, and what is followed already is left out, with the reason", () => {
  const mount = {
    ...({ name: "disk", type: "mount", policy: DEFAULT_RESOURCE_POLICY } as const),
    settings: { device: "/dev/sdb1", directory: "/shared/" },
  };
  const { roots, left } = checkpointRoots(
    definition({
      config: { path: "/opt/app/app.toml", hash: null },
      resources: [mount],
      checkpoints: ["/shared/x", "/opt/app", "/opt/app/settings/deep", "/opt/app/settings", "/a/../etc"],
    }),
    "/shared/data",
  );
  assert.deepEqual(
    roots.map(({ id }) => id),
    ["config"],
  );
  assert.deepEqual(
    left.map(({ path, why }) => `${path}: ${why}`),
    [
      "/shared/data/settings: it lies on the volume at /shared",
      "/shared/x: it lies on the volume at /shared",
      "/opt/app: the configuration file is in it, and each node has its own",
      "/opt/app/settings/deep: /opt/app/settings is followed already",
      "/a/../etc: it is no plain absolute path",
    ],
  );
});

test("a manifest that a stranger wrote leads nowhere but below its roots", () => {
  const problem = (entries: readonly StoredEntry[]) => findManifestProblem(manifest(entries));
  assert.equal(problem([directory(""), file("a"), directory("b"), file("b/c")]), null);
  assert.match(problem([directory(""), file("../a")]) ?? "", /refused/);
  assert.match(problem([directory(""), file("a\\b")]) ?? "", /backslash/);
  assert.match(problem([file("a", 0, "/etc/cron.d")]) ?? "", /no root/);
  assert.match(problem([directory(""), file("a"), file("a/b")]) ?? "", /no directory/);
  assert.match(problem([file("a")]) ?? "", /no directory/);
  assert.match(problem([directory(""), file("a"), file("a")]) ?? "", /twice/);
  assert.match(problem([directory(""), file("a"), file("A")]) ?? "", /one file on some systems/);
  const text = CHECKPOINT_MANIFEST.format(manifest([directory(""), file("a")]));
  assert.deepEqual(CHECKPOINT_MANIFEST.parse(text), {
    ok: true,
    value: manifest([directory(""), file("a")]),
  });
  assert.equal(CHECKPOINT_MANIFEST.parse(text.replace(/checkpoint\/piece\/[^"]+/, "cluster")).ok, false);
});

test("too large is told by name and figure", () => {
  const large = { ...file("a"), size: CHECKPOINT_LIMITS.fileBytesMax + 1 };
  assert.deepEqual(findCheckpointExcess([file("b")], CHECKPOINT_LIMITS), []);
  assert.match(findCheckpointExcess([large], CHECKPOINT_LIMITS)[0]?.problem ?? "", /4194305 bytes/);
  const all = Array.from({ length: 5 }, () => ({ ...file("a"), size: CHECKPOINT_LIMITS.fileBytesMax }));
  assert.equal(findCheckpointExcess(all, CHECKPOINT_LIMITS)[0]?.where, "all files");
});

test("contents go before the manifest that names them, in transactions of bounded size", () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 0, max: 350_000 }), { maxLength: 200 }), (sizes) => {
      const pieces = new Map(sizes.map((size, index) => [pieceKey(1, index + 1), "x".repeat(size)]));
      const batches = batchesOf(pieces, [manifestKey(7), "{}"]);
      const keys = batches.flatMap((batch) => [...batch.keys()]);
      assert.deepEqual(keys, [...pieces.keys(), manifestKey(7)]);
      for (const batch of batches) {
        const length = [...batch.values()].reduce((sum, text) => sum + text.length, 0);
        assert.ok(batch.size === 1 || (length <= 400_000 && batch.size <= 64));
      }
    }),
    { numRuns: 30 },
  );
});

test("the manifest with the highest number counts, and nothing that it names is garbage", () => {
  const [seven, eight] = [manifestKey(7), manifestKey(12)];
  assert.equal(newestManifestKey([eight, "checkpoint/manifest/zzz", seven, "checkpoint/piece/9"]), eight);
  assert.equal(newestManifestKey([]), null);
  const kept = manifest([directory(""), file("a", 0), file("b", 1)], 12);
  const keys = [
    seven,
    eight,
    manifestKey(13),
    pieceKey(1, 1),
    pieceKey(1, 2),
    pieceKey(1, 3),
    pieceKey(2, 1),
  ];
  // One with a higher number is somebody's who is newer than we know.
  assert.deepEqual(garbageOf(keys, kept), [seven, pieceKey(1, 3), pieceKey(2, 1)]);
  assert.ok(!pieceKey(1, 10).startsWith(pieceKey(1, 1)), "no key is the beginning of another");
});

/** A tree as any node may have it: by path, content or directory or something that is not followed. */
const trees = fc.dictionary(
  fc.constantFrom("a", "b", "c", "a/x", "a/y", "b/x", "b/x/deep"),
  fc.constantFrom("0", "1", "2", "directory", "other"),
);

function entriesOf(tree: Readonly<Record<string, string>>): FoundEntry[] {
  const entries = new Map<string, FoundEntry>([["", { ...directory("") }]]);
  const add = (path: string, kind: string): boolean => {
    const parent = path.includes("/") ? path.slice(0, path.lastIndexOf("/")) : "";
    if (!entries.has(parent) && !add(parent, "directory")) return false;
    if (entries.get(parent)?.kind !== "directory" || entries.has(path))
      return entries.get(path)?.kind === kind;
    const plain = { root: "data", path, mode: 0, size: 0, sha256: "" };
    entries.set(
      path,
      kind === "other"
        ? { ...plain, kind: "other" }
        : kind === "directory"
          ? directory(path)
          : { ...file(path, Number(kind)) },
    );
    return true;
  };
  for (const [path, kind] of Object.entries(tree)) add(path, kind);
  return [...entries.values()];
}

test("a plan carried out gives what was wanted, leaves alone what is not followed, and is empty the second time", () => {
  fc.assert(
    fc.property(trees, trees, (have, want) => {
      const found = entriesOf(have);
      const wanted = entriesOf(want).filter((entry): entry is CheckpointEntry => entry.kind !== "other");
      const plan = planLayDown(wanted, found, () => true);
      assert.deepEqual(
        plan.edits.filter(({ found }) => found.kind === "file"),
        [],
      );
      const disk = new Map<string, FoundEntry>(found.map((entry) => [entry.path, entry]));
      const below = (path: string) =>
        [...disk.keys()].some((each) => each.startsWith(`${path}/`) && path !== "");
      for (const { path, kind } of plan.remove) {
        if (kind === "directory" && below(path)) continue;
        disk.delete(path);
      }
      for (const entry of [...plan.makeDirectories, ...plan.write]) {
        const parent = entry.path.includes("/") ? entry.path.slice(0, entry.path.lastIndexOf("/")) : "";
        assert.ok(entry.path === "" || disk.get(parent)?.kind === "directory", `${entry.path} has no parent`);
        assert.notEqual(disk.get(entry.path)?.kind, "other");
        disk.set(entry.path, entry);
      }
      for (const entry of wanted) assert.equal(disk.get(entry.path)?.sha256, entry.sha256);
      const goal = new Map(wanted.map((entry) => [entry.path, entry]));
      for (const [path, entry] of disk)
        assert.ok(goal.has(path) || entry.kind === "other" || below(path), `${path} should be gone`);
      const rest = [...disk.values()];
      const again = planLayDown(wanted, rest, () => true);
      assert.ok(again.write.length + again.makeDirectories.length === 0);
      if (rest.every(({ path }) => goal.has(path))) assert.ok(isNothingToDo(again, rest));
    }),
  );
});

test("what this node did not put there itself is an edit", () => {
  const found = [directory(""), file("mine", 0), file("edited", 1), file("extra", 2)];
  const wanted = [directory(""), file("mine", 1), file("edited", 2)];
  const plan = planLayDown(wanted, found, (key) => key.endsWith("mine"));
  assert.deepEqual(
    plan.edits.map(({ found, wanted }) => [found.path, wanted?.path ?? null]),
    [
      ["edited", "edited"],
      ["extra", null],
    ],
  );
});
