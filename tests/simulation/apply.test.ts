import assert from "node:assert/strict";
import test from "node:test";
import { askedSeed, Prng } from "@lockstep/testing";
import { sweepFailures, trustSecondSync, tryFailedSync } from "./apply-failures.ts";
import { type Mutant, ORDER_MUTANTS } from "./apply-mutants.ts";
import {
  actsOf,
  catchMutant,
  mapSyncs,
  replay,
  type SweepReport,
  scenarioOf,
  sweep,
  syncMutants,
} from "./apply-sweep.ts";
import { FOUND_ONCE } from "./seeds.ts";

/** LOCKSTEP_SEED=fresh gives another; a failure prints it. */
const FIXED_SEED = 1;
const OTHER_SEED = askedSeed(2_000_000);

const SWEEP_STATES = 2_500;
const UNDISTURBED_SCENARIOS = 1_000;
const MUTANT_SCENARIOS = 80;
/** The rarest needs show within some 3,000 states; so many make a miss by chance impossible in practice. */
const MUTANT_STATES_MAX = 40_000;
const FAILURE_SCENARIOS = 6;

function describe(report: SweepReport): string {
  const shown = report.failures
    .slice(0, 3)
    .map(({ point, message }) => `npm run sim -- --point '${JSON.stringify(point)}'\n${message}`);
  return `${report.failures.length} of ${report.states} states are broken:\n${shown.join("\n\n")}`;
}

for (const [name, seed] of [
  ["fixed", FIXED_SEED],
  ["other", OTHER_SEED],
] as const) {
  test(`an update or rollback that crashes anywhere is wholly old or wholly new after the next recovery (${name} seed ${seed})`, async (t) => {
    const report = await sweep(seed, SWEEP_STATES);
    t.diagnostic(`${report.states} states of ${report.scenarios} installations from seed ${seed}`);
    assert.equal(report.failures.length, 0, describe(report));
    const refused = Object.values(report.refused).reduce((sum, count) => sum + count, 0);
    assert.ok(refused < report.scenarios / 2, "most scenarios are refused: the sweep proves little");
  });

  test(`each sync and each order that carries the promise is missed when it is gone (${name} seed ${seed})`, async (t) => {
    const map = await mapSyncs(seed, MUTANT_SCENARIOS);
    const mutants: { site: string | null; mutant: Mutant }[] = [
      ...syncMutants(map),
      ...ORDER_MUTANTS.map((mutant) => ({ site: null, mutant })),
    ];
    assert.ok(mutants.length >= 40, `only ${mutants.length} mutants: the walk has missed syncs`);
    let states = 0;
    for (const { site, mutant } of mutants) {
      const caught = await catchMutant(mutant, site, map, seed, MUTANT_STATES_MAX);
      assert.notEqual(
        caught,
        null,
        `${mutant.name}: taken for the real updater in ${MUTANT_STATES_MAX} states`,
      );
      states += caught?.states ?? 0;
    }
    t.diagnostic(`${mutants.length} mutants told within ${states} states from seed ${seed}`);
  });
}

test(`an undisturbed update, rollback or repair does what a naive program does (seed ${OTHER_SEED})`, async (t) => {
  const refused = new Map<string, number>();
  for (let at = 0; at < UNDISTURBED_SCENARIOS; at++) {
    const outcome = await actsOf(scenarioOf(OTHER_SEED + at)).catch((cause: unknown) => {
      throw new Error(`seed ${OTHER_SEED + at}`, { cause });
    });
    if (outcome.refused !== null) refused.set(outcome.refused, (refused.get(outcome.refused) ?? 0) + 1);
  }
  t.diagnostic(`${UNDISTURBED_SCENARIOS} installations, refused: ${[...refused].map(String).join(" ")}`);
  assert.deepEqual([...refused.keys()], ["INSTALLATION_CONFLICT"]);
});

test("states that once were broken are not broken again", async () => {
  // With their neighbours: a call more or less in the updater must not make them forgotten.
  for (const { point } of FOUND_ONCE)
    for (let call = point.call - 3; call <= point.call + 3; call++) await replay({ ...point, call });
});

test(`a call that fails, and a disk that is full, end in a named error or in the way back, and leave the installation whole (seed ${OTHER_SEED})`, async (t) => {
  const { states, outcomes, failures } = await sweepFailures(OTHER_SEED, FAILURE_SCENARIOS);
  t.diagnostic(
    `${states} states: ${[...outcomes].map(([outcome, count]) => `${outcome} ${count}`).join(", ")}`,
  );
  const [first] = failures;
  if (first !== undefined)
    throw new Error(`${failures.length} of ${states}: ${first.where}`, { cause: first.error });
  for (const outcome of ["refused", "rolled-back", "applied", "to be recovered"])
    assert.ok((outcomes.get(outcome) ?? 0) > 0, `nothing was ${outcome}: too few cases were tried`);
});

test("after a sync that failed nothing is believed, and an updater that asks again is found out", async () => {
  let foundOut = 0;
  for (let at = 0; at < FAILURE_SCENARIOS; at++)
    for (const act of (await actsOf(scenarioOf(FIXED_SEED + at))).acts) {
      for (let draw = 0; draw < 6; draw++) {
        await tryFailedSync(act, new Prng(draw));
        foundOut += await tryFailedSync(act, new Prng(draw), trustSecondSync).then(
          () => 0,
          () => 1,
        );
      }
    }
  assert.ok(foundOut > 0, "an updater that trusts a second sync passes for the real one");
});
