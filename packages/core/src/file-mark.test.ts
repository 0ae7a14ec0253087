import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { isFileMark, markOf, mayBeSame } from "./file-mark.ts";

const looks = fc.record({
  ino: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
  size: fc.nat({ max: Number.MAX_SAFE_INTEGER }),
  mtimeNs: fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
});

test("every look at a file gives a mark that is read back, and another look another mark", () => {
  fc.assert(
    fc.property(looks, looks, (a, b) => {
      assert.ok(isFileMark(markOf(a)));
      const same = a.ino === b.ino && a.size === b.size && a.mtimeNs === b.mtimeNs;
      assert.equal(markOf(a) === markOf(b), same);
    }),
  );
});

test("a file may be the same by its number, or by its size and time, and by nothing less", () => {
  const look = { ino: 7n, size: 100, mtimeNs: 5_000_000_000n };
  const compare = (change: Partial<typeof look>) => mayBeSame(markOf(look), markOf({ ...look, ...change }));
  assert.ok(compare({}));
  assert.ok(compare({ size: 101, mtimeNs: 6n }), "somebody wrote to it");
  assert.ok(compare({ ino: 8n }), "its number depends on its name");
  assert.ok(!compare({ ino: 8n, size: 101 }));
  assert.ok(!compare({ ino: 8n, mtimeNs: 6n }));
});

test("anything else is no mark", () => {
  for (const text of ["", "1.2", "1.2.3.4", "1..3", "A.1.1", "1.2.3 ", null, 1])
    assert.ok(!isFileMark(text), String(text));
});
