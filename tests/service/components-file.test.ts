import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { type TestContext, test } from "node:test";
import { aStep, type RanStep, run, temporaryDirectory } from "./one-step.ts";

type Tree = Readonly<Record<string, string>>;

/** Writes files; a content `-> X` makes a link to X. */
function plant(root: string, tree: Tree): string {
  for (const [path, content] of Object.entries(tree)) {
    const file = join(root, path);
    mkdirSync(dirname(file), { recursive: true });
    if (content.startsWith("-> ")) symlinkSync(content.slice(3), file);
    else writeFileSync(file, content);
  }
  return root;
}

function treeOf(root: string): Tree {
  if (!existsSync(root)) return {};
  return Object.fromEntries(
    readdirSync(root, { recursive: true, withFileTypes: true })
      .filter((entry) => !entry.isDirectory())
      .map((entry) => join(entry.parentPath, entry.name))
      .map((path) => [
        path.slice(root.length + 1),
        lstatSync(path).isSymbolicLink() ? `-> ${readlinkSync(path)}` : readFileSync(path, "utf8"),
      ])
      .sort(),
  );
}

async function place(t: TestContext, tree: Tree = {}) {
  const root = await temporaryDirectory(t);
  plant(root, tree);
  const go = (task: string, parameters: Readonly<Record<string, unknown>>): Promise<RanStep> =>
    run(t, aStep(`File.${task}`, parameters));
  return { root, at: (path: string) => join(root, path), go };
}

function succeeded(ended: RanStep): Readonly<Record<string, unknown>> {
  assert.equal(ended.outcome, "success", ended.message);
  return ended.output;
}

function refusedBy(ended: RanStep, why: RegExp): void {
  assert.deepEqual([ended.outcome, ended.permanent], ["error", true], ended.message);
  assert.match(ended.message, why);
}

test("empty paths, roots, .. and relative paths without a base are refused by every task", async (t) => {
  const { root, go } = await place(t, { "base/f": "1", outside: "2" });
  const base = join(root, "base");
  const bad = ["", " ", "/", "//", "/./", `${root}/../x`, "relative", "a\0b"];
  for (const path of bad) {
    refusedBy(await go("Delete", { path, recursive: true }), /PATH_REFUSED|is missing/);
    refusedBy(await go("Copy", { from: path, to: join(root, "x") }), /PATH_REFUSED/);
    refusedBy(await go("Copy", { from: base, to: path }), /PATH_REFUSED/);
    refusedBy(await go("Move", { from: base, to: path }), /PATH_REFUSED/);
    refusedBy(await go("Sync", { from: base, to: path }), /PATH_REFUSED/);
    refusedBy(await go("Write", { path, content: "x" }), /PATH_REFUSED/);
  }
  for (const path of ["../outside", `${root}/outside`, "/", "", "a/../../outside"])
    refusedBy(await go("Delete", { path, base }), /PATH_REFUSED/);
  refusedBy(await go("Delete", { path: ".", base, recursive: true }), /base directory itself/);
  refusedBy(await go("Delete", { path: "etc", base: "/", recursive: true }), /root directory/);
  assert.deepEqual(treeOf(root), { "base/f": "1", outside: "2" });
});

test("below a base no link is followed, and asked for, none leads out of it", async (t) => {
  const { root, go } = await place(t, {
    "base/in/f": "1",
    "outside/f": "2",
    "base/out": "-> ../outside",
    "base/to": "-> in",
  });
  const base = join(root, "base");
  refusedBy(await go("Write", { path: "out/new", content: "x", base }), /symbolic link/);
  refusedBy(
    await go("Write", { path: "out/new", content: "x", base, followLinks: true }),
    /leads out of the base/,
  );
  refusedBy(await go("Write", { path: "to/new", content: "x", base }), /symbolic link/);
  succeeded(await go("Write", { path: "to/new", content: "x", base, followLinks: true }));
  refusedBy(await go("Delete", { path: "out/f", base }), /symbolic link/);
  assert.deepEqual(treeOf(join(root, "outside")), { f: "2" });
  assert.equal(treeOf(base)["in/new"], "x");
  // The link itself may go.
  succeeded(await go("Delete", { path: "out", base }));
  assert.deepEqual(treeOf(join(root, "outside")), { f: "2" });
});

