import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { unifiedDifference } from "./text-difference.ts";

test("a difference reads as diff shows it", () => {
  const before = "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n";
  assert.deepEqual(unifiedDifference(before, before), []);
  assert.deepEqual(unifiedDifference(before, before.replace("b\n", "B\n").replace("j\n", "j")), [
    ...["@@ -1,5 +1,5 @@", " a", "-b", "+B", " c", " d", " e"],
    ...["@@ -7,4 +7,4 @@", " g", " h", " i", "-j", "+j", "\\ No newline at end of file"],
  ]);
  assert.deepEqual(unifiedDifference("", "x\n"), ["@@ -0,0 +1 @@", "+x"]);
  assert.deepEqual(unifiedDifference("1\n2\n3\n", "", 1), ["@@ more than 1 lines differ @@"]);
});

test("applied to the one text it gives the other, and changes no more lines than it must", () => {
  const texts = fc.array(fc.constantFrom("a", "b", "c", ""), { maxLength: 12 });
  fc.assert(
    fc.property(texts, texts, (a, b) => {
      const text = (lines: readonly string[]) => lines.map((line) => `${line}\n`).join("");
      const difference = unifiedDifference(text(a), text(b));
      const result: string[] = [];
      let next = 0;
      for (const line of difference) {
        const header = /^@@ -([0-9]+)(?:,([0-9]+))? /.exec(line);
        if (header !== null) {
          const start = Number(header[1]) - (header[2] === "0" ? 0 : 1);
          result.push(...a.slice(next, start));
          next = start;
        } else if (line.startsWith("+")) result.push(line.slice(1));
        else {
          assert.equal(line.slice(1), a[next]);
          if (line.startsWith(" ")) result.push(line.slice(1));
          next += 1;
        }
      }
      assert.deepEqual([...result, ...a.slice(next)], b);
      const changed = difference.filter((line) => /^[-+]/.test(line)).length;
      assert.equal(changed, a.length + b.length - 2 * longestCommon(a, b));
    }),
  );
});

function longestCommon(a: readonly string[], b: readonly string[]): number {
  if (a.length === 0 || b.length === 0) return 0;
  const table = [...a, ""].map(() => [...b, ""].map(() => 0));
  for (let i = a.length - 1; i >= 0; i--)
    for (let j = b.length - 1; j >= 0; j--) {
      const row = table[i];
      const below = table[i + 1];
      if (row === undefined || below === undefined) continue;
      row[j] = a[i] === b[j] ? (below[j + 1] ?? 0) + 1 : Math.max(below[j] ?? 0, row[j + 1] ?? 0);
    }
  return table[0]?.[0] ?? 0;
}
