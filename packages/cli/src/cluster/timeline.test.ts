import assert from "node:assert/strict";
import { test } from "node:test";
import type { HistoryEntry } from "@lockstep/core";
import fc from "fast-check";
import { mergeHistory } from "./timeline.ts";

const entry = (node: string, number: number, at: number, what = "saw", token: number | null = null) =>
  ({ node, number, at, server: "ORDERS", token, what, detail: "" }) satisfies HistoryEntry;

test("entries of several nodes stand by time, those of one node by number whatever its clock did", () => {
  const merged = mergeHistory([entry("b", 2, 50), entry("a", 1, 20), entry("b", 1, 100), entry("a", 2, 120)]);
  assert.deepEqual(
    merged.map(({ node, number }) => `${node}${number}`),
    ["a1", "b1", "b2", "a2"],
  );
});

test("a higher token stands after a lower one though its node's clock is an hour behind", () => {
  const merged = mergeHistory([entry("late", 1, 0, "took", 8), entry("right", 1, 3_600_000, "took", 7)]);
  assert.deepEqual(
    merged.map(({ token }) => token),
    [7, 8],
  );
});

test("whatever the entries are, each comes out once and each node's stay in order", () => {
  const anyEntry = fc.record({
    node: fc.constantFrom("a", "b", "c"),
    number: fc.nat(50),
    at: fc.nat(20),
    server: fc.constantFrom("X", "Y", null),
    token: fc.option(fc.nat(5)),
    what: fc.constantFrom("took", "online"),
    detail: fc.constant(""),
  });
  fc.assert(
    fc.property(
      fc.uniqueArray(anyEntry, { selector: ({ node, number }) => `${node} ${number}`, maxLength: 30 }),
      (entries) => {
        const merged = mergeHistory(entries);
        assert.equal(new Set(merged).size, entries.length);
        assert.equal(merged.length, entries.length);
        for (const node of ["a", "b", "c"]) {
          const numbers = merged.filter((each) => each.node === node).map(({ number }) => number);
          assert.deepEqual(
            numbers,
            numbers.toSorted((x, y) => x - y),
          );
        }
      },
    ),
  );
});
