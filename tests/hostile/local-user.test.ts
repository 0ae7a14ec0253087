import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { install, update } from "@lockstep/updater";
import { ask } from "../hub/support/requests.ts";
import { startTestHub } from "../hub/support/test-hub.ts";
import { setEnvironment } from "../support/environment.ts";
import { usePostgres } from "../support/postgres.ts";
import { makeArchive } from "../updater/archives.ts";
import { makeWorld } from "../updater/world.ts";

/**
 * C7: another user of the machine drives what runs there with more rights. An updater listens nowhere; a hub listens, and
 * its token is readable for its user alone.
 */
const server = usePostgres();
const targets = ["role:A"];
const NOBODY = 65_534;
const needsRoot = process.getuid?.() === 0 ? false : "needs root, to have a second user";
const onLinux = { skip: process.platform === "linux" ? false : "reads /proc" };

/** Writes down where each process above it listens, up to the one of the test, which does: its hub is there. */
const look = (file: string) => `
import { appendFileSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
const listening = new Set();
for (const name of ["tcp", "tcp6"])
  for (const line of readFileSync("/proc/net/" + name, "utf8").split("\\n").slice(1)) {
    const fields = line.trim().split(/\\s+/);
    if (fields[3] === "0A") listening.add("socket:[" + fields[9] + "]");
  }
for (const line of readFileSync("/proc/net/unix", "utf8").split("\\n").slice(1)) {
  const fields = line.trim().split(/\\s+/);
  if ((parseInt(fields[3], 16) & 0x10000) !== 0) listening.add("socket:[" + fields[6] + "]");
}
export function afterSwitch() {
  for (let pid = process.ppid; pid > 1; ) {
    let found = 0;
    for (const fd of readdirSync("/proc/" + pid + "/fd")) {
      try { if (listening.has(readlinkSync("/proc/" + pid + "/fd/" + fd))) found++; } catch {}
    }
    appendFileSync(${JSON.stringify(file)}, (pid === ${process.pid} ? "test " : "updater ") + found + "\\n");
    if (pid === ${process.pid}) return;
    pid = Number(/PPid:\\s+(\\d+)/.exec(readFileSync("/proc/" + pid + "/status", "utf8"))[1]);
  }
}`;

test("C7: an updater listens nowhere, so there is nothing that others could drive", onLinux, async (t) => {
  const world = await makeWorld(t);
  world.hub.publish({ file: { content: "one", targets } });
  const directory = join(world.root, "a");
  await install(directory, world.installOptions(["A"]));
  const found = join(world.root, "found");
  const archive = await makeArchive({ plugins: { "x.update.mjs": look(found) } });
  world.hub.publish({ file: { content: "two", targets } }, { archive });
  // What it finds it writes beside the installation, where walls would keep it from it.
  setEnvironment(t, { LOCKSTEP_PLUGINS: "unconfined" });
  await update(directory, world.options({ selfUpdate: true }));
  const lines = readFileSync(found, "utf8").trim().split("\n");
  const of = (who: string) =>
    lines.filter((line) => line.startsWith(who)).map((line) => Number(line.split(" ")[1]));
  assert.ok(of("updater").length >= 1);
  assert.deepEqual(new Set(of("updater")), new Set([0]));
  // The control: the same look finds the hub of this test.
  assert.ok((of("test")[0] ?? 0) >= 1);
});

/** What another user does: looks for the token, and asks with what was found. */
const DRIVE = `
const [url, file] = process.argv.slice(1);
let token = "guessed-by-somebody-else";
try { token = require("fs").readFileSync(file, "utf8").trim(); } catch (error) { console.log(error.code); }
fetch(url + "/v1/dbqueue/stopped", {
  method: "PUT",
  headers: { authorization: "Bearer " + token, "content-type": "application/json" },
  body: JSON.stringify({ stopped: true, reason: "by another user" }),
}).then((answer) => console.log(answer.status));`;

async function driveAsNobody(url: string, file: string): Promise<string[]> {
  const child = spawn(process.execPath, ["-e", DRIVE, url, file], {
    cwd: "/",
    uid: NOBODY,
    gid: NOBODY,
    env: {},
    stdio: ["ignore", "pipe", "inherit"],
  });
  let said = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    said += text;
  });
  await once(child, "close");
  return said.trim().split("\n");
}

test("C7: another user of the machine drives no hub, for its token is not his to read", {
  skip: needsRoot,
}, async (t) => {
  const hub = await startTestHub(t, server);
  const stopped = async () => (await ask(hub, "GET", "/v1/dbqueue")).json().stopped;
  // The directory is open, so that nothing but the rights of the file stand in his way.
  chmodSync(hub.directory, 0o755);
  const token = join(hub.directory, "token");
  assert.deepEqual(await driveAsNobody(hub.url, token), ["EACCES", "403"]);
  assert.equal(await stopped(), false);
  // The control: with a token that everybody may read.
  chmodSync(token, 0o644);
  assert.deepEqual(await driveAsNobody(hub.url, token), ["200"]);
  assert.equal(await stopped(), true);
});
