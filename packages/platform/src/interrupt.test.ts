import assert from "node:assert/strict";
import { EventEmitter } from "node:events";
import test from "node:test";
import { isLockstepError } from "@lockstep/protocol/wire";
import { listenForInterruption, signalExitStatus } from "./interrupt.ts";

function begin() {
  const source = new EventEmitter();
  let now = 0;
  const exits: number[] = [];
  const interruption = listenForInterruption(
    source,
    () => now,
    (status) => exits.push(status),
  );
  return { source, exits, interruption, passTime: (ms: number) => (now += ms) };
}

test("the first signal asks everything to end, and says why", () => {
  const { source, exits, interruption } = begin();
  source.emit("SIGTERM", "SIGTERM");
  assert.equal(interruption.signal.aborted, true);
  assert.ok(isLockstepError(interruption.signal.reason, "INTERRUPTED"));
  assert.equal(interruption.received(), "SIGTERM");
  assert.deepEqual(exits, []);
});

test("one press that arrives twice does not insist", () => {
  const { source, exits, passTime } = begin();
  source.emit("SIGINT", "SIGINT");
  passTime(50);
  source.emit("SIGINT", "SIGINT");
  assert.deepEqual(exits, []);
});

test("a second press ends the process at once", () => {
  const { source, exits, passTime } = begin();
  source.emit("SIGINT", "SIGINT");
  passTime(1500);
  source.emit("SIGINT", "SIGINT");
  assert.deepEqual(exits, [signalExitStatus("SIGINT")]);
});

test("after disposal the signals have their usual meaning", () => {
  const { source, interruption } = begin();
  interruption[Symbol.dispose]();
  assert.equal(source.listenerCount("SIGINT"), 0);
});
