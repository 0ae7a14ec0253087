import assert from "node:assert/strict";
import test from "node:test";
import { judgeVotes, type Vote } from "./lease-votes.ts";

const votes = (...nodes: (string | null)[]): Vote[] =>
  nodes.map((onNode, index) => ({ name: `vote ${index + 1}`, onNode }));

test("a cluster replaces a lost owner by itself only where no node takes the majority along", () => {
  const judged = (nodes: string[], ...on: (string | null)[]) => judgeVotes(nodes, votes(...on)).automatic;
  assert.equal(judged(["a", "b"], "a", "b"), false);
  assert.equal(judged(["a", "b"], "a"), false);
  assert.equal(judged(["a", "b"], "a", "b", "a"), false);
  assert.equal(judged(["a", "b"], "a", "b", null), true);
  assert.equal(judged(["a", "b"], null), true);
  assert.equal(judged(["a", "b", "c"], "a", "b", "c"), true);
  assert.equal(judged(["a", "b", "c"], "a", "a", "c"), false);
  assert.equal(judged(["a", "b", "c", "d"], "a", "b", "c", "d"), true);
  assert.equal(judged(["a"], null, null, null), true);
  assert.equal(judged(["a", "b", "c"]), false);
});

test("says which node would take it along, and what to do", () => {
  const { fatalNodes, advice } = judgeVotes(["a", "b"], votes("a", "b"));
  assert.deepEqual(fatalNodes, ["a", "b"]);
  assert.match(advice ?? "", /third vote/);
});
