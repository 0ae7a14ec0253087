import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { REPORT_COUNTS_MS, revisionsToDrop } from "./retention.ts";

const NOW = 1_000_000_000_000;

const inputs = fc
  .record({
    revisions: fc.uniqueArray(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 30 }),
    keep: fc.integer({ min: -1, max: 12 }),
    reports: fc.array(
      fc.record({
        revision: fc.option(fc.integer({ min: 0, max: 45 })),
        seenAt: fc.integer({ min: NOW - 2 * REPORT_COUNTS_MS, max: NOW }),
      }),
      { maxLength: 8 },
    ),
  })
  .map((input) => ({ ...input, current: Math.max(...input.revisions), now: NOW }));

test("kept are the newest, the current one and those that an installation is at; everything else goes", () => {
  fc.assert(
    fc.property(inputs, (input) => {
      const dropped = revisionsToDrop(input);
      for (const number of input.revisions) {
        const newer = input.revisions.filter((other) => other > number).length;
        const used = input.reports.some(
          (report) => report.revision === number && report.seenAt >= NOW - REPORT_COUNTS_MS,
        );
        const kept = newer < Math.max(1, input.keep) || number === input.current || used;
        assert.equal(!dropped.includes(number), kept, `revision ${number}`);
      }
      assert.deepEqual(
        dropped,
        [...dropped].sort((a, b) => a - b),
      );
    }),
  );
});

test("a current revision is kept even where it is not the newest", () => {
  assert.deepEqual(
    revisionsToDrop({ revisions: [1, 2, 3, 4], current: 2, keep: 1, reports: [], now: NOW }),
    [1, 3],
  );
});
