import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  chmodSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { isLockstepError } from "@lockstep/protocol";
import { install, update } from "@lockstep/updater";
import { scanDirectory } from "../../packages/cli/src/load/scan.ts";
import { makeWorld } from "../updater/world.ts";

/**
 * B3: what is no plain file: links, FIFOs, sockets, devices, bits that give rights. The control is an archiver, which carries
 * every one of them from one directory to another.
 */
const targets = ["role:A"];
const isRoot = process.getuid?.() === 0;

/** Each puts something at a place; what it is there, as `lstat` says, is its kind. */
const KINDS: Readonly<Record<string, (place: string, t: TestContext) => void | Promise<void>>> = {
  "a link to a file outside": (place) => symlinkSync("/etc/passwd", place),
  "a link to a folder outside": (place) => symlinkSync("/etc", place),
  "a link to the folder above": (place) => symlinkSync("..", place),
  "a link to nothing": (place) => symlinkSync("nowhere", place),
  "a link to itself": (place) => symlinkSync("x", place),
  "a FIFO": (place) => void execFileSync("mkfifo", [place]),
  ...(isRoot
    ? {
        "a character device": (place: string) => void execFileSync("mknod", [place, "c", "1", "3"]),
        "a block device": (place: string) => void execFileSync("mknod", [place, "b", "7", "200"]),
      }
    : {}),
};
const SOCKET = "a socket";
const BITS = { "set-user-id": 0o4755, "set-group-id": 0o2755, sticky: 0o1755, all: 0o7777 };

function temporary(t: TestContext): { source: string; copied: string } {
  const base = mkdtempSync(join(tmpdir(), "lockstep-kinds-"));
  t.after(() => rmSync(base, { recursive: true, force: true }));
  const [source, copied] = [join(base, "source"), join(base, "copied")];
  for (const directory of [source, copied]) mkdirSync(directory);
  writeFileSync(join(source, "plain"), "plain");
  return { source, copied };
}

/** The directory as an archiver carries it. */
function archived({ source, copied }: { source: string; copied: string }): void {
  execFileSync("sh", ["-c", 'tar -C "$1" -cf - . | tar -C "$2" -xpf -', "sh", source, copied]);
}

const kindOf = (place: string) => lstatSync(place).mode & 0o170000;
const scan = (directory: string) => scanDirectory(directory, { exclude: [], omit: null });

function refused(directory: string): string[] {
  try {
    scan(directory);
  } catch (error) {
    if (isLockstepError(error, "PATH_REFUSED")) return error.faults.map(({ where }) => where);
    throw error;
  }
  return [];
}

test("B3: nothing but plain files and folders gets into a release, each kind tried by itself", async (t) => {
  for (const [name, make] of Object.entries(KINDS)) {
    const places = temporary(t);
    await make(join(places.source, "x"), t);
    assert.deepEqual(refused(places.source), ["x"], name);
    // The control: it is what it is said to be, and an archiver takes it along as that.
    archived(places);
    assert.equal(kindOf(join(places.copied, "x")), kindOf(join(places.source, "x")), name);
    assert.notEqual(kindOf(join(places.copied, "x")), kindOf(join(places.copied, "plain")), name);
    // Without it the same directory is one that can be loaded.
    rmSync(join(places.source, "x"));
    assert.deepEqual(refused(places.source), [], name);
  }
  const { source } = temporary(t);
  const server = createServer().listen(join(source, "x"));
  t.after(() => server.close());
  await new Promise((listening) => server.once("listening", listening));
  assert.deepEqual(refused(source), ["x"], SOCKET);
});

test("B3: bits that give rights stay behind, and a second name of a file is a file of its own", (t) => {
  const places = temporary(t);
  for (const [name, mode] of Object.entries(BITS)) {
    writeFileSync(join(places.source, name), name);
    chmodSync(join(places.source, name), mode);
  }
  linkSync(join(places.source, "plain"), join(places.source, "second"));
  const { files, specialModes } = scan(places.source);
  assert.deepEqual([...specialModes].sort(), Object.keys(BITS).sort(), "it is said");
  for (const { path, mode } of files) assert.equal(mode & ~0o777, 0, path);
  assert.deepEqual(
    files.map(({ path }) => path),
    ["all", "plain", "second", "set-group-id", "set-user-id", "sticky"],
  );
  // The control: an archiver keeps the bits, and one content under two names.
  archived(places);
  for (const [name, mode] of Object.entries(BITS))
    assert.equal(lstatSync(join(places.copied, name)).mode & 0o7777, mode, name);
  assert.equal(lstatSync(join(places.copied, "plain")).nlink, 2);
});

test("B3: a hub that gives a file more rights than files have is refused, and two names never share a file", async (t) => {
  const said = async (mode: number) => {
    const world = await makeWorld(t);
    world.hub.publish({ file: { content: "one", targets } });
    const directory = join(world.root, "a");
    await install(directory, world.installOptions(["A"]));
    world.hub.publish({
      file: { content: "two", targets, mode },
      other: { content: "two", targets, mode },
    });
    const outcome = await update(directory, world.options()).then(
      ({ kind }) => kind,
      (error: unknown) => {
        if (!isLockstepError(error)) throw error;
        return error.code;
      },
    );
    return { outcome, directory };
  };
  for (const mode of Object.values(BITS)) {
    const { outcome, directory } = await said(mode);
    assert.equal(outcome, "MANIFEST_INVALID", mode.toString(8));
    assert.equal(lstatSync(join(directory, "file")).mode & 0o7000, 0);
  }
  // The control: the same without these bits.
  const { outcome, directory } = await said(0o755);
  assert.equal(outcome, "updated");
  const [one, two] = ["file", "other"].map((path) => lstatSync(join(directory, path)));
  assert.ok(one !== undefined && two !== undefined);
  assert.deepEqual([one.mode & 0o7777, two.mode & 0o7777], [0o755, 0o755]);
  assert.notEqual(one.ino, two.ino);
});
