import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { install, update } from "@lockstep/updater";
import { makeArchive } from "./archives.ts";
import { makeWorld } from "./world.ts";

/** Writes down what a plug-in finds in the environments of the processes above it, up to the one that runs the test. */
const spy = (file: string) => `
import { appendFileSync, readFileSync } from "node:fs";
export function afterSwitch() {
  for (let pid = process.ppid; pid > 1; ) {
    const status = readFileSync("/proc/" + pid + "/status", "utf8");
    appendFileSync(${JSON.stringify(file)}, "process " + pid + " " + readFileSync("/proc/" + pid + "/environ", "latin1") + "\\n");
    if (pid === ${process.pid}) return;
    pid = Number(/PPid:\\s+(\\d+)/.exec(status)[1]);
  }
}`;

test("no process that an update starts has the hub's token in its environment, and it gets there all the same", {
  skip: process.platform === "linux" ? false : "reads /proc",
}, async (t) => {
  const world = await makeWorld(t);
  world.hub.token = "sesame";
  const targets = ["role:A"];
  world.hub.publish({ file: { content: "one", targets } });
  const directory = join(world.root, "a");
  const access = { environment: { LOCKSTEP_TOKEN: "sesame" }, url: world.hub.url };
  await install(directory, { ...world.installOptions(["A"]), access });
  const found = join(world.root, "found");
  world.hub.publish(
    { file: { content: "two", targets } },
    { archive: await makeArchive({ plugins: { "x.update.mjs": spy(found) } }) },
  );
  // As in a shell whose user has exported it: children inherit what stands here.
  process.env.LOCKSTEP_TOKEN = "sesame";
  t.after(() => delete process.env.LOCKSTEP_TOKEN);
  const result = await update(directory, world.options({ selfUpdate: true, access }));
  assert.equal(result.kind, "updated");
  const environments = readFileSync(found, "utf8").trim().split("\n");
  assert.ok(environments.length >= 2, "the updater of the archive stands between");
  assert.deepEqual(
    environments.filter((each) => each.includes("sesame")),
    [],
  );
});
