import assert from "node:assert/strict";
import {
  appendFileSync,
  chmodSync,
  existsSync,
  mkdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { configure, install, repair, rollback, update, verify } from "@lockstep/updater";
import { makeWorld, put, revisionOf, stateOf, treeOf, type World } from "./world.ts";

const targets = ["role:A"];
const files = (suffix: string) =>
  Object.fromEntries(
    ["a", "b", "c/d", "c/e", "c/f"].map((path) => [path, { content: `${path} ${suffix}`, targets }]),
  );

async function installed(world: World, directory = join(world.root, "i")): Promise<string> {
  world.hub.publish(files("one"));
  await install(directory, world.installOptions(["A"]));
  return directory;
}

test("a whole installation is found whole, and what was not touched is not read a second time", async (t) => {
  const world = await makeWorld(t);
  const directory = await installed(world);
  const result = await verify(directory, world.options());
  assert.deepEqual([result.files, result.read, result.damages, result.revision], [5, 5, [], 1]);
  await new Promise((resolve) => setTimeout(resolve, 50));
  await verify(directory, world.options());
  assert.deepEqual((await verify(directory, { ...world.options(), quick: true })).read, 0);
});

test("every kind of damage is found and named", async (t) => {
  const world = await makeWorld(t);
  const directory = await installed(world);
  await new Promise((resolve) => setTimeout(resolve, 50));
  await verify(directory, world.options());
  const before = statSync(join(directory, "b"));
  rmSync(join(directory, "a"));
  writeFileSync(join(directory, "b"), "B one");
  // Whoever puts the time of modification back is found all the same: nobody can set the time of change.
  utimesSync(join(directory, "b"), before.atime, before.mtime);
  appendFileSync(join(directory, "c/d"), "!");
  chmodSync(join(directory, "c/e"), 0o600);
  rmSync(join(directory, "c/f"));
  symlinkSync("e", join(directory, "c/f"));
  for (const quick of [true, false]) {
    const { damages } = await verify(directory, { ...world.options(), quick });
    const found = damages.map(({ path, problem }) => `${path} ${problem}`);
    assert.deepEqual(found, ["a missing", "b hash", "c/d size", "c/e mode", "c/f link"]);
    const [missing, , size, mode] = damages;
    assert.deepEqual(
      [missing?.found, size?.expected, size?.found, mode?.expected, mode?.found],
      ["nothing", "7 bytes", "8 bytes", "mode 644", "mode 600"],
    );
  }
  world.hub.contentBytes = 0;
  const repaired = await repair(directory, world.options());
  assert.deepEqual([repaired.revision, repaired.sums.replace], [1, 5]);
  assert.deepEqual((await verify(directory, world.options())).damages, []);
  assert.deepEqual(Object.values(treeOf(directory)), ["a one", "b one", "c/d one", "c/e one", "c/f one"]);
  assert.ok(world.hub.contentBytes < 400, "more was fetched than was missing");
  assert.equal(revisionOf(directory), 1);
});

test("a rollback after a repair leads to the former revision, not to the damage", async (t) => {
  const world = await makeWorld(t);
  world.hub.publish({ a: { content: "a1", targets }, b: { content: "b1", targets } });
  const directory = join(world.root, "i");
  await install(directory, world.installOptions(["A"]));
  world.hub.publish({ a: { content: "a2", targets }, b: { content: "b1", targets } });
  await update(directory, world.options());
  put(directory, "a", "broken");
  put(directory, "b", "broken");
  await repair(directory, world.options());
  assert.deepEqual(treeOf(directory), { a: "a2", b: "b1" });
  await rollback(directory, world.options());
  assert.deepEqual(treeOf(directory), { a: "a1", b: "b1" });
  assert.deepEqual((await verify(directory, world.options())).damages, []);
});

test("a repair leaves edits alone where the policy keeps them, unless it is told otherwise", async (t) => {
  const world = await makeWorld(t);
  const directory = await installed(world);
  await configure(directory, { edits: "keep" }, world.options());
  put(directory, "a", "edited");
  rmSync(join(directory, "b"));
  await repair(directory, world.options());
  assert.deepEqual([treeOf(directory).a, treeOf(directory).b], ["edited", "b one"]);
  await repair(directory, { ...world.options(), edits: "replace" });
  assert.equal(treeOf(directory).a, "a one");
  assert.equal(readFileSync(join(directory, ".lockstep/backup/1/a"), "utf8"), "edited");
});

test("a repair works from the hub when the kept lists are damaged or gone", async (t) => {
  const world = await makeWorld(t);
  const directory = await installed(world);
  rmSync(join(directory, ".lockstep/manifests"), { recursive: true });
  rmSync(join(directory, "a"));
  await repair(directory, world.options());
  assert.equal(treeOf(directory).a, "a one");
  rmSync(join(directory, ".softwarerevision.viv"));
  await assert.rejects(repair(directory, world.options()), { code: "INSTALLATION_DAMAGED" });
});

test("a damaged InstallState.config is said with the way out, and the way works", async (t) => {
  const world = await makeWorld(t);
  const directory = await installed(world);
  const state = join(directory, "InstallState.config");
  writeFileSync(state, readFileSync(state, "utf8").slice(0, 300));
  for (const command of [() => update(directory, world.options()), () => verify(directory, world.options())])
    await assert.rejects(command(), (error: { code: string; hint: string }) => {
      assert.equal(error.code, "INSTALLATION_STATE_INVALID");
      assert.match(error.hint, /lockstep install/);
      return true;
    });
  rmSync(state);
  await assert.rejects(update(directory, world.options()), { code: "INSTALLATION_NOT_FOUND" });
  world.hub.contentBytes = 0;
  const result = await install(directory, world.installOptions(["A"]));
  assert.ok(result.kind === "updated" || result.kind === "in-step");
  assert.equal(world.hub.contentBytes, 0);
  assert.equal(stateOf(directory).files.length, 5);
});

test("a lost or foreign stat cache costs a look at the files and nothing else", async (t) => {
  const world = await makeWorld(t);
  const directory = await installed(world);
  const index = join(directory, ".lockstep/index");
  put(directory, "a", "A one");
  for (const damage of [
    () => rmSync(index, { force: true }),
    () => writeFileSync(index, "rubbish"),
    () => mkdirSync(`${index}.new`),
  ]) {
    damage();
    const { damages, read } = await verify(directory, { ...world.options(), quick: true });
    assert.deepEqual(
      damages.map(({ path }) => path),
      ["a"],
    );
    assert.ok(read >= 1);
  }
});

test("a rollback restores files, state and revision, needs no hub, and holds the installation there", async (t) => {
  const world = await makeWorld(t);
  const directory = await installed(world);
  const before = { tree: treeOf(directory), state: stateOf(directory).files };
  world.hub.publish({ ...files("two"), new: { content: "new", targets } });
  await update(directory, world.options());
  assert.notDeepEqual(treeOf(directory), before.tree);
  await world.hub.vanish();
  const result = await rollback(directory, world.options());
  assert.deepEqual([result.from, result.to], [2, 1]);
  assert.deepEqual(treeOf(directory), before.tree);
  assert.deepEqual(stateOf(directory).files, before.state);
  assert.equal(revisionOf(directory), 1);
  assert.equal(stateOf(directory).settings.autoUpdate, false);
  assert.deepEqual((await verify(directory, world.options())).damages, []);
  const again = await rollback(directory, world.options());
  assert.deepEqual([again.from, again.to], [1, 2]);
  assert.equal(treeOf(directory).new, "new");
});

test("without something to go back to a rollback says so", async (t) => {
  const world = await makeWorld(t);
  const directory = await installed(world);
  await assert.rejects(rollback(directory, world.options()), { code: "ROLLBACK_UNAVAILABLE" });
  assert.equal(existsSync(join(directory, "update.lock")), false);
});
