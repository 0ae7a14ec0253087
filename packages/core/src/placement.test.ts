import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { type ConfigRule, findFailback, type NodeView, place, type ServerView, spread } from "./placement.ts";

const node = (name: string, changed: Partial<NodeView> = {}): NodeView => ({
  name,
  isUp: true,
  isPaused: false,
  isQuarantined: false,
  configHash: "same",
  ...changed,
});
const server = (name: string, changed: Partial<ServerView> = {}): ServerView => ({
  name,
  owner: null,
  preferredOwners: [],
  possibleOwners: [],
  antiAffinity: [],
  weight: 1,
  ...changed,
});
const CONFIG: ConfigRule = { expectedHash: "same", policy: "block" };
const names = (candidates: readonly { readonly node: string }[]) => candidates.map((each) => each.node);
const NODES = [node("a"), node("b"), node("c")];

test("the most preferred that can own everything goes first, then the least loaded", () => {
  const others = [server("x", { owner: "a", weight: 3 }), server("y", { owner: "b", weight: 1 })];
  assert.deepEqual(names(place(server("s"), NODES, others, CONFIG).candidates), ["c", "b", "a"]);
  const preferring = server("s", { preferredOwners: ["a"] });
  assert.deepEqual(names(place(preferring, NODES, others, CONFIG).candidates), ["a", "c", "b"]);
  const bound = server("s", {
    possibleOwners: [
      ["a", "b"],
      ["b", "c"],
    ],
  });
  assert.deepEqual(names(place(bound, NODES, others, CONFIG).candidates), ["b"]);
});

test("who is no candidate is named with the reason", () => {
  const nodes = [
    node("down", { isUp: false }),
    node("paused", { isPaused: true }),
    node("out", { isQuarantined: true }),
    node("old", { configHash: "0123456789abcdef" }),
    node("new", { configHash: null }),
    node("unfit"),
    node("failed"),
  ];
  const bound = server("s", {
    possibleOwners: [nodes.map(({ name }) => name).filter((name) => name !== "unfit")],
  });
  const { candidates, rejected } = place(bound, nodes, [], CONFIG, ["failed"]);
  assert.deepEqual(candidates, []);
  assert.deepEqual(
    rejected.map(({ node, why }) => `${node} ${why}`),
    [
      "down down",
      "paused paused",
      "out quarantined",
      "old config-differs",
      "new config-unknown",
      "unfit not-possible",
      "failed excluded",
    ],
  );
  assert.match(rejected[3]?.detail ?? "", /is 0123456789ab, the cluster's same$/);
  const warned = place(bound, [node("old", { configHash: "other" })], [], { ...CONFIG, policy: "warn" });
  assert.match(warned.candidates[0]?.warning ?? "", /is other/);
});

test("a paused node keeps what it has", () => {
  const paused = [node("a", { isPaused: true }), node("b")];
  assert.deepEqual(names(place(server("s", { owner: "a" }), paused, [], CONFIG).candidates), ["a", "b"]);
});

test("those who should be apart are, unless no other node is left", () => {
  const other = server("x", { owner: "a", antiAffinity: ["db"] });
  const mine = server("s", { antiAffinity: ["db"], preferredOwners: ["a", "b"] });
  const placed = place(mine, NODES, [other], CONFIG).candidates;
  assert.deepEqual(names(placed), ["b", "c", "a"]);
  assert.deepEqual(placed[2]?.together, ["x"]);
  assert.deepEqual(names(place(mine, [node("a")], [other], CONFIG).candidates), ["a"]);
});

test("goes back only if allowed, to a better node, in its hours", () => {
  const back = (
    changed: Partial<ServerView>,
    allowed: boolean,
    hour: number,
    window: [number, number] | null,
  ) => {
    const mine = server("s", { owner: "b", preferredOwners: ["a", "b"], ...changed });
    const hours = window === null ? null : { fromHour: window[0], toHour: window[1] };
    return findFailback(mine, place(mine, NODES, [], CONFIG), { allowed, window: hours }, hour);
  };
  assert.equal(back({}, true, 12, null), "a");
  assert.equal(back({}, false, 12, null), null);
  assert.equal(back({ owner: "a" }, true, 12, null), null);
  assert.equal(back({ preferredOwners: [] }, true, 12, null), null);
  assert.equal(back({ owner: "c" }, true, 12, null), "a");
  assert.deepEqual(
    [21, 22, 23, 0, 1, 2].map((hour) => back({}, true, hour, [22, 2])),
    [null, "a", "a", "a", "a", null],
  );
  assert.deepEqual(
    [1, 2, 3, 4].map((hour) => back({}, true, hour, [2, 4])),
    [null, "a", "a", null],
  );
  assert.deepEqual(
    [4, 5, 6].map((hour) => back({}, true, hour, [5, 5])),
    [null, "a", null],
  );
});

const view = fc.record({
  isUp: fc.boolean(),
  isPaused: fc.boolean(),
  isQuarantined: fc.boolean(),
  configHash: fc.constantFrom("same", "other", null),
});
const cluster = fc
  .array(view, { minLength: 1, maxLength: 4 })
  .map((views) => views.map((each, index) => ({ name: `n${index}`, ...each })));
const wishes = fc.array(
  fc.record({
    weight: fc.integer({ min: 1, max: 5 }),
    preferredOwners: fc.uniqueArray(fc.constantFrom("n0", "n1", "n2", "n3"), { maxLength: 3 }),
    antiAffinity: fc.uniqueArray(fc.constantFrom("x", "y"), { maxLength: 1 }),
  }),
  { maxLength: 6 },
);

test("every node is a candidate or rejected, never both, and all nodes compute one order", () => {
  fc.assert(
    fc.property(cluster, wishes, (nodes, drawn) => {
      const servers = drawn.map((wish, index) => server(`s${index}`, wish));
      for (const each of servers) {
        const { candidates, rejected } = place(each, nodes, servers, CONFIG);
        assert.deepEqual(
          [...names(candidates), ...names(rejected)].sort(),
          nodes.map(({ name }) => name).sort(),
        );
        for (const { node: name } of candidates) {
          const found = nodes.find((one) => one.name === name);
          assert.ok(found?.isUp === true && !found.isPaused && found.configHash === "same");
        }
        assert.deepEqual(
          names(place(each, [...nodes].reverse(), [...servers].reverse(), CONFIG).candidates),
          names(candidates),
        );
      }
    }),
  );
});

test("spreading leaves nobody without a node who could have one, and loads evenly", () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 1, max: 9 }), { maxLength: 12 }), (weights) => {
      const servers = weights.map((weight, index) => server(`s${index}`, { weight }));
      const placed = spread(servers, NODES, CONFIG);
      const loads = NODES.map(({ name }) =>
        servers.filter((each) => placed.get(each.name) === name).reduce((sum, { weight }) => sum + weight, 0),
      );
      assert.equal(
        loads.reduce((sum, load) => sum + load, 0),
        weights.reduce((sum, weight) => sum + weight, 0),
      );
      assert.ok(Math.max(...loads) - Math.min(...loads) <= Math.max(0, ...weights));
    }),
  );
  assert.equal(spread([server("s")], [node("a", { isUp: false })], CONFIG).get("s"), null);
});
