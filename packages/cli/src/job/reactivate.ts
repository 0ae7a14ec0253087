import { listenForInterruption, printable } from "@lockstep/platform";
import { LockstepError, type Reactivate, type Reactivated } from "@lockstep/protocol/wire";
import { Finished } from "../failure.ts";
import { usage } from "../options.ts";
import { counted } from "../screen/format.ts";
import { Output } from "../screen/output.ts";
import { askYesNo, canAsk } from "../screen/question.ts";
import { printTable } from "../screen/table.ts";
import { type JobArguments, withJobs } from "./connect.ts";
import { formatSteps } from "./states.ts";

interface ReactivateArguments extends JobArguments {
  readonly as: string;
  readonly process?: number;
  readonly template?: string;
  readonly queue?: string;
  readonly component?: string;
  readonly task?: string;
  readonly state?: string;
  readonly message?: string;
  readonly dryRun?: boolean;
  readonly yes?: boolean;
}

const WAYS = ["step", "chain", "success", "error"] as const;
const STATES = ["frozen", "missing", "over-limit"] as const;
/** Ends with this when a part, or all, of what was wanted was refused. */
const REFUSED_STATUS = 3;

/**
 * `lockstep job reactivate`. What is named by its number is reactivated at once; what a filter finds is shown first, and
 * asked about.
 */
export async function reactivateSteps(steps: readonly string[], options: ReactivateArguments): Promise<void> {
  const output = new Output(options);
  const order = toOrder(steps, options);
  using interruption = listenForInterruption();
  const { signal } = interruption;
  await withJobs(options, async (jobs) => {
    if (options.dryRun !== true && steps.length === 0 && options.yes !== true) {
      const found = await jobs.reactivate({ ...order, dryRun: true }, { signal });
      if (found.steps.length > 0) await confirm(output, found, options.as, signal);
    }
    const result = await jobs.reactivate(order, { signal });
    if (result.steps.length === 0 && steps.length > 0)
      throw new LockstepError("NOT_FOUND", "none of these steps waits for a decision", {
        expected: STATES.join(", "),
        found: steps.join(", "),
        hint: "lockstep job show ID shows how the steps of a process stand.",
      });
    output.document(result);
    printSteps(output, result);
    const refused = result.steps.filter((step) => step.refused !== null).length;
    const done = result.steps.length - refused;
    output.note(
      `${counted(done, "step")} ${options.dryRun === true ? `would go on (${options.as})` : `reactivated (${options.as})`}${refused > 0 ? `, ${refused} refused` : ""}`,
    );
    if (result.more) output.warn("there are more such steps; run the command again");
    if (refused > 0) throw new Finished(REFUSED_STATUS);
  });
}

function toOrder(steps: readonly string[], options: ReactivateArguments): Reactivate {
  const as = WAYS.find((way) => way === options.as);
  if (as === undefined) throw usage("--as takes a way to go on", WAYS.join(", "), options.as);
  const state = STATES.find((each) => each === options.state);
  if (options.state !== undefined && state === undefined)
    throw usage("--state takes a state that waits for a person", STATES.join(", "), options.state);
  const numbers = steps.map((text) => {
    const number = Number(text);
    if (/^[0-9]+$/.test(text) && Number.isSafeInteger(number) && number > 0) return number;
    throw usage("a step is named by its number", "17", text);
  });
  const { process: own, template, queue, component, task, message } = options;
  const where = {
    ...(numbers.length === 0 ? {} : { steps: numbers }),
    ...(own === undefined ? {} : { process: own }),
    ...(template === undefined ? {} : { template }),
    ...(queue === undefined ? {} : { queue }),
    ...(component === undefined ? {} : { component }),
    ...(task === undefined ? {} : { task }),
    ...(state === undefined ? {} : { state }),
    ...(message === undefined ? {} : { message }),
  };
  if (Object.keys(where).length === 0)
    throw usage(
      "nothing says which steps",
      undefined,
      undefined,
      "Give step numbers, or --process, --queue ...",
    );
  return { as, where, ...(options.dryRun === true ? { dryRun: true } : {}) };
}

async function confirm(output: Output, found: Reactivated, as: string, signal: AbortSignal): Promise<void> {
  const count = counted(found.steps.length, "step");
  if (!canAsk())
    throw new LockstepError("CONFIRMATION_REQUIRED", `${count} would go on, and nobody can be asked`, {
      hint: "Nothing was changed. --dry-run shows the steps; --yes reactivates them without a question.",
    });
  printSteps(output, found);
  if (!(await askYesNo(`Reactivate ${count} (${as})?`, signal)))
    throw new LockstepError("CANCELLED", "not reactivated, as you wish", { hint: "Nothing was changed." });
}

function printSteps(output: Output, { steps }: Reactivated): void {
  printTable(
    output,
    [
      { title: "step", align: "right" },
      { title: "name", shrinks: true },
      { title: "process", align: "right" },
      { title: "of", shrinks: true },
      { title: "queue", shrinks: true },
      { title: "state" },
      { title: "message", shrinks: true },
    ],
    steps.map((step) => [
      String(step.id),
      step.name,
      String(step.process),
      step.processName,
      step.queue,
      step.refused === null ? step.state : "refused",
      step.refused ?? step.message,
    ]),
  );
}

/** `lockstep job cancel`. */
export async function cancelJob(
  id: number,
  options: JobArguments & { readonly yes?: boolean },
): Promise<void> {
  const output = new Output(options);
  using interruption = listenForInterruption();
  const { signal } = interruption;
  await withJobs(options, async (jobs) => {
    // Whoever names one process by its number means it; only a person at a terminal is asked whether it is the right one.
    if (options.yes !== true && canAsk()) {
      const { name, steps } = await jobs.processSummary(id, { signal });
      const question = `Cancel process ${id} (${printable(name)}; ${formatSteps(steps)})?`;
      if (!(await askYesNo(question, signal)))
        throw new LockstepError("CANCELLED", "not cancelled, as you wish", { hint: "Nothing was changed." });
    }
    const cancelled = await jobs.cancel(id, { signal });
    output.document(cancelled);
    output.line(`process ${id} ${cancelled.state}`);
  });
}
