import { isLockstepError } from "@lockstep/protocol";
import { Prng } from "@lockstep/testing";

/**
 * Feeds targets with inputs that are nearly right, and judges what they make of them.
 *
 * A target may refuse, by a code of ours, or accept. What it may not: throw anything else, accept what was changed (the
 * target itself says so, by a Violation), or take longer than a reader of a few kilobytes ever should. A slow one is tried
 * again, because a compiler or a collector may have had its turn just then: only what is slow each time counts.
 *
 * Input i of a target follows from seed + i alone, so a find is repeated by `--seed THAT --inputs 1 --only NAME`.
 */
export interface FuzzTarget<Input = unknown> {
  readonly name: string;
  /** How many of a thousand inputs it gets. */
  readonly share: number;
  readonly prepare: () => Promise<Prepared<Input>> | Prepared<Input>;
}

export interface Prepared<Input = unknown> {
  readonly draw: (prng: Prng) => Input;
  /** Null: accepted. A text: why it was refused, where no error says it. */
  readonly judge: (input: Input) => Promise<string | null> | string | null;
  readonly dispose?: () => void;
}

/** Something changed was accepted, or something else that must never be. */
export class Violation extends Error {}

export interface FuzzFind {
  readonly seed: number;
  readonly problem: string;
}

export interface FuzzReport {
  readonly name: string;
  inputs: number;
  accepted: number;
  readonly refused: Map<string, number>;
  slowestMs: number;
  readonly finds: FuzzFind[];
}

const LIMIT_MS = 100;
const RETRIES = 4;
const FINDS_MAX = 20;

/** `limitMs`: of the processor, for one input. */
export async function fuzz(
  target: FuzzTarget,
  seed: number,
  inputs: number,
  limitMs = LIMIT_MS,
): Promise<FuzzReport> {
  const report: FuzzReport = {
    name: target.name,
    inputs: 0,
    accepted: 0,
    refused: new Map(),
    slowestMs: 0,
    finds: [],
  };
  const { draw, judge, dispose } = await target.prepare();
  try {
    // The first inputs pay for what is compiled and loaded.
    for (let i = 0; i < 20; i++) await outcomeOf(judge, draw(new Prng(seed + i)));
    for (let i = 0; i < inputs && report.finds.length < FINDS_MAX; i++) {
      const input = draw(new Prng(seed + i));
      let outcome = await outcomeOf(judge, input);
      for (let retry = 0; outcome.ms > limitMs && retry < RETRIES; retry++) {
        const again = await outcomeOf(judge, input);
        if (again.ms < outcome.ms) outcome = again;
      }
      report.inputs++;
      report.slowestMs = Math.max(report.slowestMs, outcome.ms);
      if (outcome.refused === null) report.accepted++;
      else report.refused.set(outcome.refused, (report.refused.get(outcome.refused) ?? 0) + 1);
      const slow = outcome.ms > limitMs ? `took ${outcome.ms.toFixed(0)} ms` : null;
      const problem = outcome.fault ?? slow;
      if (problem !== null) report.finds.push({ seed: seed + i, problem });
    }
  } finally {
    dispose?.();
  }
  return report;
}

/** Of the processor: on a busy machine the clock tells what others do. */
function spentMs(began: NodeJS.CpuUsage): number {
  const { user, system } = process.cpuUsage(began);
  return (user + system) / 1000;
}

interface Outcome {
  /** A code or a reason; null: accepted. */
  readonly refused: string | null;
  readonly fault: string | null;
  readonly ms: number;
}

async function outcomeOf(judge: Prepared["judge"], input: unknown): Promise<Outcome> {
  const began = process.cpuUsage();
  try {
    const found = judge(input);
    const refused = found instanceof Promise ? await found : found;
    return { refused, fault: null, ms: spentMs(began) };
  } catch (error) {
    const ms = spentMs(began);
    if (isLockstepError(error) && error.code !== "INTERNAL") return { refused: error.code, fault: null, ms };
    const fault = error instanceof Error ? (error.stack ?? error.message) : String(error);
    return { refused: "FAULT", fault, ms };
  }
}

/** Prints a line for each target and whatever was found. Returns whether nothing was. */
export async function fuzzAll(
  targets: readonly FuzzTarget[],
  seed: number,
  inputs: number,
  only: readonly string[] | null,
): Promise<boolean> {
  const chosen = targets.filter(({ name }) => only === null || only.includes(name));
  if (chosen.length === 0)
    throw new Error(`--only takes some of ${targets.map(({ name }) => name).join(", ")}`);
  const shares = chosen.reduce((sum, { share }) => sum + share, 0);
  console.log(
    `${"target".padEnd(16)} ${"inputs".padStart(8)} ${"accepted".padStart(8)} ${"slowest".padStart(8)}  refused`,
  );
  let total = 0;
  let finds = 0;
  for (const target of chosen) {
    const report = await fuzz(target, seed, Math.ceil((inputs * target.share) / shares));
    const refused = [...report.refused]
      .sort(([, a], [, b]) => b - a)
      .map(([code, count]) => `${count} ${code}`);
    const cells = [report.inputs, report.accepted, `${report.slowestMs.toFixed(0)} ms`];
    const line = cells.map((cell) => String(cell).padStart(8)).join(" ");
    console.log(`${target.name.padEnd(16)} ${line}  ${refused.join(", ")}`);
    for (const find of report.finds)
      console.log(
        `  ${find.problem}\n  again: npm run sim -- --fuzz --only ${target.name} --inputs 1 --seed ${find.seed}`,
      );
    total += report.inputs;
    finds += report.finds.length;
  }
  console.log(`${total} inputs, ${finds} finds`);
  return finds === 0;
}
