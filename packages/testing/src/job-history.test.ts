import assert from "node:assert/strict";
import test from "node:test";
import type { ProcessDetail, StepDetail, StepRun } from "@lockstep/protocol";
import { type Effect, type JobHistory, judgeHistory } from "./job-history.ts";

const run = (claim: number, outcome: StepRun["outcome"]): StepRun => ({
  claim,
  attempt: 1,
  queue: "\\A",
  machine: "a",
  claimedAt: claim,
  startedAt: claim,
  endedAt: outcome === null ? null : claim + 1,
  outcome,
  message: "",
});

function step(id: number, change: Partial<StepDetail>): StepDetail {
  return {
    id,
    process: 1,
    name: `step ${id}`,
    component: "Command",
    task: "Run",
    queue: "\\A",
    execution: "internal",
    state: "finished",
    outcome: "success",
    priority: 8,
    parameters: {},
    output: {},
    onSuccess: [],
    onError: [],
    readyAt: null,
    errors: 0,
    crashes: 0,
    message: "",
    runs: [],
    ...change,
  };
}

function history(
  steps: readonly StepDetail[],
  effects: readonly Effect[],
  change: { state?: ProcessDetail["process"]["state"]; freeze?: number; exclusive?: number[] } = {},
): JobHistory {
  return {
    processes: [
      {
        process: {
          id: 1,
          name: "nightly",
          template: "nightly",
          state: change.state ?? "finished",
          priority: 8,
          createdAt: 0,
          finishedAt: 1,
          steps: {},
          startedBy: "",
        },
        parameters: {},
        steps: [...steps],
      },
    ],
    effects,
    declared: (_, { id }) => ({
      onCrash: id === change.freeze ? "freeze" : "rerun",
      exclusiveObject: change.exclusive?.includes(id) === true ? "ledger" : null,
    }),
  };
}

const ran = (id: number, claim: number, from = claim, to: number | null = claim + 0.5): Effect => ({
  step: id,
  claim,
  from,
  to,
});

/** Two steps, the first tried twice because its service died. */
const first = step(1, { onSuccess: [2], onError: [3], runs: [run(1, "lost"), run(2, "success")] });
const second = step(2, { runs: [run(3, "success")] });
const skipped = step(3, { outcome: "skipped" });
const effects = [ran(1, 1, 1, null), ran(1, 2), ran(2, 3)];

test("a sound history has nothing wrong with it", () => {
  assert.deepEqual(judgeHistory(history([first, second, skipped], effects)), []);
});

const broken: readonly [string, RegExp, JobHistory][] = [
  [
    "a step that nobody works on any more",
    /step 2 .* is lost/,
    history(
      [first, { ...second, state: "processing", outcome: null, runs: [run(3, null)] }, skipped],
      effects,
      {
        state: "running",
      },
    ),
  ],
  [
    "a result that was recorded twice",
    /2 results that say success/,
    history([{ ...first, runs: [run(1, "success"), run(2, "success")] }, second, skipped], effects),
  ],
  [
    "a result of a claim that a newer one had replaced",
    /completed by claim 1, but 2 is newer/,
    history([{ ...first, runs: [run(1, "success"), run(2, "lost")] }, second, skipped], effects),
  ],
  [
    "a successor that did not wait",
    /step 2 began before step 1/,
    history(
      [{ ...first, runs: [run(1, "lost"), run(4, "success")] }, second, skipped],
      [ran(1, 1, 1, null), ran(1, 4), ran(2, 3)],
    ),
  ],
  [
    "a branch that was not taken and ran",
    /step 3 was skipped and ran/,
    history([first, second, { ...skipped, runs: [run(4, "success")] }], [...effects, ran(3, 4)]),
  ],
  [
    "a branch that was taken and did not run",
    /step 2 was skipped although step 1 leads to it/,
    history([first, step(2, { outcome: "skipped" }), skipped], effects.slice(0, 2)),
  ],
  [
    "a result without a run",
    /result of claim 3, under which it never ran/,
    history([first, second, skipped], effects.slice(0, 2)),
  ],
  [
    "work without a claim",
    /claim 9, which nobody gave/,
    history([first, second, skipped], [...effects, ran(2, 9)]),
  ],
  [
    "one claim that was worked on twice",
    /claim 3 was run 2 times/,
    history([first, second, skipped], [...effects, ran(2, 3)]),
  ],
  [
    "a claim that was used for another step",
    /claim 3 of step 2 was used to run step 1/,
    history([first, second, skipped], [...effects.slice(0, 2), ran(1, 3), ran(2, 3)]),
  ],
  [
    "a step that must not run twice and did",
    /must not run twice and ran 2 times/,
    history([first, second, skipped], effects, { freeze: 1 }),
  ],
  [
    "two steps that had one object at once",
    /steps 1 and 2 had ledger at the same time/,
    history([first, second, skipped], [ran(1, 1, 1, null), ran(1, 2, 2, 5), ran(2, 3, 4, 6)], {
      exclusive: [1, 2],
    }),
  ],
  [
    "a process that says it runs when all is done",
    /is running although all its steps are finished/,
    history([first, second, skipped], effects, { state: "running" }),
  ],
  [
    "an open claim on a finished step",
    /one of its claims is still open/,
    history([{ ...first, runs: [run(1, null), run(2, "success")] }, second, skipped], effects),
  ],
];

for (const [what, problem, found] of broken)
  test(`found: ${what}`, () => {
    assert.match(judgeHistory(found).join("\n"), problem);
  });
