import assert from "node:assert/strict";
import { test } from "node:test";
import { findLogFaults } from "./log-history.ts";

const record = (node: string, term: number, count: number, text = "something happened") =>
  `2026-03-01T02:11:40.123Z ${node}/${term}.${count} Info    ${text}\n`;
const run = (node: string, term: number, length: number) =>
  Array.from({ length }, (_, index) => record(node, term, index + 1));
const LINES = [...run("alpha", 3, 4), ...run("beta", 4, 3), ...run("beta", 4, 2), ...run("alpha", 9, 3)];
const whole = LINES.join("");
const without = (index: number) => LINES.toSpliced(index, 1).join("");

test("a whole log over three nodes and an engine that started anew has no faults, in one file or several", () => {
  assert.deepEqual(findLogFaults([whole]), []);
  assert.deepEqual(findLogFaults([LINES.slice(0, 5).join(""), LINES.slice(5).join("")]), []);
  assert.deepEqual(findLogFaults([]), []);
});

test("each way in which a log can be broken is told", () => {
  const broken: Record<string, [string, RegExp]> = {
    "a record is missing in a run": [without(2), /alpha\/3\.4 has others missing/],
    "the first record of a term is missing": [without(4), /first record of its term is beta\/4\.2/],
    "the first record of all is missing": [without(0), /begins with alpha\/3\.2/],
    "a record twice": [LINES.toSpliced(2, 0, LINES[1] ?? "").join(""), /alpha\/3\.2 comes twice/],
    "the first record of a run twice": [LINES.toSpliced(5, 0, LINES[4] ?? "").join(""), /once more/],
    "two records changed places": [
      LINES.toSpliced(1, 2, LINES[2] ?? "", LINES[1] ?? "").join(""),
      /alpha\/3\.3 has others missing|alpha\/3\.2 comes twice/,
    ],
    "the former owner writes on": [
      LINES.toSpliced(6, 0, record("alpha", 3, 5)).join(""),
      /alpha\/3\.5 stands behind beta\/4\.2/,
    ],
    "two owners of one term": [
      LINES.toSpliced(4, 0, record("gamma", 3, 1)).join(""),
      /term 3 belongs to alpha, and gamma wrote/,
    ],
    "half a line": [whole.replace("alpha/3.3 Info    something happened", "alpha/3.3 In"), /no whole record/],
    "a line inside another": [
      whole.replace("happened\n", `hap${record("beta", 4, 1).trimEnd()}\n`),
      /line 1 is no whole record/,
    ],
    "the end is missing": [whole.slice(0, -5), /ends in the middle of a line/],
    "something else": [`${whole}hello\n`, /no whole record: hello/],
  };
  for (const [name, [text, expected]] of Object.entries(broken))
    assert.match(findLogFaults([text]).join("\n"), expected, name);
});

test("where a service was killed, its last line may be cut, and no other", () => {
  const cut = (index: number) => LINES.with(index, `${(LINES[index] ?? "").slice(0, 30)}\n`).join("");
  assert.deepEqual(findLogFaults([cut(3)], { mayBeTorn: true }), []);
  assert.match(findLogFaults([cut(3)]).join(), /no whole record/);
  assert.match(findLogFaults([cut(1)], { mayBeTorn: true }).join(), /its writer went on|has others missing/);
  const inside = whole.replace("happened\n", `hap${record("beta", 4, 1).trimEnd()}\n`);
  assert.match(findLogFaults([inside], { mayBeTorn: true }).join(), /line 1 is no whole record/);
});
