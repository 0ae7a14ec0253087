import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import {
  allPredecessors,
  backOffMs,
  type ClaimOptions,
  decideClaims,
  orderTasks,
  type ProcessingTask,
  type QueueState,
  type TaskDefinition,
  type WaitingTask,
} from "./dbqueue.ts";

const NOW = 1_000_000;

function define(task: string, more: Partial<TaskDefinition> = {}): TaskDefinition {
  return { task, bulk: false, maxInstance: 1, predecessors: [], ...more };
}

function waiting(id: number, task: string, more: Partial<WaitingTask> = {}): WaitingTask {
  return { id, task, object: "", subObject: "", attempts: 0, notBefore: null, idleFrom: null, ...more };
}

function processing(task: string, more: Partial<ProcessingTask> = {}): ProcessingTask {
  return { task, object: "", subObject: "", claim: "c", ...more };
}

function decide(state: Partial<QueueState>, options: Partial<ClaimOptions> = {}) {
  const full = { definitions: [], waiting: [], processing: [], stopped: false, ...state };
  return decideClaims(full, NOW, {
    slots: 8,
    capable: new Set(full.definitions.map(({ task }) => task)),
    blockingAttempts: 3,
    bulkRowsMax: 100,
    ...options,
  });
}

const claimed = (decision: ReturnType<typeof decide>) => decision.claims.flatMap(({ ids }) => ids);
const FOLLOWER = [define("archive"), define("revision", { predecessors: ["archive"] })];

test("a follower waits while a predecessor waits", () => {
  const decision = decide({
    definitions: FOLLOWER,
    waiting: [waiting(1, "revision"), waiting(2, "archive")],
  });
  assert.deepEqual(claimed(decision), [2]);
  assert.deepEqual(decision.blocked.get("revision"), { kind: "predecessor", task: "archive" });
});

test("a follower waits while a predecessor is being processed", () => {
  const decision = decide({
    definitions: FOLLOWER,
    waiting: [waiting(1, "revision")],
    processing: [processing("archive")],
  });
  assert.deepEqual(claimed(decision), []);
});

test("a predecessor of a predecessor holds up as well, also when the one between is not queued", () => {
  const definitions = [
    define("a"),
    define("b", { predecessors: ["a"] }),
    define("c", { predecessors: ["b"] }),
  ];
  assert.deepEqual(claimed(decide({ definitions, waiting: [waiting(1, "c"), waiting(2, "a")] })), [2]);
});

test("a failing predecessor holds up its follower for three tries and then only when it is due", () => {
  const put = (attempts: number, notBefore: number | null) =>
    decide({
      definitions: FOLLOWER,
      waiting: [waiting(1, "archive", { attempts, notBefore }), waiting(2, "revision")],
    });
  assert.deepEqual(claimed(put(2, NOW + 1)), []);
  assert.deepEqual(claimed(put(3, NOW + 1)), [2]);
  assert.deepEqual(claimed(put(3, NOW)), [1]);
});

test("the emergency stop stops everything and says so", () => {
  const decision = decide({ definitions: FOLLOWER, waiting: [waiting(1, "archive")], stopped: true });
  assert.deepEqual(claimed(decision), []);
  assert.deepEqual(decision.blocked.get("archive"), { kind: "stopped" });
});

test("a task that nobody here can run waits, and does not hold up others", () => {
  const decision = decide({
    definitions: [define("known")],
    waiting: [waiting(1, "unknown"), waiting(2, "known")],
  });
  assert.deepEqual(claimed(decision), [2]);
  assert.deepEqual(decision.blocked.get("unknown"), { kind: "no-procedure" });
});

test("not more runs at once than the task allows, counted over all hubs", () => {
  const definitions = [define("t", { maxInstance: 2 })];
  const rows = [1, 2, 3].map((id) => waiting(id, "t", { object: `o${id}` }));
  assert.deepEqual(claimed(decide({ definitions, waiting: rows })), [1, 2]);
  const busy = [processing("t", { object: "x", claim: "x" })];
  const decision = decide({ definitions, waiting: rows, processing: busy });
  assert.deepEqual(claimed(decision), [1]);
  assert.deepEqual(decision.blocked.get("t"), { kind: "instances", max: 2 });
});

test("the same object is never processed twice at once", () => {
  const definitions = [define("t", { maxInstance: 9 })];
  const decision = decide({
    definitions,
    waiting: [waiting(1, "t", { object: "o" }), waiting(2, "t", { object: "p" })],
    processing: [processing("t", { object: "o" })],
  });
  assert.deepEqual(claimed(decision), [2]);
});

test("a bulk task takes all fresh rows at once, and those that failed one by one", () => {
  const definitions = [define("t", { bulk: true, maxInstance: 9 })];
  const rows = [1, 2, 3, 4].map((id) => waiting(id, "t", { object: `o${id}`, attempts: id === 3 ? 1 : 0 }));
  assert.deepEqual(
    decide({ definitions, waiting: rows }).claims.map(({ ids }) => ids),
    [[1, 2, 4], [3]],
  );
});

test("a deferred task returns when its time has come", () => {
  const state = {
    definitions: [define("t")],
    waiting: [waiting(1, "t", { notBefore: NOW + 5, attempts: 1 })],
  };
  const decision = decide(state);
  assert.deepEqual(claimed(decision), []);
  assert.equal(decision.nextDueAt, NOW + 5);
  assert.deepEqual(decision.blocked.get("t"), { kind: "deferred", until: NOW + 5 });
});

