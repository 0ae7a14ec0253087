import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { install, readLog, update } from "@lockstep/updater";
import { makeArchive } from "./archives.ts";
import { makeWorld, revisionOf, stateOf, treeOf, type World } from "./world.ts";

// What these plug-ins do they write beside the installation, where walls would keep them from it
// (tests/hostile/plugin-confinement.test.ts has those).
process.env.LOCKSTEP_PLUGINS = "unconfined";

const targets = ["role:A"];

/** A plug-in that writes each call into a file beside the installation; `body` runs after that. */
function recorder(file: string, bodies: Readonly<Record<string, string>> = {}): string {
  const step = (name: string) => `
export async function ${name}(context) {
  appendFileSync(${JSON.stringify(file)}, context.step + (context.outcome ? " " + context.outcome : "") + "\\n");
  ${bodies[name] ?? ""}
}`;
  return `import { appendFileSync, readFileSync, writeFileSync } from "node:fs";
${["prepare", "beforeSwitch", "afterSwitch", "probe"].map(step).join("\n")}`;
}

const callsIn = (file: string) => (existsSync(file) ? readFileSync(file, "utf8").trim().split("\n") : []);

async function installFirst(world: World): Promise<string> {
  world.hub.publish({ file: { content: "one", targets } });
  const directory = join(world.root, "a");
  await install(directory, world.installOptions(["A"]));
  return directory;
}

async function publishWith(world: World, plugins: Record<string, string>): Promise<void> {
  world.hub.publish({ file: { content: "two", targets } }, { archive: await makeArchive({ plugins }) });
}

for (const selfUpdate of [false, true]) {
  const who = selfUpdate ? "the updater of the archive" : "the running updater";

  test(`${who} runs all steps of all plug-ins in order`, async (t) => {
    const world = await makeWorld(t);
    const directory = await installFirst(world);
    const calls = join(world.root, "calls");
    await publishWith(world, { "a/one.update.mjs": recorder(calls), "b/two.update.mjs": recorder(calls) });
    await update(directory, world.options({ selfUpdate }));
    const each = ["prepare", "beforeSwitch", "afterSwitch switched", "probe"].flatMap((step) => [step, step]);
    assert.deepEqual(callsIn(calls), each);
    assert.deepEqual(treeOf(directory), { file: "two" });
    const steps = (await readLog(directory)).filter((record) => record.action === "plugin");
    assert.equal(steps.length, 8);
    assert.ok(steps.every((record) => record.result === "ok"));
  });

  test(`${who}: a step that fails before the switch stops the update with nothing changed`, async (t) => {
    for (const step of ["prepare", "beforeSwitch"]) {
      const world = await makeWorld(t);
      const directory = await installFirst(world);
      const calls = join(world.root, "calls");
      await publishWith(world, {
        "x.update.mjs": recorder(calls, { [step]: `throw new Error("no ${step} today");` }),
      });
      await assert.rejects(
        update(directory, world.options({ selfUpdate })),
        (error: { code: string; message: string }) => {
          assert.equal(error.code, "PLUGIN_FAILED");
          assert.match(error.message, new RegExp(`x\\.update\\.mjs failed in ${step}: no ${step} today`));
          return true;
        },
      );
      assert.deepEqual(treeOf(directory), { file: "one" });
      assert.equal(revisionOf(directory), 1);
      // Whoever stopped something in beforeSwitch is told to start it again.
      const expected =
        step === "prepare" ? ["prepare"] : ["prepare", "beforeSwitch", "afterSwitch not-switched"];
      assert.deepEqual([...new Set(callsIn(calls))], expected);
    }
  });

  test(`${who}: a step that fails after the switch takes the update back`, async (t) => {
    for (const [step, body, code] of [
      ["afterSwitch", `if (context.outcome === "switched") throw new Error("bad");`, "PLUGIN_FAILED"],
      ["probe", "return false;", "PROBE_FAILED"],
    ] as const) {
      const world = await makeWorld(t);
      const directory = await installFirst(world);
      const calls = join(world.root, "calls");
      const seen = `appendFileSync(${JSON.stringify(calls)}, "file is " + readFileSync(context.installation + "/file", "utf8") + "\\n");`;
      await publishWith(world, { "x.update.mjs": recorder(calls, { [step]: seen + body }) });
      await assert.rejects(update(directory, world.options({ selfUpdate })), { code });
      assert.deepEqual(treeOf(directory), { file: "one" });
      assert.equal(revisionOf(directory), 1);
      assert.equal(stateOf(directory).files[0]?.[1], 3);
      assert.ok(callsIn(calls).includes("file is two"), "the step did not see the new files");
      assert.equal(
        callsIn(calls).findLast((call) => call.startsWith("afterSwitch")),
        "afterSwitch rolled-back",
      );
      const report = [...world.hub.reports.values()][0];
      assert.deepEqual([report?.outcome, report?.revision], ["rolled-back", 1]);
      assert.match(report?.problem ?? "", new RegExp(code));
    }
  });
}

