import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import {
  type Dependency,
  findDependencyFaults,
  formatDependency,
  isFulfilled,
  onlineOrder,
  parseDependency,
  providersOf,
} from "./resource-dependency.ts";

const read = (text: string) => {
  const parsed = parseDependency(text);
  return parsed.ok ? parsed.dependency : `${parsed.at}: ${parsed.problem}`;
};

test("reads an AND of OR groups and nothing else", () => {
  assert.deepEqual(read(""), []);
  assert.deepEqual(read(" [disk] "), [["disk"]]);
  assert.deepEqual(read("[a] or [b]"), [["a", "b"]]);
  assert.deepEqual(read("([ip one] OR [ip two]) and [disk] AND ([x])"), [
    ["ip one", "ip two"],
    ["disk"],
    ["x"],
  ]);
  assert.equal(read("[a] or [b] and [c]"), "11: put brackets around names that are joined by or");
  assert.equal(read("[a] and [b] or [c]"), "12: put brackets around names that are joined by or");
  assert.equal(
    read("([a] and [b]) or [c]"),
    "5: only names joined by or stand in brackets: an AND of OR groups",
  );
  assert.equal(read("disk"), "0: expected a name like [disk], found d");
  assert.equal(read("[a] [b]"), "4: expected and, found [b]".replace("[b]", "b"));
  assert.equal(read("[a] and"), "7: expected a name like [disk], found the end");
  assert.equal(read("([a]"), "4: expected a closing bracket, found the end");
  assert.equal(read("[ ]"), "0: the name is empty");
});

const name = fc.constantFrom("a", "b", "c", "d", "e", "f");
const dependency: fc.Arbitrary<Dependency> = fc.array(fc.array(name, { minLength: 1, maxLength: 3 }), {
  maxLength: 3,
});

test("what is written reads back", () => {
  fc.assert(fc.property(dependency, (drawn) => assert.deepEqual(read(formatDependency(drawn)), drawn)));
});

const graph = fc
  .array(fc.tuple(name, dependency), { maxLength: 6 })
  .map((entries) => new Map<string, Dependency>(entries));

test("a graph is without circles exactly when an order exists, and the order puts providers first", () => {
  fc.assert(
    fc.property(graph, (drawn) => {
      const closed = new Map(
        [...drawn].map(
          ([resource, needs]) =>
            [
              resource,
              needs
                .map((names) => names.filter((each) => drawn.has(each)))
                .filter((names) => names.length > 0),
            ] as const,
        ),
      );
      // The dumb twin: take away whoever needs nobody that is left, until nothing changes.
      const left = new Set(closed.keys());
      for (let size = -1; size !== left.size; ) {
        size = left.size;
        for (const resource of left)
          if (providersOf(closed.get(resource) ?? []).every((provider) => !left.has(provider)))
            left.delete(resource);
      }
      assert.equal(findDependencyFaults(closed).length === 0, left.size === 0);
      if (left.size > 0) return;
      const order = onlineOrder(closed);
      assert.deepEqual([...order].sort(), [...closed.keys()].sort());
      for (const [resource, needs] of closed)
        for (const provider of providersOf(needs))
          assert.ok(order.indexOf(provider) < order.indexOf(resource));
    }),
  );
});

test("names what nobody has, and the whole circle", () => {
  const faults = findDependencyFaults(
    new Map([
      ["service", [["name", "gone"]]],
      ["name", [["address"]]],
      ["address", [["service"]]],
    ]),
  );
  assert.deepEqual(faults, [
    { resource: "service", problem: "needs [gone], which is no resource of this virtual server" },
    { resource: "service", problem: "needs itself: [service] needs [name] needs [address] needs [service]" },
  ]);
});

test("an OR group is fulfilled by one and broken when all are gone", () => {
  const needs: Dependency = [["one", "two"], ["disk"]];
  const online = (...names: string[]) => isFulfilled(needs, (each) => names.includes(each));
  assert.equal(online("one", "disk"), true);
  assert.equal(online("two", "disk"), true);
  assert.equal(online("disk"), false);
  assert.equal(online("one", "two"), false);
});