test("copy takes a file, files by globs, keeps mode and time, and counts", async (t) => {
  const { at, go } = await place(t, {
    "a/x.txt": "x",
    "a/b/y.txt": "yy",
    "a/b/z.bin": "z",
    "a/l": "-> x.txt",
  });
  utimesSync(at("a/x.txt"), 1_000_000, 1_000_000);
  const output = succeeded(
    await go("Copy", { from: at("a"), to: at("c"), match: ["**/*.txt", "l"], exclude: ["**/q*"] }),
  );
  assert.deepEqual(output, { files: 3, bytes: 3, kept: 0, skipped: 0 });
  assert.deepEqual(treeOf(at("c")), { "b/y.txt": "yy", l: "-> x.txt", "x.txt": "x" });
  assert.equal(statSync(at("c/x.txt")).mtimeMs, 1_000_000_000);
  succeeded(await go("Copy", { from: at("a/x.txt"), to: `${at("new")}/` }));
  succeeded(await go("Copy", { from: at("a/x.txt"), to: at("c/b") }));
  assert.equal(readFileSync(at("new/x.txt"), "utf8") + readFileSync(at("c/b/x.txt"), "utf8"), "xx");
  succeeded(await go("Copy", { from: at("a/l"), to: at("followed"), followLinks: true }));
  assert.ok(lstatSync(at("followed")).isFile());
  assert.deepEqual((await go("Copy", { from: at("absent"), to: at("q") })).outcome, "error");
  succeeded(await go("Copy", { from: at("absent"), to: at("q"), missing: "ignore" }));
});

test("copy replaces whole files, keeps or fails where told, and leaves no temporary behind", async (t) => {
  const { root, at, go } = await place(t, { a: "new", b: "old" });
  const before = statSync(at("b")).ino;
  assert.deepEqual(succeeded(await go("Copy", { from: at("a"), to: at("b"), ifExists: "keep" })).kept, 1);
  assert.equal((await go("Copy", { from: at("a"), to: at("b"), ifExists: "fail" })).outcome, "error");
  assert.equal(readFileSync(at("b"), "utf8"), "old");
  succeeded(await go("Copy", { from: at("a"), to: at("b"), verify: true }));
  assert.notEqual(statSync(at("b")).ino, before, "a new file took its place");
  const sha256 = createHash("sha256").update("new").digest("hex");
  succeeded(await go("Copy", { from: at("a"), to: at("c"), sha256 }));
  const wrong = await go("Copy", { from: at("a"), to: at("c"), sha256: "0".repeat(64) });
  refusedBy(wrong, /CONTENT_MISMATCH/);
  assert.deepEqual(Object.keys(treeOf(root)), ["a", "b", "c"]);
  refusedBy(await go("Copy", { from: at("a"), to: at("a") }), /the source itself/);
  refusedBy(await go("Copy", { from: root, to: at("sub") }), /lie in each other/);
});

test("a copy never writes through a link that stands at its destination", async (t) => {
  const { at, go } = await place(t, {
    "a/d/f": "new",
    "a/g": "new",
    precious: "old",
    "to/g": "-> ../precious",
  });
  symlinkSync(dirname(at("precious")), at("to/d"));
  const ended = await go("Copy", { from: at("a"), to: at("to") });
  refusedBy(ended, /symbolic link/);
  assert.ok(!existsSync(at("f")));
  succeeded(await go("Copy", { from: at("a/g"), to: at("to/g") }));
  assert.deepEqual([readFileSync(at("precious"), "utf8"), lstatSync(at("to/g")).isFile()], ["old", true]);
});

test("move renames, copies where it must, and takes emptied directories away", async (t) => {
  const { at, go } = await place(t, { "a/x": "x", "a/b/c/y.log": "y", "a/b/k": "k" });
  assert.equal(
    succeeded(await go("Move", { from: at("a"), to: at("z"), match: ["**/*.log", "x"] })).files,
    2,
  );
  assert.deepEqual(treeOf(at("a")), { "b/k": "k" });
  assert.ok(!existsSync(at("a/b/c")));
  succeeded(await go("Move", { from: at("a/b/k"), to: at("z/k"), verify: true }));
  assert.deepEqual(treeOf(at("z")), { "b/c/y.log": "y", k: "k", x: "x" });
  assert.equal((await go("Move", { from: at("a/b/k"), to: at("z/k") })).outcome, "error");
  succeeded(await go("Move", { from: at("a/b/k"), to: at("z/k"), missing: "ignore" }));
});

test("delete takes what is meant, and a directory only when that is said", async (t) => {
  const { at, go } = await place(t, {
    "a/x.log": "x",
    "a/b/y.log": "y",
    "a/k": "k",
    "a/l": "-> ../keep",
    "keep/f": "f",
  });
  refusedBy(await go("Delete", { path: at("a") }), /is a directory/);
  utimesSync(at("a/x.log"), 1_000_000, 1_000_000);
  assert.equal(
    succeeded(await go("Delete", { path: at("a"), match: ["**/*.log"], olderThanSeconds: 3600 })).files,
    1,
  );
  assert.equal(succeeded(await go("Delete", { path: at("a"), match: ["**/*.log"] })).files, 1);
  const output = succeeded(await go("Delete", { path: at("a"), recursive: true }));
  assert.deepEqual(output, { files: 2, directories: 2, bytes: 1 });
  assert.ok(!existsSync(at("a")));
  assert.deepEqual(treeOf(at("keep")), { f: "f" }, "what a link points at stays");
  succeeded(await go("Delete", { path: at("a"), recursive: true }));
  assert.equal((await go("Delete", { path: at("a"), missing: "error" })).outcome, "error");
});

