import assert from "node:assert/strict";
import { test } from "node:test";
import { findHistoryFaults, type HistoryMark, type HistoryStep } from "./job-history.ts";

const step = (name: string, more: Partial<HistoryStep> = {}): HistoryStep => ({
  process: 1,
  name,
  after: [],
  onCrash: "rerun",
  state: "finished",
  outcome: "success",
  runs: ["success"],
  ...more,
});
const marks = (...words: string[]): HistoryMark[] =>
  words.map((word) => ({ process: 1, name: word.slice(1), kind: word[0] === "+" ? "begun" : "done" }));

const CHAIN = [step("a"), step("b", { after: ["a"] })];

test("what is allowed is found right", () => {
  assert.deepEqual(findHistoryFaults(CHAIN, marks("+a", "-a", "+b", "-b")), []);
  // Begun, killed, run again; done, and the word of it lost.
  const again = [step("a", { runs: ["lost", "success"] })];
  assert.deepEqual(findHistoryFaults(again, marks("+a", "+a", "-a")), []);
  assert.deepEqual(findHistoryFaults(again, marks("+a", "-a", "+a", "-a")), []);
  const frozen = step("f", { onCrash: "freeze", state: "frozen", outcome: null, runs: ["lost"] });
  assert.deepEqual(findHistoryFaults([frozen], marks("+f")), []);
  assert.deepEqual(findHistoryFaults([frozen], []), []);
});

const BROKEN: readonly [string, readonly HistoryStep[], readonly HistoryMark[]][] = [
  ["a lost step", [step("a", { state: "ready", outcome: null, runs: ["lost"] })], marks("+a")],
  [
    "a step that is worked on for ever",
    [step("a", { state: "processing", outcome: null, runs: [null] })],
    marks("+a"),
  ],
  [
    "a result that was counted twice",
    [step("a", { runs: ["success", "success"] })],
    marks("+a", "-a", "+a", "-a"),
  ],
  ["an order that was not kept", CHAIN, marks("+a", "+b", "-a", "-b")],
  ["a successor of nothing", CHAIN, marks("+b", "-b", "+a", "-a")],
  ["a result without work", [step("a")], marks("+a")],
  ["a finished step without a result", [step("a", { runs: ["lost"] })], marks("+a", "-a")],
  ["a step twice that must not", [step("a", { onCrash: "freeze" })], marks("+a", "+a", "-a")],
  [
    "a frozen step that may be rerun",
    [step("a", { state: "frozen", outcome: null, runs: ["lost"] })],
    marks("+a"),
  ],
  ["work that nobody asked for", [step("a")], marks("+a", "-a", "+x")],
];
for (const [name, steps, history] of BROKEN)
  test(`the checker finds ${name}`, () => {
    assert.notDeepEqual(findHistoryFaults(steps, history), []);
  });
