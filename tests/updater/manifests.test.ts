import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { install, update } from "@lockstep/updater";
import { makeWorld, revisionOf, type World } from "./world.ts";

/** Lists of files that are too long, and what is promised of their length. */
const targets = ["role:A"];

async function installed(world: World): Promise<string> {
  world.hub.publish({ file: { content: "one", targets } });
  const directory = join(world.root, "a");
  await install(directory, world.installOptions(["A"]));
  world.hub.publish({ file: { content: "two", targets } });
  return directory;
}

/** Changes what the newest software revision says of its only list. */
function say(world: World, changes: { files?: number; size?: number }): void {
  Object.assign(world.hub.document(2).manifests[0] ?? {}, changes);
}

test("a difference that is longer than any list is worth is not taken, but the whole list", async (t) => {
  const world = await makeWorld(t);
  const directory = await installed(world);
  world.hub.faults.refuse = { status: 200, body: "x".repeat(65 * 1024 * 1024), times: 1, match: /delta/ };
  await update(directory, world.options());
  assert.equal(revisionOf(directory), 2);
  assert.ok(world.hub.requests.some((request) => request.includes("/v1/manifests/sha256/")));
});

test("more files than an updater can hold in memory are refused before their list is fetched", async (t) => {
  for (const changes of [{ files: 600_001 }, { size: 256 * 1024 * 1024 + 1 }]) {
    const world = await makeWorld(t);
    const directory = await installed(world);
    world.hub.requests.length = 0;
    say(world, changes);
    await assert.rejects(update(directory, world.options()), { code: "MANIFEST_TOO_LARGE" });
    assert.equal(revisionOf(directory), 1);
    assert.deepEqual(
      world.hub.requests.filter((request) => request.includes("/v1/manifests/")),
      [],
    );
  }
});

test("a list with more files than the software revision says is not taken apart", async (t) => {
  const world = await makeWorld(t);
  const directory = await installed(world);
  say(world, { files: 0 });
  world.hub.faults.refuse = { status: 404, times: 1, match: /delta/ };
  await assert.rejects(update(directory, world.options()), {
    code: "MANIFEST_INVALID",
    message: /too many files/,
  });
  assert.equal(revisionOf(directory), 1);
});
