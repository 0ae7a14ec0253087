import assert from "node:assert/strict";
import { test } from "node:test";
import { askedSeed } from "./asked-seed.ts";

test("a random test has the same seed in every run, unless another one is asked for", () => {
  assert.equal(askedSeed(7, undefined), 7);
  assert.equal(askedSeed(7, ""), 7);
  assert.equal(askedSeed(7, "12"), 12);
  assert.equal(askedSeed(7, "fresh", 1_795_450_000_123), 1_450_000_123);
  assert.throws(() => askedSeed(7, "new"), /LOCKSTEP_SEED.*found: new/);
  assert.throws(() => askedSeed(7, "-1"), RangeError);
});
