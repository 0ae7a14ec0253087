import assert from "node:assert/strict";
import { chmodSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { install, launch } from "@lockstep/updater";
import type { LaunchOptions } from "../../packages/updater/src/launch.ts";
import { makeWorld, treeOf, type World } from "./world.ts";

const targets = ["role:A"];
/** Longer than this machine may stand still. */
const PATIENT_MS = 600_000;

/** A launch of a program that writes what it sees of the installation, its arguments and environment. */
function prepareLaunch(world: World, directory: string, more: Partial<LaunchOptions> = {}) {
  const out = join(world.root, "program-out");
  rmSync(out, { force: true });
  const code = `require("fs").writeFileSync(${JSON.stringify(out)}, JSON.stringify({
    file: require("fs").readFileSync(${JSON.stringify(join(directory, "file"))}, "utf8"),
    args: process.argv.slice(1), env: Object.keys(process.env) })); process.exit(7);`;
  const said: string[] = [];
  const options: LaunchOptions = {
    ...world.options({ access: { environment: {}, connectTimeoutMs: PATIENT_MS } }),
    checkTimeoutMs: PATIENT_MS,
    program: process.execPath,
    args: ["-e", code, "--", "one", "two words"],
    askPostpone: null,
    say: (message) => said.push(message),
    ...more,
  };
  const seen = () => JSON.parse(readFileSync(out, "utf8")) as { file: string; args: string[]; env: string[] };
  return { options, said, seen };
}

async function behind(world: World): Promise<string> {
  const directory = join(world.root, "a");
  world.hub.publish({ file: { content: "1", targets } });
  await install(directory, world.installOptions(["A"]));
  world.hub.publish({ file: { content: "2", targets } });
  return directory;
}

test("a program starts in step, with its arguments and status, and without our variables", async (t) => {
  const world = await makeWorld(t);
  const directory = await behind(world);
  process.env.LOCKSTEP_TOKEN = "secret";
  process.env.OF_THE_USER = "x";
  t.after(() => {
    delete process.env.LOCKSTEP_TOKEN;
    delete process.env.OF_THE_USER;
  });
  const { options, seen } = prepareLaunch(world, directory);
  assert.deepEqual(await launch(directory, options), { update: "updated", status: 7, signal: null });
  const { file, args, env } = seen();
  assert.deepEqual([file, args], ["2", ["one", "two words"]]);
  assert.ok(env.includes("OF_THE_USER") && env.includes("PATH") && !env.includes("LOCKSTEP_TOKEN"));
  assert.equal((await launch(directory, options)).update, "in-step");
});

test("a hub that is away, or an update that fails, does not keep a program from starting", async (t) => {
  const world = await makeWorld(t);
  const directory = await behind(world);
  world.hub.faults.corrupt = () => Buffer.from("x");
  const failing = prepareLaunch(world, directory);
  assert.deepEqual(await launch(directory, failing.options), { update: "failed", status: 7, signal: null });
  assert.equal(failing.seen().file, "1");
  assert.match(failing.said.join("\n"), /CONTENT_MISMATCH[\s\S]*starts as it is installed now/);
  await world.hub.vanish();
  const away = prepareLaunch(world, directory);
  assert.equal((await launch(directory, away.options)).update, "failed");
  assert.match(away.said.join("\n"), /HUB_UNREACHABLE/);
  assert.equal(away.seen().file, "1");
});

test("a hub that accepts and never answers does not keep a program from starting", async (t) => {
  const world = await makeWorld(t);
  const directory = await behind(world);
  let answer = () => {};
  world.hub.faults.hold = () =>
    new Promise<void>((resolve) => {
      answer = resolve;
    });
  const { options, said, seen } = prepareLaunch(world, directory, { checkTimeoutMs: 100 });
  assert.deepEqual(await launch(directory, options), { update: "failed", status: 7, signal: null });
  assert.match(said.join("\n"), /HUB_UNREACHABLE/);
  assert.equal(seen().file, "1");
  answer();
});

test("switched off means that the program starts as it is, and that is said", async (t) => {
  const world = await makeWorld(t);
  const directory = await behind(world);
  world.hub.autoUpdate = false;
  const { options, said, seen } = prepareLaunch(world, directory);
  assert.equal((await launch(directory, options)).update, "disabled");
  assert.equal(seen().file, "1");
  assert.match(said.join(), /revision 2 is there.*switched off at the hub/);
});

test("the user is asked only where postponing is allowed, and the answer counts", async (t) => {
  const world = await makeWorld(t);
  const directory = await behind(world);
  const asked: unknown[] = [];
  const askPostpone = async (question: unknown) => {
    asked.push(question);
    return true;
  };
  world.hub.settings = { "Common/AutoUpdate/AllowOutOfTimeApps": true };
  const postponed = prepareLaunch(world, directory, { askPostpone });
  assert.equal((await launch(directory, postponed.options)).update, "postponed");
  assert.deepEqual([asked, postponed.seen().file], [[{ from: 1, to: 2 }], "1"]);
  assert.equal([...world.hub.reports.values()].at(-1)?.outcome, "postponed");
  world.hub.settings = {};
  const forced = prepareLaunch(world, directory, { askPostpone });
  assert.equal((await launch(directory, forced.options)).update, "updated");
  assert.deepEqual([asked.length, forced.seen().file], [1, "2"]);
});

test("an installation between two revisions is finished first; one that cannot be is not started from", async (t) => {
  const world = await makeWorld(t);
  const directory = await behind(world);
  mkdirSync(join(directory, ".lockstep"), { recursive: true });
  writeFileSync(join(directory, ".lockstep/commit.json"), "torn");
  const { options, seen } = prepareLaunch(world, directory);
  await assert.rejects(launch(directory, options), { code: "INSTALLATION_DAMAGED" });
  assert.throws(seen, { code: "ENOENT" });
  assert.deepEqual(treeOf(directory), { file: "1" });
});

test("a program that is not there is an error by name", async (t) => {
  const world = await makeWorld(t);
  const directory = await behind(world);
  const { options } = prepareLaunch(world, directory, { program: join(directory, "nothing") });
  await assert.rejects(launch(directory, options), { code: "PROGRAM_NOT_STARTED", found: "ENOENT" });
});

test("without permission to write the program starts, and somebody else can update", async (t) => {
  if (process.getuid?.() !== 0) return t.skip("needs root to become somebody else");
  const world = await makeWorld(t);
  const directory = await behind(world);
  chmodSync(world.root, 0o755);
  const out = join(world.root, "out");
  mkdirSync(out, { mode: 0o777 });
  chmodSync(out, 0o777);
  const { spawn } = await import("node:child_process");
  const source = `
    const { launch } = await import(${JSON.stringify(join(import.meta.dirname, "../../packages/updater/src/index.ts"))});
    const result = await launch(${JSON.stringify(directory)}, { access: { environment: {}, connectTimeoutMs: ${PATIENT_MS} }, selfUpdate: false,
      checkTimeoutMs: ${PATIENT_MS}, program: process.execPath, args: ["-e", "require('fs').writeFileSync('${out}/started', 'yes')"],
      askPostpone: null, say: (message) => console.log(message) });
    console.log(JSON.stringify(result));`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", source], {
    cwd: import.meta.dirname,
    uid: 65534,
    gid: 65534,
    env: { PATH: process.env.PATH },
    stdio: ["ignore", "pipe", "inherit"],
  });
  let output = "";
  child.stdout.on("data", (chunk) => {
    output += String(chunk);
  });
  await new Promise((resolve) => child.once("close", resolve));
  assert.match(output, /INSTALLATION_NOT_WRITABLE.*lockstep update/);
  assert.match(output, /"update":"failed","status":0/);
  assert.ok(existsSync(join(out, "started")));
  assert.deepEqual(treeOf(directory), { file: "1" });
});