test("a deferred task returns early to an empty queue, and only to that (behaviour 80)", () => {
  const deferred = waiting(1, "t", { notBefore: NOW + 50_000, idleFrom: NOW, attempts: 1 });
  const definitions = [define("t"), define("other")];
  assert.deepEqual(claimed(decide({ definitions, waiting: [deferred] })), [1]);
  assert.deepEqual(claimed(decide({ definitions, waiting: [deferred, waiting(2, "other")] })), [2]);
  assert.deepEqual(
    claimed(decide({ definitions, waiting: [deferred], processing: [processing("other")] })),
    [],
  );
  // A task that nobody can run does not count as work.
  assert.deepEqual(claimed(decide({ definitions, waiting: [deferred, waiting(2, "unknown")] })), [1]);
});

test("rows that cannot be had are left, and still hold up their followers", () => {
  const decision = decide(
    { definitions: FOLLOWER, waiting: [waiting(1, "archive"), waiting(2, "revision")] },
    { unavailable: new Set([1]) },
  );
  assert.deepEqual(claimed(decision), []);
});

test("the order is one more than the highest predecessor, and circles are found", () => {
  const order = orderTasks([
    define("c", { predecessors: ["a", "b"] }),
    define("b", { predecessors: ["a"] }),
    define("a"),
  ]);
  assert.deepEqual(order.kind === "order" && [...order.order].sort(), [
    ["a", 1],
    ["b", 2],
    ["c", 3],
  ]);
  const circle = orderTasks([define("x", { predecessors: ["y"] }), define("y", { predecessors: ["x"] })]);
  assert.equal(circle.kind, "cycle");
});

test("the back-off doubles up to its limit", () => {
  const limits = { baseMs: 1_000, maxMs: 60_000 };
  assert.deepEqual(
    [1, 2, 3, 7, 1_000].map((attempts) => backOffMs(attempts, limits)),
    [1_000, 2_000, 4_000, 60_000, 60_000],
  );
});

/** Random queues: tasks t0 to t4, each may have earlier ones as predecessors, so there is no circle. */
const queues = fc
  .array(
    fc.record({
      bulk: fc.boolean(),
      maxInstance: fc.integer({ min: 1, max: 3 }),
      predecessors: fc.uniqueArray(fc.integer({ min: 0, max: 4 }), { maxLength: 3 }),
    }),
    { minLength: 1, maxLength: 5 },
  )
  .chain((shapes) => {
    const definitions = shapes.map((shape, index) => ({
      task: `t${index}`,
      bulk: shape.bulk,
      maxInstance: shape.maxInstance,
      predecessors: shape.predecessors.filter((other) => other < index).map((other) => `t${other}`),
    }));
    const task = fc.constantFrom(...definitions.map((definition) => definition.task));
    const time = fc.option(fc.integer({ min: NOW - 2, max: NOW + 2 }));
    const row = fc.record({
      task,
      object: fc.constantFrom("a", "b", "c", "d"),
      subObject: fc.constant(""),
      attempts: fc.integer({ min: 0, max: 4 }),
      notBefore: time,
      idleFrom: time,
    });
    const running = fc.record({
      task,
      object: fc.constantFrom("a", "b"),
      subObject: fc.constant(""),
      claim: fc.constantFrom("x", "y"),
    });
    return fc.record({
      definitions: fc.constant(definitions),
      waiting: fc
        .uniqueArray(row, { maxLength: 12, selector: (one) => `${one.task} ${one.object}` })
        .map((rows) => rows.map((one, index) => ({ ...one, id: index + 1 }))),
      processing: fc.uniqueArray(running, { maxLength: 2, selector: (one) => `${one.task} ${one.object}` }),
      stopped: fc.constant(false),
    });
  });

test("whatever the queue, the rules hold for what is claimed", () => {
  fc.assert(
    fc.property(queues, fc.integer({ min: 0, max: 6 }), (state, slots) => {
      const { claims } = decide(state, { slots });
      const rows = new Map(state.waiting.map((row) => [row.id, row]));
      const ids = claims.flatMap((claim) => claim.ids);
      assert.ok(claims.length <= slots);
      assert.equal(new Set(ids).size, ids.length);
      const predecessors = allPredecessors(state.definitions);
      for (const { task, ids: taken } of claims) {
        const definition = state.definitions.find((one) => one.task === task);
        assert.ok(definition !== undefined && taken.length > 0);
        if (!definition.bulk) assert.equal(taken.length, 1);
        const busy = state.processing.filter((row) => row.task === task);
        const instances = new Set(busy.map((row) => row.claim)).size;
        assert.ok(instances + claims.filter((claim) => claim.task === task).length <= definition.maxInstance);
        for (const id of taken) {
          const row = rows.get(id);
          assert.equal(row?.task, task);
          assert.ok(!busy.some((one) => one.object === row?.object));
        }
        for (const predecessor of predecessors.get(task) ?? []) {
          assert.ok(!state.processing.some((row) => row.task === predecessor));
          for (const row of state.waiting.filter((one) => one.task === predecessor)) {
            assert.ok(row.notBefore !== null && row.notBefore > NOW && row.attempts >= 3);
          }
        }
      }
    }),
    { numRuns: 2_000 },
  );
});

test("whatever the queue, it does not stand still: with a free slot something due always starts", () => {
  fc.assert(
    fc.property(queues, (state) => {
      const idle = { ...state, processing: [] };
      const due = idle.waiting.some((row) => row.notBefore === null || row.notBefore <= NOW);
      const { claims, nextDueAt } = decide(idle, { slots: 1 });
      // What is put off may hold up what is due, but then there is a time at which it comes back.
      if (due) assert.ok(claims.length > 0 || nextDueAt !== null);
    }),
    { numRuns: 2_000 },
  );
});
