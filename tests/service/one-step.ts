/** Runs single steps as a worker does, for the tests of components. */
import { existsSync, readdirSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestContext } from "node:test";
import type { ClaimedStep } from "@lockstep/protocol";
import { type RunStepOptions, runStep } from "../../packages/service/src/components/run-step.ts";
import { StopOrder } from "../../packages/service/src/components/stop-order.ts";

export interface RanStep {
  readonly outcome: string;
  readonly message: string;
  readonly output: Readonly<Record<string, unknown>>;
  readonly deferMs: number | undefined;
  readonly permanent: boolean;
  readonly terminate: boolean;
  /** Every line of the step's log. */
  readonly log: string;
  /** What the step left in the directory of private directories. */
  readonly left: readonly string[];
}

export const QUEUE = "\\\\server-1";

export async function temporaryDirectory(t: TestContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), "lockstep-service-"));
  t.after(() => rm(directory, { recursive: true, force: true }));
  return directory;
}

/** A step as the hub hands it out: `Command.Run` with its parameters. */
export function aStep(
  what: string,
  parameters: Readonly<Record<string, unknown>> = {},
  more: Partial<ClaimedStep> = {},
): ClaimedStep {
  const [component = "", task = ""] = what.split(".");
  return {
    id: 7,
    claim: 70,
    attempt: 1,
    idempotencyKey: "key-of-step-7",
    process: { id: 3, name: "a process" },
    name: "a step",
    component,
    task,
    execution: "internal",
    parameters,
    hidden: [],
    priority: 5,
    timeLimitMs: null,
    onCrash: "rerun",
    ...more,
  };
}

/** Runs one step to its end. */
export async function run(
  t: TestContext,
  step: ClaimedStep,
  options: Partial<RunStepOptions> = {},
): Promise<RanStep> {
  const directory = options.directory ?? join(await temporaryDirectory(t), "work");
  const lines: string[] = [];
  const { result, terminate } = await runStep(step, {
    service: { queue: QUEUE, machine: "machine-1", installation: null },
    hub: null,
    stop: new StopOrder(),
    log: {
      info: (line) => lines.push(`info ${line}`),
      warn: (line) => lines.push(`warn ${line}`),
      error: (line) => lines.push(`error ${line}`),
    },
    ...options,
    directory,
  });
  return {
    outcome: result.outcome,
    message: result.message ?? "",
    output: result.output ?? {},
    deferMs: result.deferMs,
    permanent: result.permanent === true,
    terminate,
    log: lines.join("\n"),
    left: existsSync(directory) ? readdirSync(directory) : [],
  };
}
