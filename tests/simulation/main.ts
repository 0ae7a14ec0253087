import { execFileSync, spawnSync } from "node:child_process";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { sweepFailures } from "./apply-failures.ts";
import { ORDER_MUTANTS } from "./apply-mutants.ts";
import type { CrashPoint } from "./apply-run.ts";
import { catchMutant, mapSyncs, replay, type SweepReport, sweep, syncMutants } from "./apply-sweep.ts";

/**
 * `npm run sim`: crashes as many updates as asked for, and prints how to come back to whatever it found.
 *
 *   --states N   how many crash states (100,000)        --seed N     where to begin (a new one each time)
 *   --point P    one state again, as printed            --mutants    also tell the mutants, and print within how many states
 *   --failures N also fail every call of N scenarios, and fill their disks
 *   --cluster    instead: simulate clusters; --seeds N of them (100,000), from --seed N on, with --mutants as above
 *   --strace     instead: kill the real updater before each of its system calls, and fail each of them
 *   --product    instead: the same with `lockstep update` against a hub alone
 *   --jobs       instead: kill job services, their workers and the hub while they work (--steps 10000, --kills 200)
 */
const STATES = 100_000;
const CLUSTERS = 100_000;
const MUTANT_SCENARIOS = 200;
const MUTANT_STATES_MAX = 100_000;
const SHOWN_MAX = 10;

const { values } = parseArgs({
  options: {
    states: { type: "string" },
    seed: { type: "string" },
    point: { type: "string" },
    mutants: { type: "boolean", default: false },
    failures: { type: "string" },
    strace: { type: "boolean", default: false },
    cluster: { type: "boolean", default: false },
    seeds: { type: "string" },
    product: { type: "boolean", default: false },
    jobs: { type: "boolean", default: false },
    steps: { type: "string" },
    kills: { type: "string" },
  },
});

const seed = values.seed === undefined ? Date.now() % 2 ** 40 : readCount(values.seed, "--seed");
const states = values.states === undefined ? STATES : readCount(values.states, "--states");
const label = `seed ${seed}, revision ${revision()}`;

if (values.point !== undefined) {
  await replay(JSON.parse(values.point) as CrashPoint);
  console.log("this state is whole");
} else if (values.cluster) {
  console.log(label);
  const { simulateClusters } = await import("../cluster/sim-main.ts");
  const seeds = values.seeds === undefined ? CLUSTERS : readCount(values.seeds, "--seeds");
  process.exitCode = simulateClusters(seed, seeds, values.mutants) ? 0 : 1;
} else if (values.strace) {
  const { sweepAll } = await import("../crash/sweep-all.ts");
  process.exitCode = (await sweepAll(label)) ? 0 : 1;
} else if (values.jobs) {
  const test = spawnSync(
    process.execPath,
    ["--test", "--test-isolation=none", join(import.meta.dirname, "../service/chaos.test.ts")],
    {
      stdio: "inherit",
      env: {
        ...process.env,
        LOCKSTEP_CHAOS_STEPS: String(
          values.steps === undefined ? 10_000 : readCount(values.steps, "--steps"),
        ),
        LOCKSTEP_CHAOS_KILLS: String(values.kills === undefined ? 200 : readCount(values.kills, "--kills")),
        LOCKSTEP_CHAOS_SEED: String(seed % 2 ** 31),
      },
    },
  );
  console.log(label);
  process.exitCode = test.status ?? 1;
} else if (values.product) {
  const { sweepProduct } = await import("../crash/sweep-all.ts");
  console.log(label);
  process.exitCode = (await sweepProduct()) ? 0 : 1;
} else {
  console.log(label);
  const report = await sweep(seed, states, progress());
  print(report);
  const named = values.failures === undefined || (await fail(readCount(values.failures, "--failures")));
  const told = values.mutants ? await tellMutants() : true;
  console.log(label);
  process.exitCode = report.failures.length === 0 && named && told ? 0 : 1;
}

function print(report: SweepReport): void {
  const refused = Object.entries(report.refused).map(([code, count]) => `${count} refused with ${code}`);
  for (const { point, message } of report.failures.slice(0, SHOWN_MAX))
    console.log(`\n${message}\n  again: npm run sim -- --point '${JSON.stringify(point)}'`);
  console.log(
    [
      `${report.states} states of ${report.scenarios} installations`,
      ...refused,
      `${report.failures.length} broken`,
    ].join(", "),
  );
}

async function fail(scenarios: number): Promise<boolean> {
  const { states: tried, outcomes, failures } = await sweepFailures(seed, scenarios);
  for (const { where, error } of failures.slice(0, SHOWN_MAX)) console.log(where, error);
  const counts = [...outcomes].map(([outcome, count]) => `${count} ${outcome}`).join(", ");
  console.log(`${tried} failing calls and full disks: ${counts}, ${failures.length} broken`);
  return failures.length === 0;
}

async function tellMutants(): Promise<boolean> {
  const map = await mapSyncs(seed, MUTANT_SCENARIOS);
  const mutants = [...syncMutants(map), ...ORDER_MUTANTS.map((mutant) => ({ site: null, mutant }))];
  let all = true;
  for (const { site, mutant } of mutants) {
    const caught = await catchMutant(mutant, site, map, seed, MUTANT_STATES_MAX);
    all &&= caught !== null;
    console.log(`${caught === null ? "NOT TOLD" : `told after ${caught.states}`.padEnd(18)} ${mutant.name}`);
  }
  return all;
}

function progress(): (report: SweepReport) => void {
  let next = 0;
  return (report) => {
    if (report.states < next || process.stderr.isTTY !== true) return;
    next = report.states + 1000;
    process.stderr.write(`\r${report.states} states, ${report.failures.length} broken `);
  };
}

function readCount(text: string, option: string): number {
  const count = Number(text);
  if (!Number.isSafeInteger(count) || count < 0)
    throw new Error(`${option} takes a whole number, not ${text}`);
  return count;
}

function revision(): string {
  try {
    return execFileSync("git", ["rev-parse", "--short", "HEAD"], { encoding: "utf8" }).trim();
  } catch {
    return "unknown";
  }
}