test("preparation may rename a machine role in the installation's state", async (t) => {
  const world = await makeWorld(t);
  world.hub.publish({ file: { content: "one", targets: ["role:Old"] } });
  const directory = join(world.root, "a");
  await install(directory, world.installOptions(["Old"]));
  const plugin = `export function prepare({ roles }) { return { roles: roles.map((role) => role === "Old" ? "New" : role) }; }`;
  const archive = await makeArchive({ plugins: { "rename.update.mjs": plugin } });
  world.hub.publish({ file: { content: "two", targets: ["role:New"] } }, { archive });
  await update(directory, world.options());
  assert.deepEqual(treeOf(directory), { file: "two" });
  assert.deepEqual(stateOf(directory).rolesChosen, ["New"]);
});

test("a plug-in sees neither our credentials nor our environment, and its output goes to the log", async (t) => {
  const world = await makeWorld(t);
  const directory = await installFirst(world);
  const seen = join(world.root, "seen");
  const plugin = `import { writeFileSync } from "node:fs";
export function beforeSwitch(context) {
  writeFileSync(${JSON.stringify(seen)}, JSON.stringify({ env: Object.keys(process.env), cwd: process.cwd(), context, args: process.argv }));
  console.log("stopping the service");
}`;
  await publishWith(world, { "x.update.mjs": plugin });
  process.env.LOCKSTEP_TOKEN = "secret";
  process.env.SOMETHING_OF_THE_USER = "x";
  t.after(() => {
    delete process.env.LOCKSTEP_TOKEN;
    delete process.env.SOMETHING_OF_THE_USER;
  });
  await update(directory, world.options());
  const { env, cwd, context } = JSON.parse(readFileSync(seen, "utf8"));
  assert.ok(env.includes("PATH"));
  assert.deepEqual(
    env.filter((name: string) => /LOCKSTEP|SOMETHING/.test(name)),
    [],
  );
  assert.equal(cwd, directory);
  assert.deepEqual(
    { from: context.from, to: context.to, roles: context.roles, installation: context.installation },
    { from: 1, to: 2, roles: ["A"], installation: directory },
  );
  assert.equal(JSON.stringify(context).includes("secret"), false);
  const record = (await readLog(directory)).find(({ action }) => action === "plugin");
  assert.equal(record?.output, "stopping the service");
});

