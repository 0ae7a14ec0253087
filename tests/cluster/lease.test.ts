import assert from "node:assert/strict";
import test from "node:test";
import { askedSeed } from "@lockstep/testing";
import { LEASE_MUTANTS } from "./lease-mutants.ts";
import { catchLeaseMutant, sweepLeases } from "./lease-sweep.ts";
import { LeaseWorld } from "./lease-world.ts";

/** LOCKSTEP_SEED=fresh gives others; a failure prints its seed. */
const FIXED_SEED = 1;
const OTHER_SEED = askedSeed(2_000_000);
const SEEDS = 1000;
const MUTANT_SEED = 5_000_000;
const MUTANT_SEEDS_MAX = 3000;

for (const [name, seed] of [
  ["fixed", FIXED_SEED],
  ["other", OTHER_SEED],
] as const)
  test(`never two owners, never an old token, and progress within two lease times (${name} seed ${seed})`, (t) => {
    const { counts, broken } = sweepLeases(seed, SEEDS);
    t.diagnostic(`${SEEDS} seeds from ${seed}: ${JSON.stringify(counts)}`);
    assert.deepEqual(broken, []);
    // Nobody is overtaken before the deadline while the rules hold; all else must have happened, or the runs prove little.
    for (const [what, count] of Object.entries(counts))
      if (what !== "lostByOvertaking") assert.ok(count >= SEEDS / 40, `${what}: only ${count}`);
    assert.ok(counts.taken > 2 * SEEDS);
  });

test("each rule that carries a promise is missed when it is gone", async (t) => {
  for (const { name, rules } of LEASE_MUTANTS)
    await t.test(name, (t) => {
      const told = catchLeaseMutant(rules, MUTANT_SEED, MUTANT_SEEDS_MAX);
      assert.ok(told !== null, `passes for the real rules in ${MUTANT_SEEDS_MAX} seeds`);
      t.diagnostic(`told after ${told.seeds} seeds: ${told.message}`);
    });
});

test("equal seeds give equal runs", () => {
  const traces = [1, 2].map(() => {
    const world = new LeaseWorld(42, undefined, true);
    world.run();
    return world.trace;
  });
  assert.ok((traces[0]?.length ?? 0) > 5);
  assert.deepEqual(traces[0], traces[1]);
});
