import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { acceptsZstd, chooseEncoding, matchesTag, readRange } from "./conditions.ts";

test("a range gives the bytes that its definition says, whatever is asked of whatever length", () => {
  const number = fc.option(fc.nat({ max: 30 }), { nil: null });
  fc.assert(
    fc.property(number, number, fc.nat({ max: 25 }), (first, last, length) => {
      const found = readRange(`bytes=${first ?? ""}-${last ?? ""}`, length);
      const all = Array.from({ length }, (_, index) => index);
      let wanted: number[] | null;
      if (first === null) wanted = last === null ? null : all.slice(Math.max(0, length - last));
      else if (last !== null && last < first) wanted = null;
      else wanted = all.filter((at) => at >= first && (last === null || at <= last));
      if (wanted === null) assert.deepEqual(found, { kind: "all" });
      else if (wanted.length === 0) assert.deepEqual(found, { kind: "unsatisfiable" });
      else assert.deepEqual(found, { kind: "part", start: wanted[0], end: wanted.at(-1) });
    }),
    { numRuns: 2_000 },
  );
});

test("anything but one range of bytes counts as no range", () => {
  for (const header of [
    undefined,
    "",
    "bytes=",
    "bytes=-",
    "bytes=a-b",
    "bytes=1-2,4-5",
    "items=0-1",
    "bytes 0-1",
    "bytes=1e3-",
  ])
    assert.deepEqual(readRange(header, 100), { kind: "all" }, String(header));
});

test("zstd is sent to those who name it, and not with a weight of zero", () => {
  for (const header of ["zstd", "gzip, zstd", "ZSTD;q=0.1", "br;q=1, zstd ; q=1"])
    assert.ok(acceptsZstd(header), header);
  for (const header of [undefined, "", "*", "gzip", "zstd;q=0", "zstd; q=0.000", "xzstd"])
    assert.ok(!acceptsZstd(header), String(header));
  assert.equal(chooseEncoding("zstd", "identity"), "identity");
});

test("tags match one by one, weak ones too, and never by their parts", () => {
  assert.ok(matchesTag('"a"', '"a"'));
  assert.ok(matchesTag('"b", W/"a"', '"a"'));
  assert.ok(matchesTag("*", '"a"'));
  assert.ok(!matchesTag(undefined, '"a"'));
  assert.ok(!matchesTag('"ab"', '"a"'));
  assert.ok(!matchesTag("a", '"a"'));
});
