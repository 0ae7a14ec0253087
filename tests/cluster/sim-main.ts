import { LEASE_MUTANTS } from "./lease-mutants.ts";
import { catchLeaseMutant, sweepLeases } from "./lease-sweep.ts";
import { LeaseWorld } from "./lease-world.ts";

const SHOWN_MAX = 10;
const MUTANT_SEEDS_MAX = 3000;

/** `npm run sim -- --cluster`: as many clusters as asked for; returns whether nothing broke. */
export function simulateClusters(from: number, seeds: number, mutants: boolean): boolean {
  let next = 0;
  const { counts, broken } = sweepLeases(from, seeds, (done, found) => {
    if (done < next || process.stderr.isTTY !== true) return;
    next = done + 200;
    process.stderr.write(`\r${done} seeds, ${found} broken `);
  });
  for (const { seed, message } of broken.slice(0, SHOWN_MAX))
    console.log(`\n${message}\n  again: npm run sim -- --cluster --seed ${seed} --seeds 1`);
  for (const [what, count] of Object.entries(counts)) console.log(`${String(count).padStart(12)} ${what}`);
  console.log(`${seeds} clusters, ${broken.length} broken`);
  const [first] = broken;
  if (first !== undefined) tellStory(first.seed);
  return broken.length === 0 && (!mutants || tellMutants(from));
}

function tellStory(seed: number): void {
  const world = new LeaseWorld(seed, undefined, true);
  try {
    world.run();
  } catch {
    // Known already; what led to it is what we want.
  }
  console.log(`\nseed ${seed}: ${JSON.stringify(world.scenario)}\n${world.trace?.join("\n")}`);
}

function tellMutants(from: number): boolean {
  let all = true;
  for (const { name, rules } of LEASE_MUTANTS) {
    const told = catchLeaseMutant(rules, from, MUTANT_SEEDS_MAX);
    all &&= told !== null;
    console.log(`${told === null ? "NOT TOLD" : `told after ${told.seeds}`.padEnd(18)} ${name}`);
  }
  return all;
}
