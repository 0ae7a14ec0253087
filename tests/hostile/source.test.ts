import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { chmodSync, existsSync, linkSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import { documentOf, type ErrorDocument, lockstep, temporaryDirectory } from "../cli/lockstep.ts";
import { HOSTILE_NAMES, TWINS } from "./known-names.ts";

const root = process.getuid?.() === 0;

/** No hub is named on purpose: a source that is refused must be refused before anybody is asked. */
async function loadRefused(directory: string, ...more: string[]): Promise<ErrorDocument["error"]> {
  const run = await lockstep([
    "load",
    directory,
    "--module",
    "M",
    "--version",
    "1",
    "--yes",
    "--json",
    ...more,
  ]);
  const { error } = documentOf<ErrorDocument>(run);
  assert.equal(run.status, error.code === "PATH_REFUSED" ? 3 : error.code === "USAGE" ? 2 : 1);
  assert.match(run.stderr, new RegExp(`^error ${error.code}: `, "m"));
  assert.match(run.stderr, new RegExp(`see docs/reference/errors\\.md#${error.code}$`, "m"));
  return error;
}

test("every hostile name that this system can hold is refused, all in one run", async (context) => {
  const base = temporaryDirectory(context);
  const made: string[] = [];
  for (const name of HOSTILE_NAMES) {
    // What a Linux directory cannot hold as a name; it reaches the hub in another way (hub.test.ts).
    if (name.includes("/") || name.includes("\0") || name === "" || name === "." || name === "..") continue;
    if (Buffer.byteLength(name) > 255 || !name.isWellFormed()) continue;
    if (existsSync(join(base, name))) continue;
    writeFileSync(join(base, name), "x");
    made.push(name);
  }
  writeFileSync(join(base, "harmless.txt"), "x");
  const error = await loadRefused(base);
  assert.equal(error.code, "PATH_REFUSED");
  const refused = new Set(error.faults?.map((fault) => fault.where));
  assert.deepEqual(
    made.filter((name) => !refused.has(name)),
    [],
  );
  assert.ok(made.length > 250, `${made.length} names`);
  assert.equal(refused.has("harmless.txt"), false);
});

test("links, FIFOs, sockets and devices are refused, wherever they lead", async (context) => {
  const base = temporaryDirectory(context);
  mkdirSync(join(base, "in/side"), { recursive: true });
  writeFileSync(join(base, "in/file"), "x");
  symlinkSync("/etc/passwd", join(base, "link-out"));
  symlinkSync("in/file", join(base, "link-in"));
  symlinkSync("..", join(base, "in/link-up"));
  symlinkSync("nowhere", join(base, "in/side/dangling"));
  symlinkSync("loop", join(base, "loop"));
  execFileSync("mkfifo", [join(base, "in/fifo")]);
  const server = createServer().listen(join(base, "socket"));
  context.after(() => new Promise((done) => server.close(done)));
  await new Promise((listening) => server.once("listening", listening));
  const expected = ["in/fifo", "in/link-up", "in/side/dangling", "link-in", "link-out", "loop", "socket"];
  if (root) {
    execFileSync("mknod", [join(base, "device"), "c", "1", "3"]);
    execFileSync("mknod", [join(base, "in/block"), "b", "7", "200"]);
    expected.push("device", "in/block");
  }
  const error = await loadRefused(base);
  assert.equal(error.code, "PATH_REFUSED");
  assert.deepEqual(error.faults?.map((fault) => fault.where).sort(), expected.sort());
});

test("twins in one directory are refused, and a file beside a folder of the same key", async (context) => {
  const base = temporaryDirectory(context);
  let pairs = 0;
  for (const [index, [a, b]] of TWINS.entries()) {
    const folder = `pair-${index}`;
    // A file and a folder of the very same name cannot both be made here.
    if (b.startsWith(`${a}/`)) continue;
    for (const name of [a, b]) {
      mkdirSync(join(base, folder, name, ".."), { recursive: true });
      writeFileSync(join(base, folder, name), "x");
    }
    pairs++;
  }
  const error = await loadRefused(base);
  const folders = new Set(error.faults?.map((fault) => fault.where.split("/")[0]));
  assert.equal(folders.size, pairs);
});

test("names that are not UTF-8 are refused by their bytes", async (context) => {
  const base = temporaryDirectory(context);
  writeFileSync(Buffer.concat([Buffer.from(`${base}/a`), Buffer.from([0xff, 0xfe]), Buffer.from("b")]), "x");
  writeFileSync(Buffer.concat([Buffer.from(`${base}/`), Buffer.from([0xc0, 0xae, 0xc0, 0xae])]), "x");
  const error = await loadRefused(base);
  assert.equal(error.faults?.length, 2);
  for (const fault of error.faults ?? []) assert.match(fault.problem, /not UTF-8/);
});

test("the folders of version control systems are refused by name, with the way to leave them out", async (context) => {
  const base = temporaryDirectory(context);
  mkdirSync(join(base, "sub/.git"), { recursive: true });
  writeFileSync(join(base, "sub/.git/config"), "x");
  writeFileSync(join(base, "sub/file"), "x");
  const error = await loadRefused(base);
  assert.match(error.faults?.[0]?.problem ?? "", /--exclude '\*\*\/\.git'/);
  // With it the source is accepted; what is missing then is the hub.
  assert.equal((await loadRefused(base, "--exclude", "**/.git")).code, "USAGE");
});

test("paths of 4,096 characters and folders deeper than allowed are refused without being walked", async (context) => {
  const base = temporaryDirectory(context);
  // Longer than PATH_MAX, so it can only be made step by step from inside.
  const script = `cd "$0" && for i in $(seq 1 20); do n=$(printf 'y%.0s' $(seq 1 200)); mkdir "$n" && cd "$n"; done && echo x > end
    cd "$0" && for i in $(seq 1 80); do mkdir d && cd d; done && echo x > end`;
  execFileSync("bash", ["-c", script, base]);
  const error = await loadRefused(base);
  assert.equal(error.code, "PATH_REFUSED");
  assert.equal(error.faults?.length, 2);
  assert.deepEqual(
    error.faults?.map((fault) => /longer than 1024 bytes|more than 64 names/.test(fault.problem)),
    [true, true],
  );
});

test("limits of names hold at -1, 0 and +1 in a real directory", async (context) => {
  const base = temporaryDirectory(context);
  const folders = `${"f".repeat(250)}/${"g".repeat(250)}/${"h".repeat(250)}/${"i".repeat(250)}`;
  mkdirSync(join(base, folders), { recursive: true });
  for (const length of [1023, 1024, 1025]) writeFileSync(join(base, folders, "n".repeat(length - 1004)), "x");
  for (const length of [254, 255]) writeFileSync(join(base, "s".repeat(length)), "x");
  const error = await loadRefused(base);
  assert.deepEqual(
    error.faults?.map((fault) => fault.where.length),
    [1025],
  );
});

test("a source that cannot be read completely is an error with every place, not a smaller release", {
  skip: root ? "root can read everything" : false,
}, async (context) => {
  const base = temporaryDirectory(context);
  mkdirSync(join(base, "closed"));
  writeFileSync(join(base, "closed/file"), "x");
  writeFileSync(join(base, "file"), "x");
  chmodSync(join(base, "closed"), 0o000);
  context.after(() => chmodSync(join(base, "closed"), 0o700));
  const error = await loadRefused(base);
  assert.equal(error.code, "LOAD_SOURCE_UNREADABLE");
  assert.deepEqual(
    error.faults?.map((fault) => fault.where),
    ["closed/"],
  );
});

test("a base directory that is missing, or a file, is an error", async (context) => {
  const base = temporaryDirectory(context);
  writeFileSync(join(base, "file"), "x");
  assert.equal((await loadRefused(join(base, "missing"))).code, "LOAD_SOURCE_UNREADABLE");
  assert.equal((await loadRefused(join(base, "file"))).code, "LOAD_SOURCE_UNREADABLE");
});

test("hard links are plain files, and a base directory that is itself a link is followed", async (context) => {
  const base = temporaryDirectory(context);
  mkdirSync(join(base, "real"));
  writeFileSync(join(base, "real/file"), "x");
  linkSync(join(base, "real/file"), join(base, "real/other"));
  symlinkSync("real", join(base, "link"));
  assert.equal((await loadRefused(join(base, "link"))).code, "USAGE");
});