test("a plug-in that takes too long, dies, or cannot be loaded is a failed step", async (t) => {
  const { PluginHost } = await import("../../packages/updater/src/plugin-host.ts");
  const { installationPaths } = await import("../../packages/updater/src/layout.ts");
  const { UpdateLog } = await import("../../packages/updater/src/update-log.ts");
  const { mkdirSync, writeFileSync } = await import("node:fs");
  const world = await makeWorld(t);
  const paths = installationPaths(world.root);
  const pidFile = join(world.root, "pid");
  const bodies = {
    slow: `import { spawn } from "node:child_process"; import { writeFileSync } from "node:fs";
export async function probe() {
  const child = spawn(process.execPath, ["-e", "setTimeout(() => {}, 60000)"]);
  writeFileSync(${JSON.stringify(pidFile)}, String(child.pid));
  await new Promise(() => setInterval(() => {}, 1000));
}`,
    dead: `export function probe() { process.kill(process.pid, "SIGKILL"); }`,
    broken: `export function probe( {`,
    strange: `export function prepare() { return { roles: "A" }; }`,
  };
  const context = { from: 1, to: 2, roles: ["A"], packages: [] };
  const startedBySlow = () => (existsSync(pidFile) ? Number(readFileSync(pidFile, "utf8")) : 0);
  for (const [name, body] of Object.entries(bodies)) {
    const directory = join(world.root, name);
    mkdirSync(directory);
    writeFileSync(join(directory, `${name}.update.mjs`), body);
    const part = (path: string) => ({ path, size: 1, sha256: "0".repeat(64) });
    const description = {
      format: "lockstep-update-archive/1",
      version: "1",
      parts: [part("updater.mjs"), part(`${name}.update.mjs`)],
    };
    writeFileSync(join(directory, "update.json"), JSON.stringify(description));
    const log = new UpdateLog(paths, { now: () => Date.now() });
    const run = async (timeoutMs: number) => {
      const host = PluginHost.open(paths, directory, log, timeoutMs);
      assert.ok(host !== null);
      const code = name === "slow" || name === "dead" ? "PROBE_FAILED" : "PLUGIN_FAILED";
      const step = name === "strange" ? host.prepare(context) : host.afterSwitch(context, "switched");
      await assert.rejects(step, { code }, name);
    };
    // The time has to be long enough for it to get as far as having a child.
    if (name === "slow") for (let ms = 1500; startedBySlow() === 0; ms *= 2) await run(ms);
    else await run(120_000);
  }
  const pid = startedBySlow();
  const isGone = () => {
    try {
      process.kill(pid, 0);
      return /^\d+ \(.*\) Z/.test(readFileSync(`/proc/${pid}/stat`, "utf8"));
    } catch {
      return true;
    }
  };
  while (!isGone()) await new Promise((resolve) => setTimeout(resolve, 20));
});

test("a crash after the switch asks the plug-ins again when the update is recovered", async (t) => {
  const world = await makeWorld(t);
  const directory = await installFirst(world);
  const calls = join(world.root, "calls");
  // The first afterSwitch kills the updater itself: its parent is the process that carries the update out.
  const marker = join(world.root, "killed");
  const kill = `try { writeFileSync(${JSON.stringify(marker)}, "", { flag: "wx" }); } catch { return; }
  process.kill(process.ppid, "SIGKILL"); await new Promise((resolve) => setTimeout(resolve, 200));`;
  await publishWith(world, { "x.update.mjs": recorder(calls, { afterSwitch: kill }) });
  await assert.rejects(update(directory, world.options({ selfUpdate: true })), { code: "INTERRUPTED" });
  assert.ok(existsSync(join(directory, ".lockstep/commit.json")));
  const result = await update(directory, world.options());
  assert.deepEqual(result, { kind: "already-in-step", revision: 2 });
  assert.deepEqual(treeOf(directory), { file: "two" });
  assert.deepEqual(callsIn(calls), [
    "prepare",
    "beforeSwitch",
    "afterSwitch switched",
    "afterSwitch switched",
    "probe",
  ]);
});

test("a service that a step starts neither holds the update up nor is ended with the step", async (t) => {
  const world = await makeWorld(t);
  const directory = await installFirst(world);
  const pidFile = join(world.root, "service");
  const plugin = `import { spawn } from "node:child_process"; import { writeFileSync } from "node:fs";
export function afterSwitch() {
  const service = spawn(process.execPath, ["-e", "setTimeout(() => {}, 600000)"], { stdio: "inherit", detached: true });
  service.unref();
  writeFileSync(${JSON.stringify(pidFile)}, String(service.pid));
}`;
  await publishWith(world, { "x.update.mjs": plugin });
  await update(directory, world.options());
  const pid = Number(readFileSync(pidFile, "utf8"));
  assert.equal(process.kill(pid, 0), true, "the service is gone");
  process.kill(pid, "SIGKILL");
});
