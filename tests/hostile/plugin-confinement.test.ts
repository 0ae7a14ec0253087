import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer as createHttpServer } from "node:http";
import { type AddressInfo, createServer, type Server } from "node:net";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { install, readLog, update } from "@lockstep/updater";
import { installationPaths } from "../../packages/updater/src/layout.ts";
import { findConfinement } from "../../packages/updater/src/plugin-confinement.ts";
import { setEnvironment } from "../support/environment.ts";
import { makeArchive } from "../updater/archives.ts";
import { makeWorld, treeOf, type World } from "../updater/world.ts";

/** C6: plug-ins that try to get out of where they are confined. The control is the same plug-in without walls. */
const targets = ["role:A"];
const SECRET = "planted-token-of-the-hub";
const isRoot = process.getuid?.() === 0;

/** Each returns what it got hold of; anything thrown means that it was held. */
const ESCAPES: Readonly<Record<string, string>> = {
  "the token in the environment of the updater": `
    for (let pid = process.ppid; pid > 1; pid = parentOf(pid))
      if (fs.readFileSync("/proc/" + pid + "/environ", "utf8").includes("${SECRET}")) return "read";`,
  "the memory of the updater": `fs.closeSync(fs.openSync("/proc/" + process.ppid + "/mem", "r+")); return "opened";`,
  "a file beside the installation": `return fs.readFileSync(OUTSIDE + "/token", "utf8");`,
  "writing beside the installation": `fs.writeFileSync(OUTSIDE + "/written", ""); return "written";`,
  "writing through the root of the updater": `
    fs.writeFileSync("/proc/" + process.ppid + "/root" + OUTSIDE + "/through", ""); return "written";`,
  "writing through a link that it made": `
    fs.symlinkSync(OUTSIDE, "link"); try { fs.writeFileSync("link/linked", ""); } finally { fs.unlinkSync("link"); }
    return "written";`,
  "planting a redo log": `fs.writeFileSync(".lockstep/planted.json", "{}"); return "written";`,
  "changing the updater that runs next": `
    const program = new URL("updater.mjs", import.meta.url);
    fs.closeSync(fs.openSync(program, "r+")); return "opened";`,
  "the roots that the installation trusts": `return fs.readdirSync(".lockstep/trust").join() || "seen";`,
  "the state of the installation": `fs.closeSync(fs.openSync("InstallState.config", "r+")); return "opened";`,
  "moving the private directory away": `
    fs.renameSync(".lockstep", "elsewhere"); fs.renameSync("elsewhere", ".lockstep"); return "moved";`,
  "a socket of the system": `return await new Promise((resolve, reject) => {
    const socket = net.connect(OUTSIDE + "/socket", () => { socket.destroy(); resolve("connected"); });
    socket.on("error", reject); });`,
  "a namespace of its own, to mount in": `
    execFileSync("unshare", ["--user", "--map-root-user", "--mount", "true"]); return "made";`,
};
const AS_ROOT: Readonly<Record<string, string>> = {
  "the passwords of the machine": `return fs.readFileSync("/etc/shadow", "utf8").slice(0, 1) && "read";`,
  "a setting of the kernel": `fs.closeSync(fs.openSync("/proc/sys/kernel/core_pattern", "r+")); return "opened";`,
  "a device": `execFileSync("mknod", ["device", "b", "7", "250"]); fs.unlinkSync("device"); return "made";`,
  "a file of another user": `
    fs.writeFileSync("given", ""); try { fs.chownSync("given", 65534, 65534); } finally { fs.unlinkSync("given"); }
    return "given";`,
};
/** What these write; a directory of the same name inside the walls is nobody's loss. */
const WRITTEN: Readonly<Record<string, string>> = {
  "writing beside the installation": "written",
  "writing through the root of the updater": "through",
  "writing through a link that it made": "linked",
};
const TRIED = { ...ESCAPES, ...(isRoot ? AS_ROOT : {}) };

function escaper(outside: string): string {
  const tries = Object.entries(TRIED).map(
    ([name, body]) => `${JSON.stringify(name)}: async () => {${body}\n}`,
  );
  return `import fs from "node:fs"; import net from "node:net"; import { execFileSync } from "node:child_process";
const OUTSIDE = ${JSON.stringify(outside)};
const parentOf = (pid) => Number(/^PPid:\\s*(\\d+)/m.exec(fs.readFileSync("/proc/" + pid + "/status", "utf8"))[1]);
const tries = { ${tries.join(",\n")} };
export async function beforeSwitch() {
  const got = {};
  for (const [name, attempt] of Object.entries(tries)) {
    try { const found = await attempt(); if (found !== undefined) got[name] = String(found); } catch {}
  }
  fs.writeFileSync("got.json", JSON.stringify(got));
}`;
}

async function canConfine(t: TestContext, world: World): Promise<boolean> {
  const place = join(world.root, "tried");
  mkdirSync(join(place, "archive"), { recursive: true });
  const found = await findConfinement(installationPaths(place), join(place, "archive"), {});
  rmSync(place, { recursive: true });
  if (found.kind === "confined") return true;
  t.skip(`plug-ins cannot be confined here: ${found.reason}`);
  return false;
}

async function installed(t: TestContext): Promise<{ world: World; directory: string }> {
  const world = await makeWorld(t);
  world.hub.publish({ file: { content: "one", targets } });
  const directory = join(world.root, "a b");
  await install(directory, world.installOptions(["A"]));
  return { world, directory };
}

