import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import {
  DEFAULT_LEASE_TIMES,
  FAST_LEASE_TIMES,
  isProven,
  type LeaseTimes,
  proveLease,
} from "./lease-proof.ts";

const times: fc.Arbitrary<LeaseTimes> = fc.record({
  trustMs: fc.integer({ min: 1, max: 5000 }),
  waitMs: fc.integer({ min: 1, max: 9000 }),
  renewMs: fc.integer({ min: 1, max: 2000 }),
  callMs: fc.integer({ min: 1, max: 2000 }),
  guardDelayMs: fc.integer({ min: 0, max: 1000 }),
  stopMs: fc.integer({ min: 0, max: 1000 }),
  clockError: fc.constantFrom(0, 0.0005, 0.001, 0.01, 0.1, 0.3),
});

test("both profiles are proven, and print what room they have", () => {
  for (const profile of [DEFAULT_LEASE_TIMES, FAST_LEASE_TIMES]) assert.ok(isProven(proveLease(profile)));
  const { safety, liveness } = proveLease(DEFAULT_LEASE_TIMES);
  assert.equal(Math.round(safety.leftMs), 2502);
  assert.equal(Math.round(safety.rightMs), 2997);
  assert.equal(liveness.slackMs, 200);
});

test("what is proven holds for clocks that are as wrong as they may be", () => {
  fc.assert(
    fc.property(times, (drawn) => {
      if (!isProven(proveLease(drawn))) return;
      const { trustMs, waitMs, guardDelayMs, stopMs, clockError } = drawn;
      const goneAt = trustMs / (1 - clockError) + guardDelayMs + stopMs;
      const takenAt = waitMs / (1 + clockError);
      assert.ok(goneAt <= takenAt + 1e-6, `${goneAt} > ${takenAt}`);
      assert.ok(drawn.renewMs + 2 * drawn.callMs <= trustMs);
    }),
    { numRuns: 2000 },
  );
});

test("each term's limit is where its inequality turns", () => {
  fc.assert(
    fc.property(times, fc.constantFrom("safety", "liveness"), (drawn, which) => {
      for (const { term, limit, bound, slack, value } of proveLease(drawn)[which].terms) {
        const at = (moved: number) => proveLease({ ...drawn, [term]: moved })[which].slackMs;
        assert.ok(Math.abs(at(limit)) < 1e-6, `${term}: slack ${at(limit)} at its limit`);
        assert.ok(at(bound === "at-most" ? limit - 0.01 : limit + 0.01) > 0);
        assert.ok(Math.abs(bound === "at-most" ? limit - value - slack : value - limit - slack) < 1e-9);
      }
    }),
  );
});

test("figures that make no sense are named, not calculated with", () => {
  const faults = (changed: Partial<LeaseTimes>) => proveLease({ ...DEFAULT_LEASE_TIMES, ...changed }).faults;
  assert.deepEqual(faults({}), []);
  assert.deepEqual(faults({ renewMs: 0, stopMs: -1 }), ["renewMs", "stopMs"]);
  assert.deepEqual(faults({ clockError: 1 }), ["clockError"]);
  assert.deepEqual(faults({ waitMs: Number.NaN, callMs: Number.POSITIVE_INFINITY }), ["waitMs", "callMs"]);
});
