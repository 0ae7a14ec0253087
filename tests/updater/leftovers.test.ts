import assert from "node:assert/strict";
import { existsSync, mkdirSync, readdirSync, readFileSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { configure, install, update } from "@lockstep/updater";
import { makeArchive, ownUpdater } from "./archives.ts";
import { makeWorld, revisionOf, treeOf, type World } from "./world.ts";

/** What killed processes leave behind, and who clears it. */
const targets = ["role:A"];

// What these plug-ins do they write beside the installation, where walls would keep them from it
// (tests/hostile/plugin-confinement.test.ts has those).
process.env.LOCKSTEP_PLUGINS = "unconfined";

async function installed(world: World): Promise<string> {
  world.hub.publish({ file: { content: "one", targets } });
  const directory = join(world.root, "a");
  await install(directory, world.installOptions(["A"]));
  return directory;
}

test("a new updater shows that it works inside the installation, and leaves nothing there or elsewhere", async (t) => {
  const world = await makeWorld(t);
  const directory = await installed(world);
  const seen = join(world.root, "seen");
  const updater = `import { writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
writeFileSync(join(tmpdir(), "left"), "by a test that was killed");
writeFileSync(${JSON.stringify(seen)}, tmpdir());
console.log("self-test failed");`;
  world.hub.publish({ file: { content: "two", targets } }, { archive: await makeArchive({ updater }) });
  const outside = readdirSync(tmpdir()).filter((name) => name === "left");
  await update(directory, world.options({ selfUpdate: true }));
  assert.equal(revisionOf(directory), 2);
  assert.equal(readFileSync(seen, "utf8"), join(directory, ".lockstep/self-test"));
  assert.ok(!existsSync(join(directory, ".lockstep/self-test")));
  assert.deepEqual(
    readdirSync(tmpdir()).filter((name) => name === "left"),
    outside,
  );
});

test("whoever has the lock next clears what was left, and nothing that may be in use", async (t) => {
  const world = await makeWorld(t);
  const directory = await installed(world);
  const own = join(directory, ".lockstep");
  const uuid = "01234567-89ab-cdef-0123-456789abcdef";
  mkdirSync(join(own, "self-test/lockstep-self-test-x"), { recursive: true });
  for (const name of ["state.new", "run.json.new", `lock-${uuid}`, `lock-${uuid}-12`, "mine", "partial.new"])
    writeFileSync(join(own, name), "left");
  const longAgo = new Date(Date.now() - 3_600_000);
  utimesSync(join(own, `lock-${uuid}`), longAgo, longAgo);
  await configure(directory, { autoUpdate: false }, world.options());
  const left = readdirSync(own).filter((name) => /self-test|new$|lock-|mine/.test(name));
  // A young one may be somebody's who is just taking the lock.
  assert.deepEqual(left.sort(), [`lock-${uuid}-12`, "mine", "partial.new"]);
});

test("what had arrived for an update goes when a recovery has finished it", async (t) => {
  const world = await makeWorld(t);
  const directory = await installed(world);
  const once = join(world.root, "once");
  const plugin = `import { existsSync, writeFileSync } from "node:fs";
export function afterSwitch() {
  if (existsSync(${JSON.stringify(once)})) return;
  writeFileSync(${JSON.stringify(once)}, "");
  process.kill(process.ppid, "SIGKILL");
}`;
  const archive = await makeArchive({ updater: await ownUpdater(), plugins: { "x.update.mjs": plugin } });
  world.hub.publish({ file: { content: "two", targets } }, { archive });
  await assert.rejects(update(directory, world.options({ selfUpdate: true })), { code: "INTERRUPTED" });
  assert.ok(existsSync(join(directory, ".lockstep/commit.json")), "it was killed too early or too late");
  assert.ok(existsSync(join(directory, ".lockstep/partial")));
  await update(directory, world.options());
  assert.deepEqual(treeOf(directory), { file: "two" });
  assert.ok(!existsSync(join(directory, ".lockstep/partial")));
});

test("a lock that a killed process left goes also when there is nothing to update", async (t) => {
  const world = await makeWorld(t);
  const directory = await installed(world);
  const lock = join(directory, "update.lock");
  writeFileSync(lock, "of somebody who is gone");
  const longAgo = new Date(Date.now() - 3 * 3_600_000);
  utimesSync(lock, longAgo, longAgo);
  assert.equal((await update(directory, world.options())).kind, "already-in-step");
  assert.ok(!existsSync(lock));
});

test("an Update.zip that holds more than any needs is not unpacked", async (t) => {
  const world = await makeWorld(t);
  const directory = await installed(world);
  const much = "\0".repeat(60 * 1024 * 1024);
  const plugins = Object.fromEntries(
    Array.from({ length: 5 }, (_, at) => [`${at}.update.mjs`, much] as const),
  );
  const archive = await makeArchive({ plugins, deflated: true });
  assert.ok(archive.length < 8 * 1024 * 1024);
  world.hub.publish({ file: { content: "two", targets } }, { archive });
  const result = await update(directory, world.options({ selfUpdate: true }));
  assert.equal(result.kind, "updated");
  const notices = world.events.flatMap((event) => (event.kind === "notice" ? [event.message] : []));
  assert.match(notices.join("\n"), /Update\.zip .*cannot be used.*more than \d+ bytes/);
});
