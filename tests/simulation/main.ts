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
 *   --nemesis    instead: a cluster on hosts of a lab, and every fault of nemesis-faults.ts (--rounds 10, --seed N, --only
 *                NAME,..., --keep DIRECTORY for the histories); --judge FILE judges a kept history again
 *   --strace     instead: kill the real updater before each of its system calls, and fail each of them
 *   --fuzz       instead: feed every reader of what strangers write with mutated inputs; --inputs N (1,000,000), --seed N,
 *                --only NAME,...
 *   --product    instead: the same with `lockstep update` against a hub alone
 *   --job-cluster instead: let the job service on a cluster fail over (--failovers 50), from --seed N
 *   --jobs       instead: kill job services, their workers and the hub while they work (--steps 10000, --kills 200)
 */
const STATES = 100_000;
const CLUSTERS = 100_000;
const FUZZ_INPUTS = 1_000_000;
const NEMESIS_ROUNDS = 10;
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
    nemesis: { type: "boolean", default: false },
    rounds: { type: "string" },
    only: { type: "string" },
    keep: { type: "string" },
    judge: { type: "string" },
    product: { type: "boolean", default: false },
    fuzz: { type: "boolean", default: false },
    inputs: { type: "string" },
    jobs: { type: "boolean", default: false },
    steps: { type: "string" },
    kills: { type: "string" },
    "job-cluster": { type: "boolean", default: false },
    failovers: { type: "string" },
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
} else if (values.judge !== undefined) {
  const { judgeKept } = await import("../cluster/nemesis-sweep.ts");
  process.exitCode = judgeKept(values.judge) ? 0 : 1;
} else if (values.nemesis) {
  console.log(label);
  const { sweepNemeses } = await import("../cluster/nemesis-sweep.ts");
  const rounds = values.rounds === undefined ? NEMESIS_ROUNDS : readCount(values.rounds, "--rounds");
  const given = { rounds, seed, only: values.only?.split(",") ?? null, keep: values.keep ?? null };
  process.exitCode = (await sweepNemeses(given)) ? 0 : 1;
} else if (values.strace) {
  const { sweepAll } = await import("../crash/sweep-all.ts");
  process.exitCode = (await sweepAll(label)) ? 0 : 1;
} else if (values.jobs) {
  runTest("../service/chaos.test.ts", {
    LOCKSTEP_CHAOS_STEPS: countOf(values.steps, "--steps", 10_000),
    LOCKSTEP_CHAOS_KILLS: countOf(values.kills, "--kills", 200),
    LOCKSTEP_SEED: seed % 2 ** 31,
  });
} else if (values["job-cluster"]) {
  runTest("../cluster/jobs-on-cluster.test.ts", {
    LOCKSTEP_JOB_CLUSTER_FAILOVERS: countOf(values.failovers, "--failovers", 50),
    LOCKSTEP_SEED: seed % 2 ** 31,
  });
} else if (values.fuzz) {
  console.log(label);
  const [{ fuzzAll }, { FUZZ_TARGETS }] = await Promise.all([
    import("../fuzz/fuzz.ts"),
    import("../fuzz/targets.ts"),
  ]);
  const inputs = countOf(values.inputs, "--inputs", FUZZ_INPUTS);
  const whole = await fuzzAll(FUZZ_TARGETS, seed, inputs, values.only?.split(",") ?? null);
  console.log(label);
  process.exitCode = whole ? 0 : 1;
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

/** A test that takes its size from the environment. */
function runTest(file: string, size: Readonly<Record<string, number>>): void {
  const sizes = Object.entries(size).map(([name, value]) => [name, String(value)]);
  const test = spawnSync(
    process.execPath,
    ["--test", "--test-isolation=none", join(import.meta.dirname, file)],
    { stdio: "inherit", env: { ...process.env, ...Object.fromEntries(sizes) } },
  );
  console.log(label);
  process.exitCode = test.status ?? 1;
}

function countOf(text: string | undefined, option: string, usual: number): number {
  return text === undefined ? usual : readCount(text, option);
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
