import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { chmodSync, existsSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { install, verify } from "@lockstep/updater";
import { makeWorld, revisionOf, type World } from "./world.ts";

/** Files that cannot be read: because the disk has lost them, or because somebody else owns them. */
const UPDATER = pathToFileURL(join(import.meta.dirname, "../../packages/updater/src/index.ts")).href;
const NOBODY = 65534;
const targets = ["role:A"];
const files = (suffix: string) =>
  Object.fromEntries(
    ["a", "b", "c/d", "c/e"].map((path) => [path, { content: `${path} ${suffix}`, targets }]),
  );
const digestOf = (text: string) => createHash("sha256").update(text).digest("hex");

async function installed(world: World): Promise<string> {
  const directory = join(world.root, "i");
  world.hub.publish(files("one"));
  await install(directory, world.installOptions(["A"]));
  return directory;
}

/** Runs a function of the updater in a process of its own, below `program`, and gives what it gave. */
async function inProcess(
  world: World,
  call: string,
  directory: string,
  { below = [], uid, quick = false }: { below?: readonly string[]; uid?: number; quick?: boolean },
) {
  const options = { access: world.options().access, selfUpdate: false, quick };
  const script = `
import * as updater from ${JSON.stringify(UPDATER)};
const result = await updater.${call}(${JSON.stringify(directory)}, ${JSON.stringify(options)});
console.log(JSON.stringify(result));`;
  const [program = process.execPath, ...args] = [
    ...below,
    process.execPath,
    ...["--input-type=module", "--eval", script],
  ];
  const identity = uid === undefined ? {} : { uid, gid: uid };
  const { stdout } = await promisify(execFile)(program, args, identity);
  return JSON.parse(stdout);
}

test("what the disk does not give any more is damage that a repair mends, and no update stops at it", {
  skip: !existsSync("/usr/bin/strace") && "there is no strace",
}, async (t) => {
  const world = await makeWorld(t);
  const directory = await installed(world);
  const lost = join(directory, "c/d");
  const trace = ["strace", "-f", "-qq", "-o", "/dev/null", "-P", lost];
  const below = [...trace, "-e", "inject=read,pread64,preadv:error=EIO"];

  const looked = await inProcess(world, "verify", directory, { below });
  const found = "what the disk does not give any more (EIO)";
  assert.deepEqual(looked.damages, [{ path: "c/d", problem: "lost", expected: digestOf("c/d one"), found }]);
  assert.deepEqual(looked.unreadable, []);

  const mended = await inProcess(world, "repair", directory, { below });
  assert.deepEqual([mended.sums.replace, mended.sums.fetchFiles], [1, 1]);
  assert.deepEqual((await verify(directory, world.options())).damages, []);

  // What was touched must be read to be compared, and cannot be.
  utimesSync(lost, 1, 1);
  world.hub.publish({ ...files("one"), a: { content: "a two", targets } });
  const updated = await inProcess(world, "update", directory, { below });
  assert.deepEqual([updated.kind, updated.sums.replace], ["updated", 2]);
  assert.equal(revisionOf(directory), 2);
  assert.deepEqual((await verify(directory, world.options())).damages, []);
});

test("what somebody else owns is named, and what can be read is looked at all the same", {
  skip: process.getuid?.() !== 0 && "only root can become somebody else",
}, async (t) => {
  const world = await makeWorld(t);
  const directory = await installed(world);
  for (const folder of [world.root, directory, join(directory, ".lockstep")]) chmodSync(folder, 0o755);
  chmodSync(join(directory, "a"), 0o600);
  chmodSync(join(directory, "c"), 0o700);
  writeFileSync(join(directory, "b"), "B one");
  const looked = await inProcess(world, "verify", directory, { uid: NOBODY });
  assert.deepEqual(looked.unreadable, [
    { path: "a", found: "EACCES" },
    { path: "c/d", found: "EACCES" },
    { path: "c/e", found: "EACCES" },
  ]);
  assert.deepEqual(
    looked.damages.map(({ path, problem }: { path: string; problem: string }) => `${path} ${problem}`),
    ["b hash"],
  );
});

test("what lies in folders of somebody else is named, each file of them, and is not taken for missing", {
  skip: process.getuid?.() !== 0 && "only root can become somebody else",
}, async (t) => {
  const world = await makeWorld(t);
  const directory = join(world.root, "i");
  const hidden = ["c/d/x", "c/d/y", "c/e"];
  world.hub.publish(Object.fromEntries(["b/x", ...hidden].map((path) => [path, { content: path, targets }])));
  await install(directory, world.installOptions(["A"]));
  for (const folder of [world.root, directory, join(directory, ".lockstep")]) chmodSync(folder, 0o755);
  rmSync(join(directory, "b"), { recursive: true });
  chmodSync(join(directory, "c"), 0o600);
  for (const quick of [false, true]) {
    const looked = await inProcess(world, "verify", directory, { uid: NOBODY, quick });
    assert.deepEqual(
      looked.unreadable.map(({ path }: { path: string }) => path).sort(),
      hidden,
      `quick: ${quick}`,
    );
    assert.deepEqual(
      looked.damages.map(({ path, problem }: { path: string; problem: string }) => `${path} ${problem}`),
      ["b/x missing"],
    );
  }
});
