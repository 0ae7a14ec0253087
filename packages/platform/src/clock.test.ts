import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import test from "node:test";
import { systemClock } from "./clock.ts";

test("a sleep ends as soon as its signal is aborted", async () => {
  const controller = new AbortController();
  const sleeping = systemClock.sleep(3_600_000, controller.signal);
  controller.abort();
  await sleeping;
});

test("a sleep with an aborted signal does not begin", async () => {
  await systemClock.sleep(3_600_000, AbortSignal.abort());
});

test("a sleep leaves no listener behind", async () => {
  const controller = new AbortController();
  const { signal } = controller;
  await systemClock.sleep(1, signal);
  assert.equal(getEventListeners(signal, "abort").length, 0);
});

test("a sleep longer than the longest timer does not end at once", async () => {
  const controller = new AbortController();
  let ended = false;
  const sleeping = systemClock.sleep(2 ** 40, controller.signal).then(() => {
    ended = true;
  });
  await systemClock.sleep(20);
  assert.equal(ended, false);
  controller.abort();
  await sleeping;
});

test("the monotonic clock does not go back", () => {
  let last = systemClock.monotonic();
  for (let i = 0; i < 1000; i++) {
    const next = systemClock.monotonic();
    assert.ok(next >= last);
    last = next;
  }
});
