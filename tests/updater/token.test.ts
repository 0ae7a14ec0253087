import assert from "node:assert/strict";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { install, update } from "@lockstep/updater";
import { makeArchive } from "./archives.ts";
import { makeWorld } from "./world.ts";

// What these plug-ins do they write beside the installation, where walls would keep them from it
// (tests/hostile/plugin-confinement.test.ts has those).
process.env.LOCKSTEP_PLUGINS = "unconfined";

/** Writes down what a plug-in finds in the environments and arguments of the processes above it, up to the one of the test. */
const spy = (file: string) => `
import { appendFileSync, readFileSync } from "node:fs";
export function afterSwitch() {
  for (let pid = process.ppid; pid > 1; ) {
    const status = readFileSync("/proc/" + pid + "/status", "utf8");
    const read = (name) => readFileSync("/proc/" + pid + "/" + name, "latin1");
    appendFileSync(${JSON.stringify(file)}, "process " + pid + " " + read("environ") + " " + read("cmdline") + "\\n");
    if (pid === ${process.pid}) return;
    pid = Number(/PPid:\\s+(\\d+)/.exec(status)[1]);
  }
}`;

/** Files below a directory that hold a text. */
const filesWith = (directory: string, text: string) =>
  readdirSync(directory, { recursive: true, encoding: "utf8" }).filter((path) => {
    const place = join(directory, path);
    return statSync(place).isFile() && readFileSync(place, "latin1").includes(text);
  });

const onLinux = { skip: process.platform === "linux" ? false : "reads /proc" };

/** An update by the updater of the archive, with the token in the environment; what the spy found of each process. */
async function updateWithSpy(t: TestContext, environment: Readonly<Record<string, string>>) {
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
  Object.assign(process.env, environment);
  t.after(() => {
    for (const name of Object.keys(environment)) delete process.env[name];
  });
  const result = await update(directory, world.options({ selfUpdate: true, access }));
  assert.equal(result.kind, "updated");
  const processes = readFileSync(found, "utf8").trim().split("\n");
  assert.ok(processes.length >= 2, "the updater of the archive stands between");
  return { told: processes.filter((each) => each.includes("sesame")), directory };
}

test(
  "C8: no process that an update starts has the hub's token in its environment or arguments, nor has any file",
  onLinux,
  async (t) => {
    const { told, directory } = await updateWithSpy(t, { LOCKSTEP_TOKEN: "sesame" });
    assert.deepEqual(told, []);
    assert.deepEqual(filesWith(directory, "sesame"), []);
    // The same search finds what is there to be found.
    assert.ok(filesWith(directory, "127.0.0.1").includes("InstallState.config"));
  },
);

test(
  "C8: the control: under a name that nobody takes out, the same text is found in the environment",
  onLinux,
  async (t) => {
    const { told } = await updateWithSpy(t, { LOCKSTEP_TOKEN: "sesame", TOKEN_OF_SOMEBODY: "sesame" });
    assert.ok(told.length >= 1);
  },
);
