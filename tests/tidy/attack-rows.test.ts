import assert from "node:assert/strict";
import test from "node:test";
import { checkout, isTest, type Tree, treeOf } from "./tree.ts";

/**
 * The attacks that docs/internals/trust.md lists: each row has a test that is named after it, in a file that the table names and
 * that has a control, or is one of those that the conformance suite has, or that need Windows.
 */
const DOCUMENT = "docs/internals/trust.md";
const numbered = (letter: string, count: number) =>
  Array.from({ length: count }, (_, n) => `${letter}${n + 1}`);
const ROWS = [...numbered("A", 26), ...numbered("B", 10), ...numbered("C", 9)];
const IN_SUITE = ["A15", "A18", "A19"];
const ON_WINDOWS = ["C2", "C3"];

/** What the table says of each row, by row. */
function readTable(document: string): Map<string, string> {
  const table = document.slice(document.indexOf("**Attacks.**"), document.indexOf("**Fuzz.**"));
  const said = new Map<string, string>();
  for (const [, rows = "", what = ""] of table.matchAll(/^\| ([A-C]\d+(?:, [A-C]\d+)*) \| (.+) \|$/gm))
    for (const row of rows.split(", ")) said.set(row, what);
  return said;
}

function findFaults(tree: Tree, rows: readonly string[]): string[] {
  const said = readTable(tree.read(DOCUMENT));
  const tests = tree.paths.filter(isTest).map((path) => ({ path, text: tree.read(path) }));
  return rows.flatMap((row) => {
    const what = said.get(row);
    if (what === undefined) return [`${row} is not in the table`];
    if (IN_SUITE.includes(row)) return /suite: `\w+/.test(what) ? [] : [`${row} names no test of the suite`];
    if (ON_WINDOWS.includes(row))
      return what.includes("Windows only") ? [] : [`${row} is not listed as such`];
    const named = tests.filter(({ text }) => new RegExp(`\\btest\\(\\s*["\`]${row}: `).test(text));
    const places = named.filter(({ path }) => what.includes(`\`${path}\``));
    if (named.length === 0) return [`${row} has no test`];
    if (places.length === 0)
      return [`${row} has its test in ${named[0]?.path}, which the table does not name`];
    return places.some(({ text }) => /\bcontrol/i.test(text)) ? [] : [`${row} has no control`];
  });
}

test("each row of the table of attacks has its test with a control, or says who else has it", () => {
  assert.deepEqual(findFaults(checkout(), ROWS), []);
});

test("a row without a line, a test, the right place or a control is found", () => {
  const faults = (table: string, text: string) =>
    findFaults(treeOf({ [DOCUMENT]: `**Attacks.**\n\n${table}\n\n**Fuzz.**`, "tests/a.test.ts": text }), [
      "A2",
    ]);
  const line = "| A1, A2 | `tests/a.test.ts` |";
  const good = `// The control.\ntest("A2: x", () => {});`;
  assert.deepEqual(faults(line, good), []);
  assert.equal(faults("", good).length, 1);
  assert.equal(faults(line, good.replace("A2", "A20")).length, 1);
  assert.equal(faults("| A2 | `tests/b.test.ts` |", good).length, 1);
  assert.equal(faults(line, good.replace("control", "other")).length, 1);
});
