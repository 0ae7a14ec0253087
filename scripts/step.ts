import { spawn } from "node:child_process";
import { styleText } from "node:util";

/**
 * Named steps of a check: each is run to its end even when another fails, says how long it took, and shows its output
 * only when it has something to complain about. Two run at once, because most of them leave one core idle.
 */
export interface Step {
  readonly name: string;
  /** Throws or resolves to a failure text; null means that all is well. */
  readonly run: () => Promise<StepOutcome>;
}

export interface StepOutcome {
  readonly ok: boolean;
  /** What the step had to say; shown when it failed. */
  readonly output: string;
  /** Counts of tests; a step that is no test run counts as one check. */
  readonly passed: number;
  readonly failed: number;
  readonly skipped: readonly SkippedTest[];
}

export interface SkippedTest {
  readonly name: string;
  readonly file: string;
  readonly reason: string;
}

export interface StepsSummary {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: readonly SkippedTest[];
  readonly failedSteps: readonly string[];
}

/** Runs a program and collects what it writes. Its colours are kept when ours may be shown. */
export function capture(file: string, args: readonly string[]): Promise<{ status: number; output: string }> {
  return new Promise((resolve) => {
    const child = spawn(file, args, {
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, ...(process.stdout.isTTY ? { FORCE_COLOR: "1" } : {}) },
    });
    const chunks: Buffer[] = [];
    child.stdout.on("data", (chunk: Buffer) => chunks.push(chunk));
    child.stderr.on("data", (chunk: Buffer) => chunks.push(chunk));
    child.once("error", (error) => resolve({ status: 1, output: error.message }));
    child.once("close", (status) =>
      resolve({ status: status ?? 1, output: Buffer.concat(chunks).toString("utf8") }),
    );
  });
}

/** A step that is one program: well when it exits with 0. */
export function programStep(name: string, file: string, args: readonly string[]): Step {
  return {
    name,
    run: async () => {
      const { status, output } = await capture(file, args);
      const ok = status === 0;
      return { ok, output, passed: ok ? 1 : 0, failed: ok ? 0 : 1, skipped: [] };
    },
  };
}

/** Runs all steps, `width` at a time, printing one line for each as it ends. */
export async function runSteps(steps: readonly Step[], width: number): Promise<StepsSummary> {
  const waiting = [...steps];
  const outcomes = new Map<string, StepOutcome>();
  const nameWidth = Math.max(...steps.map((step) => step.name.length));
  const lane = async () => {
    for (let step = waiting.shift(); step !== undefined; step = waiting.shift()) {
      const startedAt = performance.now();
      const outcome = await step.run();
      outcomes.set(step.name, outcome);
      const seconds = ((performance.now() - startedAt) / 1000).toFixed(1).padStart(6);
      const mark = outcome.ok ? styleText("green", "ok    ") : styleText("red", "FAILED");
      const tests = outcome.passed + outcome.failed;
      console.log(
        `${mark} ${step.name.padEnd(nameWidth)} ${seconds} s${tests > 1 ? `  ${tests} tests` : ""}`,
      );
      if (!outcome.ok) console.log(outcome.output.trimEnd().replaceAll(/^/gm, "       "));
    }
  };
  await Promise.all(Array.from({ length: width }, lane));
  const all = [...outcomes.values()];
  return {
    passed: all.reduce((sum, outcome) => sum + outcome.passed, 0),
    failed: all.reduce((sum, outcome) => sum + outcome.failed, 0),
    skipped: all.flatMap((outcome) => outcome.skipped),
    failedSteps: steps.filter((step) => outcomes.get(step.name)?.ok !== true).map((step) => step.name),
  };
}
