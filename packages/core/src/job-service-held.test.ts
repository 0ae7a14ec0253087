import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { HeldClaims } from "./job-service-held.ts";
import type { Held, HeldStage } from "./job-service-types.ts";

const stages: readonly HeldStage[] = ["queued", "confirming", "running", "ended"];
const journals = ["none", "asked", "safe"] as const;

/** What is done to the claims: set one, with these properties, or drop it. */
const change = fc.record({
  claim: fc.integer({ min: 1, max: 20 }),
  stage: fc.constantFrom(null, ...stages),
  journal: fc.constantFrom(...journals),
  told: fc.boolean(),
  /** Where it is, or by another one in its place. */
  inPlace: fc.boolean(),
});

/** The properties of a step do not change while it is held. */
function heldOf(
  claim: number,
  stage: HeldStage,
  journal: Held["journal"],
  told: boolean,
  endedAt: number,
): Held {
  return {
    claim,
    id: claim,
    step: {
      id: claim,
      claim,
      component: claim % 7 === 0 ? "AutoUpdate" : "Command",
      execution: claim % 2 === 0 ? "internal" : "external",
      priority: 1 + (claim % 3),
      onCrash: claim % 5 === 0 ? "freeze" : "rerun",
    },
    stage,
    leaseUntil: claim,
    startSaid: null,
    result: null,
    resultBytes: 0,
    resultIn: told ? 1 : null,
    endedAt,
    arrivedAt: 0,
    begunAt: 0,
    journal,
    givingBack: false,
  };
}

test("claims kept apart are those that a look through all of them finds", () => {
  fc.assert(
    fc.property(fc.array(change, { maxLength: 80 }), (changes) => {
      const claims = new HeldClaims();
      for (const [at, { claim, stage, journal, told, inPlace }] of changes.entries()) {
        const former = claims.get(claim);
        if (stage === null) claims.delete(claim);
        else if (inPlace && former !== undefined)
          claims.change(former, { stage, journal, resultIn: told ? 1 : null, endedAt: at });
        else claims.set(claim, heldOf(claim, stage, journal, told, at));
        const all = [...claims.values()];
        const numbers = (found: Iterable<Held>) => [...found].map((held) => held.claim);
        const sorted = (found: Iterable<Held>) => numbers(found).toSorted((a, b) => a - b);
        const queued = all.filter((held) => held.stage === "queued");
        const isUpdate = ({ step }: Held) => step?.component === "AutoUpdate";
        for (const kind of ["internal", "external"] as const) {
          const line = queued
            .filter((held) => held.step?.execution === kind && !isUpdate(held))
            .toSorted((a, b) => (b.step?.priority ?? 0) - (a.step?.priority ?? 0) || a.claim - b.claim);
          assert.deepEqual(numbers(claims.first(kind, 3)), numbers(line.slice(0, 3)));
          assert.deepEqual(claims.first(kind, 0), []);
        }
        assert.deepEqual(sorted(claims.queuedUpdates()), sorted(queued.filter(isUpdate)));
        const ended = all.filter((held) => held.stage === "ended");
        assert.deepEqual(
          sorted(claims.untold.values()),
          sorted(ended.filter(({ resultIn }) => resultIn === null)),
        );
        const unwritten = ended.filter((held) => held.journal === "none");
        assert.deepEqual(sorted(claims.unwritten(Number.POSITIVE_INFINITY)), sorted(unwritten));
        // What must not run twice is due at once, whenever it ended.
        assert.deepEqual(
          sorted(claims.unwritten(-1)),
          sorted(unwritten.filter(({ step }) => step?.onCrash === "freeze")),
        );
      }
    }),
  );
});
