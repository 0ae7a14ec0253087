import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { changeTimes } from "./lease-change.ts";
import { isProven, type LeaseTimes, proveLease } from "./lease-proof.ts";

/** Times that are proven, some only just. */
const provenTimes = fc
  .record({
    renewMs: fc.integer({ min: 1, max: 500 }),
    callMs: fc.integer({ min: 1, max: 900 }),
    spareMs: fc.integer({ min: 0, max: 3_000 }),
    guardDelayMs: fc.integer({ min: 0, max: 500 }),
    stopMs: fc.integer({ min: 0, max: 900 }),
    clockError: fc.constantFrom(0, 0.001, 0.05),
    roomMs: fc.integer({ min: 0, max: 2_000 }),
  })
  .map(({ spareMs, roomMs, ...rest }): LeaseTimes => {
    const trustMs = rest.renewMs + 2 * rest.callMs + spareMs;
    const { leftMs } = proveLease({ ...rest, trustMs, waitMs: 1 }).safety;
    return { ...rest, trustMs, waitMs: Math.ceil(leftMs / (1 - rest.clockError)) + roomMs };
  });

/** Whether an owner with some times and a waiting node with others exclude each other, by the assumptions of either. */
const isSafeBeside = (owner: LeaseTimes, waiting: LeaseTimes) =>
  [owner, waiting].some((assumed) => isProven(proveLease({ ...assumed, ...pair(owner, waiting) })));
const pair = ({ trustMs, renewMs, callMs }: LeaseTimes, { waitMs }: LeaseTimes) => ({
  ...{ trustMs, renewMs, callMs, waitMs },
});

test("whoever has gone the first half is safe beside whoever has not begun, has gone it too, or is through", () => {
  fc.assert(
    fc.property(provenTimes, provenTimes, (old, wanted) => {
      const between = changeTimes(old, wanted, "none");
      for (const other of [old, between, wanted]) {
        assert.ok(isSafeBeside(between, other));
        assert.ok(isSafeBeside(other, between));
      }
      // From there on, beside all who have gone the first half: an owner's numbers first.
      const trusting = changeTimes(between, wanted, "trust");
      for (const other of [between, trusting, wanted]) {
        assert.ok(isSafeBeside(trusting, other));
        assert.ok(isSafeBeside(other, trusting));
      }
      assert.deepEqual(changeTimes(trusting, wanted, "all"), wanted);
    }),
  );
});

test("to leap at once would not be: that is why there are two halves", () => {
  const old: LeaseTimes = {
    ...{ trustMs: 1_800, waitMs: 3_000, renewMs: 400, callMs: 600 },
    ...{ guardDelayMs: 200, stopMs: 500, clockError: 0.001 },
  };
  const wanted = { ...old, trustMs: 3_600, waitMs: 6_000 };
  assert.ok(!isSafeBeside(changeTimes(old, wanted, "all"), old));
  assert.deepEqual(
    [changeTimes(old, wanted, "none"), changeTimes(wanted, old, "none")].map(({ trustMs, waitMs }) => [
      trustMs,
      waitMs,
    ]),
    [
      [1_800, 6_000],
      [1_800, 6_000],
    ],
  );
});
