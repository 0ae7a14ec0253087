import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import test from "node:test";
import { identify, isRunning, ownIdentity, parseStart } from "./process-identity.ts";

test("this process is running, and is found by its id", () => {
  const own = ownIdentity();
  assert.equal(isRunning(own), true);
  assert.deepEqual(identify(process.pid), own);
});

test("an id that was given to another process is not taken for the former one", (t) => {
  const own = ownIdentity();
  if (own.start === null) return t.skip("this platform does not tell when a process began");
  assert.equal(isRunning({ pid: own.pid, start: `${own.start}0` }), false);
});

test("a process of unknown start counts as running as long as its id is in use", () => {
  assert.equal(isRunning({ pid: process.pid, start: null }), true);
});

test("a process that has ended is not running, nor is what was never a process id", async () => {
  const child = spawn(process.execPath, ["-e", "process.stdin.resume()"], {
    stdio: ["pipe", "ignore", "ignore"],
  });
  await once(child, "spawn");
  const identity = identify(child.pid ?? 0);
  assert.ok(identity !== null);
  assert.equal(isRunning(identity), true);
  child.stdin.end();
  await once(child, "exit");
  assert.equal(isRunning(identity), false);
  for (const pid of [0, -1, 1.5, Number.NaN]) assert.equal(isRunning({ pid, start: null }), false);
});

test("a program's name may hold blanks and brackets without moving the fields", () => {
  const rest = `S 1 ${Array.from({ length: 17 }, (_, i) => i).join(" ")} 4711 99`;
  assert.equal(parseStart(`12 (a b) c) ${rest}`, "boot\n"), "boot 4711");
  assert.equal(parseStart("12 (x) S 1", "boot"), null);
});

test("a zombie has ended: it differs from every process that has a start", () => {
  assert.equal(parseStart("12 (x) Z 1 2 3", "boot"), "ended");
});
