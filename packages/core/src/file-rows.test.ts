import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { byPath, type FileEntry, formatRow, readRows } from "./index.ts";

const entry = fc.record(
  {
    path: fc.oneof(
      fc.string({ minLength: 1, unit: "binary" }),
      fc.string({ minLength: 1, unit: fc.constantFrom('"', "\\", ",", "\n", "a", "[", "]", "é", "\u2028") }),
    ),
    size: fc.maxSafeNat(),
    sha256: fc.string({ minLength: 64, maxLength: 64, unit: fc.constantFrom(..."0123456789abcdef") }),
    mode: fc.integer({ min: 0, max: 0o777 }),
    backup: fc.boolean(),
  },
  { noNullPrototype: true },
);
const entries = fc.uniqueArray(entry, { selector: ({ path }) => path }).map((all) => all.sort(byPath));

const write = (all: readonly FileEntry[], separator: "" | ",") =>
  all.map(formatRow).join(`${separator}\n`) + (all.length > 0 ? "\n" : "");

test("rows are read back as they were written, whatever stands in a path", () => {
  fc.assert(
    fc.property(
      entries,
      fc.constantFrom("" as const, "," as const),
      fc.string(),
      (all, separator, before) => {
        const rows = write(all, separator);
        const read = readRows(`${before}${rows}]}\n`, before.length, separator);
        assert.deepEqual(read, { entries: all, end: before.length + rows.length });
      },
    ),
    { numRuns: 500 },
  );
});

test("a row of another spelling is not read, and never read as something else", () => {
  fc.assert(
    fc.property(entries, fc.nat(), fc.constantFrom(...' 0-"\\,[]\nxA'), (all, where, put) => {
      const rows = write(all, "");
      if (rows === "") return;
      const at = where % rows.length;
      const damaged = rows.slice(0, at) + put + rows.slice(at + 1);
      const read = readRows(damaged, 0, "");
      if (read === null || damaged === rows) return;
      // What is still read is exactly what the damaged text says.
      assert.equal(write(read.entries, ""), damaged.slice(0, read.end));
    }),
    { numRuns: 2000 },
  );
});

test("rows out of order, sizes beyond a number and modes beyond nine bits are refused", () => {
  const row = (path: string, size = "1", mode = "420") =>
    `["${path}",${size},"${"a".repeat(64)}",${mode},0]\n`;
  assert.notEqual(readRows(row("a") + row("b"), 0, ""), null);
  for (const bad of [
    row("b") + row("a"),
    row("a") + row("a"),
    row("a", "9007199254740993"),
    row("a", "01"),
    row("a", "-1"),
    row("a", "1", "512"),
    row("a", "1e3"),
    row("a").replaceAll("aaaa", "AAAA"),
    row("a").trimEnd(),
    row("a\nb"),
  ])
    assert.equal(readRows(bad, 0, ""), null, bad);
});
