import assert from "node:assert/strict";
import test from "node:test";
import { askedSeed } from "@lockstep/testing";
import type { RunCounts, ServiceMachine } from "./service-faults.ts";
import { SERVICE_MUTANTS } from "./service-mutants.ts";
import { Violation } from "./service-oracle.ts";
import { ServiceWorld } from "./service-world.ts";

/** LOCKSTEP_SEED=fresh gives others; a failure prints its seed. */
const FIXED_SEED = 1;
const OTHER_SEED = askedSeed(2_000_000);
const RUNS = 1500;
const MUTANT_RUNS_MAX = 5000;

function runWorlds(seed: number, runs: number): RunCounts {
  const sum: Record<string, number> = {};
  for (let at = seed; at < seed + runs; at++) {
    try {
      for (const [name, count] of Object.entries(new ServiceWorld(at).run()))
        sum[name] = (sum[name] ?? 0) + count;
    } catch (cause) {
      throw new Error(`seed ${at}: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
    }
  }
  return sum as unknown as RunCounts;
}

for (const [name, seed] of [
  ["fixed", FIXED_SEED],
  ["other", OTHER_SEED],
] as const)
  test(`a job service whose messages, hub and own process fail loses no step and does none out of turn (${name} seed ${seed})`, (t) => {
    const counts = runWorlds(seed, RUNS);
    t.diagnostic(`${RUNS} runs from seed ${seed}: ${JSON.stringify(counts)}`);
    for (const [what, count] of Object.entries(counts))
      assert.ok(count > RUNS / 20, `${what}: only ${count}; the runs prove little`);
  });

test("each rule that carries a promise is missed when it is gone", (t) => {
  assert.ok(SERVICE_MUTANTS.length >= 20);
  let runs = 0;
  for (const { name, machine } of SERVICE_MUTANTS) {
    const told = catchMutant(machine);
    assert.notEqual(told, null, `"${name}" passes for the real service in ${MUTANT_RUNS_MAX} runs`);
    runs += told ?? 0;
  }
  t.diagnostic(`${SERVICE_MUTANTS.length} mutants told within ${runs} runs from seed ${OTHER_SEED}`);
});

/** In how many runs; null: not told. A fault of the simulation itself does not count. */
function catchMutant(machine: ServiceMachine): number | null {
  for (let at = 1; at <= MUTANT_RUNS_MAX; at++) {
    try {
      new ServiceWorld(OTHER_SEED + at, machine).run();
    } catch (error) {
      if (!(error instanceof Violation)) throw error;
      return at;
    }
  }
  return null;
}
