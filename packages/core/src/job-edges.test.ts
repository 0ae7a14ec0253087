import assert from "node:assert/strict";
import { suite, test } from "node:test";
import fc from "fast-check";
import { followEdges, type JobSuccessor } from "./job-edges.ts";
import { decideLoss, decideResult, type JobStepEndOutcome } from "./job-step.ts";

/** A process in memory, moved by the decisions alone: what the hub does in tables. */
interface ModelStep extends JobSuccessor {
  state: string;
  outcome: JobStepEndOutcome | null;
  pending: number;
  taken: number;
  errors: number;
  crashes: number;
  losses: number;
  ends: number;
}

interface Shape {
  /** For each step, the later steps that follow a success and an error. */
  readonly onSuccess: readonly (readonly number[])[];
  readonly onError: readonly (readonly number[])[];
}

const SIZE = 12;
const shapes: fc.Arbitrary<Shape> = fc.integer({ min: 1, max: SIZE }).chain((size) => {
  const edges = fc.tuple(
    ...Array.from({ length: size }, (_, index) =>
      index === size - 1
        ? fc.constant<number[]>([])
        : fc.uniqueArray(fc.integer({ min: index + 1, max: size - 1 }), { maxLength: 3 }),
    ),
  );
  return fc.record({ onSuccess: edges, onError: edges });
});

function begin({ onSuccess, onError }: Shape): Map<number, ModelStep> {
  const incoming = [...onSuccess, ...onError].flat();
  return new Map(
    onSuccess.map((_, id) => {
      const pending = incoming.filter((to) => to === id).length;
      return [
        id,
        {
          id,
          onSuccess: onSuccess[id] ?? [],
          onError: onError[id] ?? [],
          pending,
          taken: 0,
          delaySeconds: id % 3 === 0 ? 1 : 0,
          state: pending === 0 ? "ready" : "waiting",
          outcome: null,
          errors: 0,
          crashes: 0,
          losses: 0,
          ends: 0,
        },
      ];
    }),
  );
}

/** Ends a step and follows its edges, handing steps in only when they are asked for. */
function end(steps: Map<number, ModelStep>, step: ModelStep, outcome: JobStepEndOutcome): void {
  step.state = "finished";
  step.outcome = outcome;
  step.ends += 1;
  const known = new Map<number, JobSuccessor>();
  for (;;) {
    const followed = followEdges([{ ...step, outcome }], known);
    if (followed.kind === "unknown") {
      for (const id of followed.ids) {
        assert.ok(!known.has(id), "asked for what it had");
        const found = steps.get(id) ?? assert.fail();
        known.set(id, { ...found });
      }
      continue;
    }
    for (const change of followed.changes) {
      const found = steps.get(change.id) ?? assert.fail();
      assert.equal(found.state, "waiting", "an edge leads to a step that has begun");
      found.pending = change.pending;
      found.taken = change.taken;
      found.state = change.state === "skipped" ? "finished" : change.state;
      if (change.state === "skipped") {
        found.outcome = "skipped";
        found.ends += 1;
      }
    }
    return;
  }
}

function stateOf(steps: Map<number, ModelStep>) {
  const all = [...steps.values()];
  const within = (...states: string[]) => all.some(({ state }) => states.includes(state));
  if (within("ready", "deferred", "loaded", "processing")) return "running";
  if (within("frozen", "missing", "over-limit")) return "stuck";
  const failed = all.some(({ outcome, onError }) => outcome === "error" && onError.length === 0);
  return failed ? "failed" : "finished";
}

suite("what follows a step", () => {
  test("a branch and its join: the way that was not taken is skipped, the join runs once", () => {
    const steps = begin({ onSuccess: [[1], [3], [3], []], onError: [[2], [], [], []] });
    const at = (id: number) => steps.get(id) ?? assert.fail();
    end(steps, at(0), "success");
    assert.deepEqual(
      [1, 2, 3].map((id) => at(id).state),
      ["ready", "finished", "waiting"],
    );
    assert.equal(at(2).outcome, "skipped");
    end(steps, at(1), "success");
    assert.equal(at(3).taken, 1);
    assert.notEqual(at(3).state, "waiting");
  });

  test("random processes with random results and crashes end, or wait for a person, and never hang", () => {
    const rules = fc.record({
      retries: fc.nat(2),
      retryDelaySeconds: fc.nat(1),
      backOff: fc.boolean(),
      ignoreErrors: fc.boolean(),
      freezeOnError: fc.boolean(),
      onCrash: fc.constantFrom("rerun" as const, "freeze" as const),
      crashesMax: fc.integer({ min: 1, max: 3 }),
    });
    const events = fc.constantFrom(
      "success",
      "error",
      "permanent",
      "given-back",
      "deferred",
      "died",
      "forgotten",
    );
    fc.assert(
      fc.property(
        shapes,
        fc.array(rules, { minLength: SIZE, maxLength: SIZE }),
        fc.infiniteStream(events),
        fc.infiniteStream(fc.nat(1000)),
        (shape, rulesOf, results, picks) => {
          const steps = begin(shape);
          let quiet = 0;
          for (let turn = 0; ; turn++) {
            assert.ok(turn < 5_000, "it does not end");
            const open = [...steps.values()].filter(({ state }) => state !== "finished");
            const active = open.filter(({ state }) => ["ready", "deferred"].includes(state));
            const state = stateOf(steps);
            if (active.length === 0) {
              // The heart of it: with nothing left to run there is nothing left, or a person is asked.
              const asked = open.some(({ state: each }) => each === "frozen" || each === "missing");
              assert.equal(state === "stuck", asked);
              if (!asked) assert.equal(open.length, 0, "steps wait for ever");
              else if (open.every(({ state: each }) => each === "waiting")) assert.fail("nobody is asked");
              if (!asked) break;
              for (const step of open.filter(({ state: each }) => each !== "waiting"))
                end(steps, step, quiet++ % 2 === 0 ? "success" : "error");
              continue;
            }
            assert.equal(state, "running");
            const step = active[(picks.next().value ?? 0) % active.length] ?? assert.fail();
            const claimed = {
              ...(rulesOf[step.id] ?? assert.fail()),
              errors: step.errors,
              crashes: step.crashes,
              losses: step.losses,
              state: (picks.next().value ?? 0) % 2 === 0 ? ("loaded" as const) : ("processing" as const),
            };
            // Whoever gives back for ever never ends; the model becomes serious after a while.
            const event = turn > 300 ? "permanent" : results.next().value;
            const next =
              event === "died"
                ? decideLoss(claimed, "service-ended")
                : event === "forgotten"
                  ? decideLoss(claimed, "unknown-to-service")
                  : event === "permanent"
                    ? decideResult(claimed, { outcome: "error", permanent: true })
                    : decideResult(claimed, { outcome: event ?? "success", deferMs: 5 });
            step.errors = next.errors;
            step.crashes = next.crashes;
            step.losses = next.losses;
            if (next.outcome === null) step.state = next.state;
            else end(steps, step, next.outcome);
          }
          for (const step of steps.values()) {
            assert.equal(step.ends, 1, "each step ends once");
            assert.equal(step.pending, 0, "each edge is decided");
            if (step.outcome === "skipped") assert.equal(step.taken, 0);
          }
          const failed = [...steps.values()].some(
            ({ outcome, onError }) => outcome === "error" && onError.length === 0,
          );
          assert.equal(stateOf(steps), failed ? "failed" : "finished");
        },
      ),
      { numRuns: 300 },
    );
  });
});
