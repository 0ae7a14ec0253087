import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { checkPath, type FileEntry, isPlainPath, joinManifests, type Manifest } from "./index.ts";

const entry = (path: string, sha256 = "a".repeat(64)): FileEntry => ({
  path,
  size: 1,
  sha256,
  mode: 0o644,
  backup: false,
});
const manifest = (name: string, ...entries: FileEntry[]): Manifest => ({
  target: { kind: "role", name },
  entries,
});
const faults = (...manifests: Manifest[]) =>
  joinManifests(manifests).faults.map((fault) => `${fault.kind} ${fault.path}`);

test("a path that the grammar accepts without asking is one that it accepts when asked", () => {
  const piece = fc.constantFrom(
    "a",
    "Z",
    "0",
    ".",
    "/",
    "-",
    "_",
    "~",
    "@",
    "con",
    "NUL",
    "com1",
    "update.log",
    " ",
    "ß",
  );
  const path = fc.oneof(
    fc.string({ maxLength: 12 }),
    fc.array(piece, { maxLength: 8 }).map((all) => all.join("")),
  );
  let plain = 0;
  fc.assert(
    fc.property(path, (text) => {
      if (!isPlainPath(text)) return;
      plain++;
      assert.equal(checkPath(text), null);
    }),
    { numRuns: 20_000 },
  );
  assert.ok(plain > 1000, `${plain} plain paths were tried`);
});

test("ordinary paths of packages are plain", () => {
  for (const path of ["node_modules/@mui/icons-material/esm/Abc.js", "bin/run", "lib/x-1.2.3.min.js.map"])
    assert.equal(isPlainPath(path), true, path);
});

test("manifests are joined in order, and an equal file counts once", () => {
  const joined = joinManifests([
    manifest("A", entry("b"), entry("d")),
    manifest("B", entry("a"), entry("b")),
  ]);
  assert.deepEqual(joined, { entries: [entry("a"), entry("b"), entry("d")], faults: [] });
});

test("two contents for one place are a fault that names both sides", () => {
  const { faults: found } = joinManifests([
    manifest("A", entry("x")),
    manifest("B", entry("x", "b".repeat(64))),
  ]);
  assert.equal(found[0]?.kind, "conflict");
  assert.match(found[0]?.problem ?? "", /role:A and role:B/);
});

test("hostile paths, our own names and twins are refused whoever wrote the manifest", () => {
  assert.deepEqual(faults(manifest("A", entry("../x"))), ["path ../x"]);
  assert.deepEqual(faults(manifest("A", entry("InstallState.config"))), ["path InstallState.config"]);
  assert.deepEqual(faults(manifest("A", entry("UPDATE.LOCK"))), ["path UPDATE.LOCK"]);
  assert.deepEqual(faults(manifest("A", entry("A.txt")), manifest("B", entry("a.txt"))), ["twin a.txt"]);
  assert.deepEqual(faults(manifest("A", entry("a"), entry("a/b"))), ["twin a/b"]);
});