test("sync makes a directory equal, says first what it would do, and repeats nothing", async (t) => {
  const { at, go } = await place(t, {
    "m/same": "s",
    "m/new/deep": "n",
    "m/changed": "after",
    "m/kind/f": "now a directory",
    "m/link": "-> same",
    "m/skip.tmp": "no",
    "t/same": "s",
    "t/changed": "b4",
    "t/kind": "was a file",
    "t/old/deep/f": "o",
    "t/keep.tmp": "stays",
  });
  utimesSync(at("m/same"), 5, 5);
  utimesSync(at("t/same"), 5, 5);
  const sync = { from: at("m"), to: at("t"), exclude: ["**/*.tmp"] };
  const before = treeOf(at("t"));
  const dry = succeeded(await go("Sync", { ...sync, dryRun: true }));
  assert.deepEqual(treeOf(at("t")), before);
  const expected = { added: 4, replaced: 2, deleted: 3, unchanged: 1 };
  assert.partialDeepStrictEqual(dry, expected);
  assert.ok((dry.changes as string[]).includes("delete old/deep/f"));
  assert.partialDeepStrictEqual(succeeded(await go("Sync", sync)), expected);
  const { "skip.tmp": _, ...model } = treeOf(at("m"));
  assert.deepEqual(treeOf(at("t")), { ...model, "keep.tmp": "stays" });
  const again = succeeded(await go("Sync", sync));
  assert.partialDeepStrictEqual(again, { added: 0, replaced: 0, deleted: 0, unchanged: 7 });
});

test("sync does not delete everything because its model is empty or absent, nor follow links out", async (t) => {
  const { at, go } = await place(t, { "t/f": "f", "o/g": "g" });
  mkdirSync(at("m"));
  refusedBy(await go("Sync", { from: at("absent"), to: at("t") }), /not a directory/);
  refusedBy(await go("Sync", { from: at("m"), to: at("t") }), /is empty/);
  assert.deepEqual(treeOf(at("t")), { f: "f" });
  symlinkSync(at("o"), at("t/l"));
  succeeded(await go("Sync", { from: at("m"), to: at("t"), allowEmpty: true }));
  assert.deepEqual([treeOf(at("t")), treeOf(at("o"))], [{}, { g: "g" }]);
  writeFileSync(at("m/a"), "1");
  succeeded(await go("Sync", { from: at("m"), to: at("t") }));
  writeFileSync(at("m/a"), "2");
  const { atime, mtime } = statSync(at("t/a"));
  utimesSync(at("m/a"), atime, mtime);
  const byTime = succeeded(await go("Sync", { from: at("m"), to: at("t") }));
  const byContent = succeeded(await go("Sync", { from: at("m"), to: at("t"), compare: "content" }));
  assert.deepEqual([byTime.replaced, byContent.replaced], [0, 1]);
});

test("write puts a text or bytes in place, and says when they were there already", async (t) => {
  const { at, go } = await place(t);
  const first = succeeded(await go("Write", { path: at("d/f"), content: "é", mode: "0600" }));
  assert.deepEqual(first, {
    bytes: 2,
    sha256: createHash("sha256").update("é").digest("hex"),
    changed: true,
  });
  assert.equal(statSync(at("d/f")).mode & 0o777, 0o600);
  const again = succeeded(await go("Write", { path: at("d/f"), content: "é", mode: "0600" }));
  assert.equal(again.changed, false);
  succeeded(await go("Write", { path: at("b"), content: "AAEC/w==", encoding: "base64" }));
  assert.deepEqual([...readFileSync(at("b"))], [0, 1, 2, 255]);
  refusedBy(await go("Write", { path: at("b"), content: "no!", encoding: "base64" }), /not base64/);
  const kept = succeeded(await go("Write", { path: at("b"), content: "other", ifExists: "keep" }));
  assert.equal(kept.changed, false);
});

test("special files are left out with a word", async (t) => {
  const { at, go } = await place(t, { "a/f": "f" });
  await run(t, aStep("Command.Run", { program: "mkfifo", arguments: [at("a/pipe")] }));
  const ended = await go("Copy", { from: at("a"), to: at("c") });
  assert.partialDeepStrictEqual(succeeded(ended), { files: 1, skipped: 1 });
  assert.match(ended.log, /pipe is no file/);
  succeeded(await go("Sync", { from: at("a"), to: at("s") }));
  assert.deepEqual(treeOf(at("s")), { f: "f" });
});
