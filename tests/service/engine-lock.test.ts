/** The lock of a StateDirectory: one engine, whatever lies there and whoever comes at the same moment. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, readdirSync, readFileSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { ownIdentity } from "@lockstep/platform";
import { lockState } from "../../packages/service/src/supervise/state-files.ts";
import { temporaryDirectory } from "./service-world.ts";

const SOURCE = JSON.stringify(
  join(import.meta.dirname, "../../packages/service/src/supervise/state-files.ts"),
);

const next = (child: ChildProcess) =>
  new Promise<unknown>((resolve) => child.once("message", (message) => resolve(message)));

/** Processes that each try for the lock when told, say what came of it, and keep what they got. */
async function contenders(t: TestContext, directory: string, count: number): Promise<ChildProcess[]> {
  const source = `
    const { lockState } = await import(${SOURCE});
    let held;
    process.on("message", () => {
      try {
        held = lockState(${JSON.stringify(directory)});
        process.send("held");
      } catch (error) {
        process.send(error.code);
      }
    });
    process.send("ready");`;
  const children = Array.from({ length: count }, () =>
    spawn(process.execPath, ["--input-type=module", "-e", source], {
      cwd: import.meta.dirname,
      stdio: ["ignore", "inherit", "inherit", "ipc"],
    }),
  );
  t.after(() => {
    for (const child of children) child.kill("SIGKILL");
  });
  await Promise.all(children.map(next));
  return children;
}

test("of many who come at once exactly one gets the lock, whatever a dead one left", async (t) => {
  // No kernel gives so high a number to anybody.
  const dead = 2 ** 30;
  const leftovers: readonly (string | null)[] = [null, JSON.stringify({ pid: dead, start: null }), ""];
  for (const leftover of leftovers) {
    const directory = temporaryDirectory(t);
    const file = join(directory, "engine.lock");
    const children = await contenders(t, directory, 6);
    if (leftover !== null) {
      writeFileSync(file, leftover);
      utimesSync(file, new Date(0), new Date(0));
    }
    const answers = Promise.all(children.map(next));
    for (const child of children) child.send("go");
    const kinds = await answers;
    assert.equal(kinds.filter((kind) => kind === "held").length, 1, kinds.join());
    assert.equal(kinds.filter((kind) => kind === "SERVICE_ALREADY_RUNNING").length, 5, kinds.join());
    assert.deepEqual(readdirSync(directory), ["engine.lock"]);
    for (const child of children) child.kill("SIGKILL");
  }
});

test("a lock that somebody may just be writing is believed, an old one that cannot be read is not", (t) => {
  const directory = temporaryDirectory(t);
  const file = join(directory, "engine.lock");
  writeFileSync(file, "");
  // The moment is the same for whoever writes and whoever looks.
  const moment = Date.now();
  utimesSync(file, new Date(moment), new Date(moment));
  t.mock.method(Date, "now", () => moment);
  assert.throws(() => lockState(directory), { code: "SERVICE_ALREADY_RUNNING" });
  utimesSync(file, new Date(0), new Date(0));
  lockState(directory)[Symbol.dispose]();
  assert.equal(existsSync(file), false);
});

test("a lock is whole from its first moment, and given back only by its holder", (t) => {
  const directory = temporaryDirectory(t);
  const file = join(directory, "engine.lock");
  const lock = lockState(directory);
  assert.equal(JSON.parse(readFileSync(file, "utf8")).pid, process.pid);
  const other = JSON.stringify({ ...ownIdentity(), token: "another" });
  writeFileSync(file, other);
  lock[Symbol.dispose]();
  assert.equal(readFileSync(file, "utf8"), other);
});
