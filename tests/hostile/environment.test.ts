import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { install, readLog, update } from "@lockstep/updater";
import { setEnvironment } from "../support/environment.ts";
import { makeArchive } from "../updater/archives.ts";
import { makeWorld, treeOf } from "../updater/world.ts";

/**
 * C4: what stands in the environment of whoever starts an update and would run in each process that the update starts: options
 * of Node, of the loader, and programs that the search path finds first. What they leave is a canary.
 */
const targets = ["role:A"];
/** What putting up walls takes, and what a careless program would start. */
const PROGRAMS = [
  "unshare",
  "sh",
  "bash",
  "node",
  "env",
  "setpriv",
  "mount",
  "umount",
  "mkdir",
  "ln",
  "readlink",
];
const onLinux = { skip: process.platform === "linux" ? false : "the variables are those of Linux" };

function hostile(place: string): { environment: Record<string, string>; canaries: () => string[] } {
  const [left, programs] = [join(place, "left"), join(place, "programs")];
  for (const directory of [left, programs]) mkdirSync(directory, { recursive: true, mode: 0o777 });
  for (const name of PROGRAMS)
    writeFileSync(join(programs, name), `#!/bin/sh\n: > "${left}/path-${name}"\nexit 1\n`, { mode: 0o755 });
  const preload = join(place, "preload.cjs");
  writeFileSync(
    preload,
    `require("fs").writeFileSync(${JSON.stringify(left)} + "/node-" + process.pid, "");`,
  );
  const environment = {
    NODE_OPTIONS: `--require=${preload}`,
    // The loader reads this as it reads LD_PRELOAD, and leaves a file where no library has to be built for it.
    LD_DEBUG: "statistics",
    LD_DEBUG_OUTPUT: join(left, "loader"),
    PATH: `${programs}:${process.env.PATH ?? ""}`,
  };
  const canaries = () => [...new Set(readdirSync(left).map((name) => name.replace(/[.-]\d+$/, "")))].sort();
  return { environment, canaries };
}

for (const walls of ["", "unconfined"])
  test(
    `C4: no variable of whoever starts an update runs anything in it, plug-ins ${walls || "within walls"}`,
    onLinux,
    async (t) => {
      const world = await makeWorld(t);
      world.hub.publish({ file: { content: "one", targets } });
      const directory = join(world.root, "a");
      await install(directory, world.installOptions(["A"]));
      const plugin = `import fs from "node:fs"; export function afterSwitch() { fs.writeFileSync("ran", ""); }`;
      const archive = await makeArchive({ plugins: { "x.update.mjs": plugin } });
      world.hub.publish({ file: { content: "two", targets } }, { archive });
      const { environment, canaries } = hostile(join(world.root, "hostile"));
      setEnvironment(t, { ...environment, LOCKSTEP_PLUGINS: walls });
      await update(directory, world.options());
      assert.deepEqual(canaries(), []);
      assert.deepEqual(treeOf(directory), { file: "two", ran: "" });
      const record = (await readLog(directory)).find(({ action }) => action === "plugin");
      t.diagnostic(`confined: ${record?.confined}`);
      // The control: a process that is started with the environment as it stands, and a program by its name alone.
      spawnSync(process.execPath, ["-e", ""], { env: process.env });
      assert.deepEqual(canaries(), ["loader", "node"]);
      for (const name of PROGRAMS) spawnSync(name, [], { env: process.env });
      assert.deepEqual(canaries(), ["loader", "node", ...PROGRAMS.map((name) => `path-${name}`).sort()]);
      rmSync(join(world.root, "hostile"), { recursive: true });
    },
  );
