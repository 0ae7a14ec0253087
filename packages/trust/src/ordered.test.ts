import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { describeOrdered, mayBeOrdered, namesOrdered, ORDERED_MAX, readOrdered } from "./ordered.ts";

const HOUR = 3_600_000;
const NOW = 1_800_000_000_000;
const list = (installations: readonly string[], createdAt = NOW) =>
  readOrdered({ unrecognizedFields: { ...describeOrdered(installations, createdAt) } });

test("nobody who is ordered is missing, and few others ask", () => {
  fc.assert(
    fc.property(fc.uniqueArray(fc.uuid(), { maxLength: ORDERED_MAX }), (installations) => {
      const said = list(installations);
      for (const installation of installations) assert.equal(mayBeOrdered(said, installation, NOW), true);
      const unrecognizedFields = { ...describeOrdered(installations, NOW) };
      assert.equal(namesOrdered({ unrecognizedFields }, [...installations].reverse()), true);
      assert.equal(namesOrdered({ unrecognizedFields }, [...installations, "one-more"]), false);
      assert.equal(namesOrdered({ unrecognizedFields }, installations.slice(1)), installations.length === 0);
    }),
  );
  const said = list(["a", "b"]);
  // Two lists of the same installations have nothing in common that would tell so.
  const later = list(["a", "b"], NOW + 1);
  assert.equal([...(said?.marks ?? [])].filter((mark) => later?.marks.has(mark)).length, 0);
  assert.equal(later?.marks.size, 2);
  const others = Array.from({ length: 10_000 }, (_, n) => `other-${n}`);
  assert.equal(others.filter((other) => mayBeOrdered(said, other, NOW)).length, 0);
});

test("what is not said, not fresh or not understood means: ask", () => {
  const said = list([]);
  const asks = (ageMs: number) => mayBeOrdered(said, "a", NOW + ageMs);
  assert.deepEqual([asks(0), asks(HOUR), asks(HOUR + 1)], [false, false, true]);
  assert.deepEqual([asks(-300_000), asks(-300_001)], [false, true], "a clock that is behind knows no age");
  const many = Array.from({ length: ORDERED_MAX + 1 }, (_, n) => `${n}`);
  assert.equal(list(many), null);
  assert.equal(mayBeOrdered(list(many), "a", NOW), true);
  assert.equal(namesOrdered({ unrecognizedFields: {} }, many), true);
  assert.equal(namesOrdered({ unrecognizedFields: {} }, []), false, "of an older hub: to be signed anew");
  const good = { format: 1, createdAt: NOW, orders: ["00000000"] };
  assert.notEqual(readOrdered({ unrecognizedFields: { lockstep: good } }), null, "the control");
  for (const lockstep of [
    null,
    "none",
    [],
    { ...good, format: 2 },
    { ...good, createdAt: "now" },
    { ...good, createdAt: undefined },
    { ...good, orders: null },
    { ...good, orders: ["short"] },
    { ...good, orders: [0] },
    { ...good, orders: Array.from({ length: ORDERED_MAX + 1 }, () => "00000000") },
  ])
    assert.equal(readOrdered({ unrecognizedFields: { lockstep } }), null, JSON.stringify(lockstep));
  assert.equal(readOrdered({}), null);
});
