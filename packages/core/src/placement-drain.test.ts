import assert from "node:assert/strict";
import test from "node:test";
import type { ConfigRule, NodeView, ServerView } from "./placement.ts";
import { planDrain } from "./placement-drain.ts";
import { DEFAULT_QUARANTINE, judgeQuarantine } from "./placement-quarantine.ts";

const CONFIG: ConfigRule = { expectedHash: null, policy: "block" };
const node = (name: string, isPaused = false): NodeView => ({
  name,
  isUp: true,
  isPaused,
  isQuarantined: false,
  configHash: null,
});
const server = (name: string, owner: string, weight: number, only: string[] | null = null): ServerView => ({
  name,
  owner,
  preferredOwners: [],
  possibleOwners: only === null ? [] : [only],
  antiAffinity: [],
  weight,
});

test("a drain moves everything, spread by load, and says what has nowhere to go", () => {
  const servers = [
    server("small", "a", 1),
    server("big", "a", 5),
    server("middle", "a", 3),
    server("bound", "a", 1, ["a"]),
    server("there", "c", 4),
  ];
  const nodes = [node("a"), node("b"), node("c")];
  const moves = planDrain("a", servers, nodes, CONFIG);
  assert.deepEqual(
    moves.map(({ server, to }) => [server, to]),
    [
      ["big", "b"],
      ["middle", "c"],
      ["bound", null],
      ["small", "b"],
    ],
  );
  assert.deepEqual(
    moves[2]?.rejected.map(({ node, why }) => `${node} ${why}`),
    ["a excluded", "b not-possible", "c not-possible"],
  );
  assert.deepEqual(
    planDrain("a", servers, nodes, CONFIG, "c").map(({ to }) => to),
    ["c", "c", null, "c"],
  );
  assert.deepEqual(
    planDrain("a", servers, [node("a"), node("b", true)], CONFIG).map(({ to }) => to),
    [null, null, null, null],
  );
});

test("a node that drops out three times in an hour is kept out for two, but never too many at once", () => {
  const minute = 60_000;
  const judge = (exits: number[], nodes = 3, outNow = 0) =>
    judgeQuarantine(exits, 100 * minute, nodes, outNow);
  assert.equal(judge([60 * minute, 80 * minute, 100 * minute]), 100 * minute + DEFAULT_QUARANTINE.outMs);
  assert.equal(judge([40 * minute, 80 * minute, 100 * minute]), null);
  const often = [98 * minute, 99 * minute, 100 * minute];
  assert.equal(judge(often, 3, 1), null);
  assert.notEqual(judge(often, 8, 1), null);
  assert.equal(judge(often, 8, 2), null);
  assert.equal(judge(often, 1), null);
});