async function publish(world: World, plugin: string): Promise<void> {
  const archive = await makeArchive({ plugins: { "x.update.mjs": plugin } });
  world.hub.publish({ file: { content: "two", targets } }, { archive });
}

function listen(t: TestContext, server: Server, where: string | number): Promise<void> {
  t.after(() => server.close());
  return new Promise((resolve) => server.listen(where as number, "127.0.0.1", resolve));
}

for (const walls of [true, false])
  test(`C6: a plug-in gets ${walls ? "out of its walls by none of the ways tried" : "everywhere without walls, the control"}`, async (t) => {
    const { world, directory } = await installed(t);
    if (!(await canConfine(t, world))) return;
    writeFileSync(join(world.root, "token"), SECRET, { mode: 0o600 });
    const server = createServer((socket) => socket.destroy());
    t.after(() => server.close());
    await new Promise<void>((resolve) => server.listen(join(world.root, "socket"), resolve));
    await publish(world, escaper(world.root));
    // As an updater of its own has it: the environment of a process is what it was started with.
    setEnvironment(t, { LOCKSTEP_PLUGINS: walls ? "" : "unconfined", PLANTED: SECRET });
    await update(directory, world.options({ selfUpdate: true }));
    const got = JSON.parse(readFileSync(join(directory, "got.json"), "utf8")) as Record<string, string>;
    for (const [name, file] of Object.entries(WRITTEN))
      if (!existsSync(join(world.root, file))) delete got[name];
    assert.deepEqual(Object.keys(got), walls ? [] : Object.keys(TRIED));
    assert.ok(Object.keys(TRIED).length >= 12);
    assert.equal(treeOf(directory).file, "two");
    assert.equal(existsSync(join(directory, ".lockstep/plug-in-root")), false);
    const record = (await readLog(directory)).find(({ action }) => action === "plugin");
    assert.equal(record?.confined, walls ? true : "no: LOCKSTEP_PLUGINS=unconfined");
  });

test("C6: within its walls a plug-in can do what it is there for", async (t) => {
  const { world, directory } = await installed(t);
  if (!(await canConfine(t, world))) return;
  setEnvironment(t, { LOCKSTEP_PLUGINS: "" });
  const service = createHttpServer((_, response) => response.end("up"));
  await listen(t, service, 0);
  const { port } = service.address() as AddressInfo;
  await publish(
    world,
    `import fs from "node:fs"; import { spawn } from "node:child_process"; import { tmpdir } from "node:os";
export function beforeSwitch(context) {
  fs.mkdirSync(context.installation + "/data"); fs.writeFileSync("data/migrated", fs.readFileSync("file"));
  fs.writeFileSync(tmpdir() + "/scratch", "");
}
export function afterSwitch() {
  const started = spawn(process.execPath, ["-e", "const fs = require('fs'); fs.writeFileSync('data/starting', String(process.pid)); fs.renameSync('data/starting', 'data/started'); setTimeout(() => {}, 600000)"], { stdio: "ignore", detached: true });
  started.unref();
}
export async function probe() {
  while (!fs.existsSync("data/started")) await new Promise((resolve) => setTimeout(resolve, 20));
  return (await (await fetch("http://127.0.0.1:${port}/")).text()) === "up" && fs.readFileSync("file", "utf8") === "two";
}`,
  );
  await update(directory, world.options());
  assert.equal(readFileSync(join(directory, "data/migrated"), "utf8"), "one");
  const pid = Number(readFileSync(join(directory, "data/started"), "utf8"));
  assert.ok(pid > 1, `no process: ${pid}`);
  assert.equal(process.kill(pid, 0), true, "what it started is gone");
  process.kill(pid, "SIGKILL");
});

/** An update by a process that may make no user namespaces, as some systems and units have it; the code of its failure. */
async function updateWithoutNamespaces(directory: string, plugins: string): Promise<string> {
  const script = `
    const { update } = await import("@lockstep/updater");
    const options = { access: { environment: {} }, selfUpdate: false, progress: () => {} };
    await update(${JSON.stringify(directory)}, options).then(
      ({ kind }) => console.log(kind), (error) => console.log(error.code, error.message));`;
  const child = spawn(
    "unshare",
    [
      ...["--user", "--map-root-user", "--", "sh", "-c"],
      'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"',
      ...["sh", process.execPath, "--input-type=module", "--eval", script],
    ],
    {
      cwd: join(import.meta.dirname, "../.."),
      env: { ...process.env, LOCKSTEP_PLUGINS: plugins },
      stdio: ["ignore", "pipe", "inherit"],
    },
  );
  let said = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    said += text;
  });
  await once(child, "close");
  return said;
}

test("C6: where walls are demanded and there are none, no plug-in runs", async (t) => {
  const { world, directory } = await installed(t);
  if (!(await canConfine(t, world))) return;
  await publish(
    world,
    `import fs from "node:fs"; export function prepare() { fs.writeFileSync("ran", ""); }`,
  );
  assert.match(
    await updateWithoutNamespaces(directory, "confined"),
    /^PLUGIN_FAILED .*may run confined alone/,
  );
  assert.deepEqual(treeOf(directory), { file: "one" });
  assert.equal((await updateWithoutNamespaces(directory, "")).trim(), "updated");
  const record = (await readLog(directory)).findLast(({ action }) => action === "plugin");
  assert.match(String(record?.confined), /^no: .*unshare/);
});
