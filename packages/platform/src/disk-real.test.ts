import assert from "node:assert/strict";
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import { isSameFile, systemErrorCode } from "./disk.ts";
import { realDisk } from "./disk-real.ts";

const bytes = (text: string) => new TextEncoder().encode(text);
const codeIs = (code: string) => (error: unknown) => systemErrorCode(error) === code;
const posix = { skip: process.platform === "win32" ? "POSIX only" : false };

function temporary(t: TestContext): string {
  const directory = fs.mkdtempSync(join(tmpdir(), "lockstep-disk-"));
  t.after(() => fs.rmSync(directory, { recursive: true, force: true }));
  return directory;
}

test("files and directories get exactly the mode that was asked for, whatever the umask", posix, (t) => {
  const directory = temporary(t);
  const former = process.umask(0o077);
  t.after(() => process.umask(former));
  realDisk.makeDirectory(join(directory, "d"), 0o755);
  realDisk.writeFile(join(directory, "f"), bytes("x"), 0o444);
  realDisk.copyFile(join(directory, "f"), join(directory, "g"), 0o751);
  assert.equal(realDisk.lstat(join(directory, "d"))?.mode, 0o755);
  assert.equal(realDisk.lstat(join(directory, "f"))?.mode, 0o444);
  assert.equal(realDisk.lstat(join(directory, "g"))?.mode, 0o751);
});

test("no call follows a link at the end of a path", posix, (t) => {
  const directory = temporary(t);
  const target = join(directory, "target");
  fs.writeFileSync(target, "untouched");
  fs.mkdirSync(join(directory, "folder"));
  const link = join(directory, "link");
  fs.symlinkSync(target, link);
  fs.symlinkSync(join(directory, "folder"), join(directory, "way"));
  assert.equal(realDisk.lstat(link)?.kind, "link");
  assert.throws(() => realDisk.readFile(link), codeIs("ELOOP"));
  assert.throws(() => realDisk.copyFile(link, join(directory, "copy"), 0o644), codeIs("ELOOP"));
  assert.throws(() => realDisk.writeFile(link, bytes("evil"), 0o644), codeIs("EEXIST"));
  assert.throws(() => realDisk.copyFile(target, link, 0o644), codeIs("EEXIST"));
  assert.throws(() => realDisk.readDirectory(join(directory, "way")), codeIs("ENOTDIR"));
  assert.throws(() => realDisk.removeDirectory(join(directory, "way")), codeIs("ENOTDIR"));
  assert.equal(fs.existsSync(join(directory, "copy")), false);
  realDisk.unlink(link);
  assert.equal(fs.readFileSync(target, "utf8"), "untouched");
});

test("what is not there, or lies below a file, is nothing; any other failure is told", posix, (t) => {
  const directory = temporary(t);
  fs.writeFileSync(join(directory, "f"), "");
  assert.equal(realDisk.lstat(join(directory, "absent")), null);
  assert.equal(realDisk.lstat(join(directory, "f/below")), null);
  fs.symlinkSync("loop", join(directory, "loop"));
  assert.throws(() => realDisk.lstat(join(directory, "loop/below")), codeIs("ELOOP"));
});

test("a second name is the same file, a copy is not, and large copies are whole", posix, (t) => {
  const directory = temporary(t);
  const [a, b, c] = ["a", "b", "c"].map((name) => join(directory, name));
  assert.ok(a !== undefined && b !== undefined && c !== undefined);
  const content = Buffer.alloc((1 << 21) + 17, "0123456789");
  realDisk.writeFile(a, content, 0o644);
  realDisk.link(a, b);
  realDisk.copyFile(a, c, 0o600);
  const [first, second, third] = [a, b, c].map((path) => realDisk.lstat(path));
  assert.ok(first && second && third);
  assert.ok(isSameFile(first, second));
  assert.ok(!isSameFile(first, third));
  assert.ok(content.equals(realDisk.readFile(c)));
  realDisk.rename(a, b);
  assert.equal(realDisk.lstat(a)?.kind, "file", "a rename of two names of one file does nothing");
});

test("few and many files are made durable, whatever their mode; a missing one is told", async (t) => {
  const directory = temporary(t);
  for (const count of [1, 200]) {
    const paths = Array.from({ length: count }, (_, at) => join(directory, `${count}-${at}`));
    for (const [at, path] of paths.entries())
      realDisk.writeFile(path, bytes("x"), at % 2 === 0 ? 0o444 : 0o100);
    await realDisk.syncFiles(paths);
    await realDisk.syncDirectories([directory]);
    if (process.platform !== "win32") assert.equal(realDisk.lstat(paths[0] ?? "")?.mode, 0o444);
    await assert.rejects(realDisk.syncFiles([...paths, join(directory, "absent")]), codeIs("ENOENT"));
  }
  await realDisk.syncFiles([]);
});

test("free space and permission are asked without changing anything", posix, (t) => {
  const directory = temporary(t);
  assert.ok(realDisk.freeBytes(directory) > 0);
  realDisk.demandWritable(directory);
  assert.throws(() => realDisk.demandWritable(join(directory, "absent")), codeIs("ENOENT"));
  assert.deepEqual(realDisk.readDirectory(directory), []);
  assert.equal(realDisk.isInUse(directory), false);
});
