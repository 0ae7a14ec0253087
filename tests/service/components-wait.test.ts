import assert from "node:assert/strict";
import { test } from "node:test";
import type { ProcessDetail, StepDetail } from "@lockstep/protocol";
import type { StepHub } from "../../packages/service/src/components/types.ts";
import { aStep, QUEUE, run } from "./one-step.ts";

/** What a hub says about a process with one step. */
function hubWith(
  id: number,
  state: ProcessDetail["process"]["state"],
  step: Partial<StepDetail> = {},
  holds: readonly number[] = [],
): StepHub {
  const detail: ProcessDetail = {
    process: {
      id,
      name: "nightly",
      template: null,
      state,
      priority: 5,
      createdAt: 0,
      finishedAt: null,
      steps: {},
      startedBy: "x",
    },
    parameters: {},
    steps: [
      {
        id: 7,
        process: id,
        name: "s",
        component: "Wait",
        task: "Delay",
        queue: QUEUE,
        execution: "internal",
        state: "processing",
        outcome: null,
        priority: 5,
        parameters: {},
        output: {},
        onSuccess: [],
        onError: [],
        readyAt: null,
        errors: 0,
        crashes: 0,
        message: "",
        runs: [],
        ...step,
      },
    ],
  };
  return {
    process: async (asked) => (asked === id ? detail : null),
    summary: async (asked) => (asked === id ? detail.process : null),
    holdsStep: (asked) => holds.includes(asked),
  };
}
const runOf = (claim: number, claimedAt: number, outcome: "deferred" | null) => ({
  claim,
  attempt: 1,
  queue: QUEUE,
  machine: "m",
  claimedAt,
  startedAt: null,
  endedAt: null,
  outcome,
  message: "",
});

test("a delay defers until its time has passed, by what the hub says, and holds nothing meanwhile", async (t) => {
  const wait = (waitedMs: number) => run(t, aStep("Wait.Delay", { seconds: 10 }, { waitedMs }));
  const first = await wait(0);
  assert.deepEqual([first.outcome, first.deferMs], ["deferred", 10_000]);
  assert.equal((await wait(4_000)).deferMs, 6_000);
  assert.equal((await wait(10_000)).outcome, "success");
  const unknown = await run(t, aStep("Wait.Delay", { seconds: 10 }));
  assert.deepEqual([unknown.outcome, unknown.permanent], ["error", true]);
});

test("until a moment: deferred before it, done after it, and a time without a zone is none", async (t) => {
  assert.equal((await run(t, aStep("Wait.Until", { time: "2020-01-01T00:00:00Z" }))).outcome, "success");
  const later = await run(t, aStep("Wait.Until", { time: new Date(Date.now() + 3_600_000).toISOString() }));
  assert.equal(later.outcome, "deferred");
  assert.ok((later.deferMs ?? 0) > 3_000_000 && (later.deferMs ?? 0) <= 3_600_000);
  for (const time of ["2031-05-01T04:00:00", "tomorrow", "2031-13-01T00:00:00Z"])
    assert.match((await run(t, aStep("Wait.Until", { time }))).message, /must be a time/);
});

test("another process is waited for; how it ended decides", async (t) => {
  const wait = (state: ProcessDetail["process"]["state"], parameters: object = {}) =>
    run(t, aStep("Wait.Process", { process: 9, ...parameters }), { hub: hubWith(9, state) });
  assert.deepEqual(
    [(await wait("running")).deferMs, (await wait("stuck", { pollSeconds: 60 })).deferMs],
    [15_000, 60_000],
  );
  assert.deepEqual((await wait("finished")).output, { process: 9, state: "finished" });
  const failed = await wait("failed");
  assert.deepEqual([failed.outcome, failed.permanent], ["error", true]);
  assert.equal((await wait("failed", { expect: "failed" })).outcome, "success");
  assert.equal((await wait("cancelled", { expect: "any" })).outcome, "success");
  const unknown = await run(t, aStep("Wait.Process", { process: 10 }), { hub: hubWith(9, "finished") });
  assert.match(unknown.message, /knows no process 10/);
  const itself = await run(t, aStep("Wait.Process", { process: 3 }), { hub: hubWith(3, "running") });
  assert.match(itself.message, /waits for itself/);
});

test("a check says what the hub believes and what this server has in hand", async (t) => {
  const check = (holds: readonly number[], more: object = {}) =>
    run(t, aStep("JobCheck.Check", { process: 3, step: 7, ...more }), {
      hub: hubWith(3, "running", { runs: [runOf(70, 0, null)] }, holds),
    });
  assert.deepEqual((await check([7])).output, {
    knownByHub: true,
    knownByServer: true,
    state: "processing",
    missing: false,
  });
  const lost = await check([], { fail: true });
  assert.deepEqual([lost.outcome, lost.output.missing], ["error", true]);
  assert.deepEqual((await check([], { step: 8 })).output, {
    knownByHub: false,
    knownByServer: false,
    state: null,
    missing: false,
  });
});

test("an update step never runs as a component", async (t) => {
  const ended = await run(t, aStep("AutoUpdate.CheckAndUpdate", { revision: 5 }));
  assert.deepEqual([ended.outcome, ended.permanent], ["error", true]);
});
