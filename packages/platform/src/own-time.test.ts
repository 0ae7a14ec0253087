import assert from "node:assert/strict";
import { test } from "node:test";
import { afterOwnTime } from "./own-time.ts";

/** Nothing of this process goes on meanwhile, as when the machine stands still. */
const standStill = (ms: number) => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);

test("what a machine that stood still had no time for is not late", async () => {
  const { promise, resolve } = Promise.withResolvers<number>();
  afterOwnTime(200, () => resolve(performance.now()));
  standStill(400);
  const wokenAt = performance.now();
  // Three of four parts are left.
  assert.ok((await promise) - wokenAt >= 140);
});

test("what is called off does not happen", async () => {
  let acts = 0;
  const callOff = afterOwnTime(20, () => {
    acts += 1;
  });
  callOff();
  await new Promise<void>((resolve) => afterOwnTime(100, resolve));
  assert.equal(acts, 0);
});
