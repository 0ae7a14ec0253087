import type { JobClient } from "@lockstep/client";
import { listenForInterruption, printable, systemClock } from "@lockstep/platform";
import { exitStatus, type ProcessDetail, type StepDetail } from "@lockstep/protocol/wire";
import { Finished, formatFailure } from "../failure.ts";
import { formatDuration, formatUtc } from "../screen/format.ts";

import { Output } from "../screen/output.ts";
import { displayWidth, fitText, printTable } from "../screen/table.ts";
import { type JobArguments, withJobs } from "./connect.ts";
import { describeOutcome } from "./outcome.ts";
import { formatSteps, processStyle, stepState, stepStyle } from "./states.ts";
import { layOutTree } from "./tree.ts";

interface ShowArguments extends JobArguments {
  readonly follow?: boolean;
  readonly runs?: boolean;
  readonly parameters?: boolean;
}

/** `lockstep job show`. With `--follow` the exit status says how the process ended, as that of `job start --wait`. */
export async function showJob(id: number, options: ShowArguments): Promise<void> {
  const output = new Output(options);
  using interruption = listenForInterruption();
  const { signal } = interruption;
  await withJobs(options, async (jobs) => {
    const detail = await jobs.process(id, { signal });
    output.document(detail);
    tell(output, detail, options);
    if (options.follow !== true) return;
    const last = await follow(jobs, detail, output, signal);
    const failure = describeOutcome(last.process);
    if (failure === null) return;
    process.stderr.write(formatFailure(failure));
    throw new Finished(exitStatus(failure.code));
  });
}

function tell(output: Output, detail: ProcessDetail, options: ShowArguments): void {
  if (output.data.interactive) {
    tellHead(output, detail);
    if (options.parameters === true) tellValues(output, "", detail.parameters);
    output.line();
    tellTree(output, detail.steps, options);
  } else tellRows(output, detail.steps);
  if (options.runs === true) tellRuns(output, detail.steps);
}

function tellHead(output: Output, { process: own }: ProcessDetail): void {
  const took =
    own.finishedAt === null
      ? `since ${formatUtc(own.createdAt)}`
      : `${formatUtc(own.createdAt)}, took ${formatDuration(own.finishedAt - own.createdAt)}`;
  const state = output.paintData(processStyle(own.state), own.state);
  output.line(`${output.paintData("bold", `process ${own.id}  ${printable(own.name)}`)}  ${state}`);
  output.line(`${took}, priority ${own.priority}, started by ${printable(own.startedBy)}`);
  output.line(formatSteps(own.steps));
}

const STATE_WIDTH = "processing".length;

function tellTree(output: Output, steps: readonly StepDetail[], options: ShowArguments): void {
  const rows = layOutTree(steps);
  const room = output.data.columns;
  const label = (prefix: string, name: string) => `${prefix}${printable(name)}`;
  const widest = Math.max(0, ...rows.map(({ prefix, step }) => displayWidth(label(prefix, step.name))));
  const width = Math.min(widest, Math.max(20, Math.floor(room / 2)));
  for (const { prefix, below, step, onError, pointer } of rows) {
    const name = fitText(label(prefix, step.name), width);
    const padded = name + " ".repeat(width - displayWidth(name));
    if (pointer) {
      output.line(`${padded}  ${output.paintData("dim", "(see above)")}`);
      continue;
    }
    const state = stepState(step);
    const style = stepStyle(state);
    const shown = state.padEnd(STATE_WIDTH);
    const facts = [
      onError ? "after an error:" : "",
      `${step.component}.${step.task} on ${step.queue}`,
      formatStepTime(step),
      step.errors > 0 ? `${step.errors} failed` : "",
      step.crashes > 0 ? `${step.crashes} crashed` : "",
      `#${step.id}`,
    ];
    const rest = printable(facts.filter((fact) => fact !== "").join("  "));
    const left = Math.max(20, room - width - STATE_WIDTH - 4);
    output.line(
      `${padded}  ${style === null ? shown : output.paintData(style, shown)}  ${output.paintData("dim", fitText(rest, left))}`,
    );
    const inner = `${below}  `;
    if (step.message !== "")
      output.line(
        `${inner}${fitText(printable(step.message.split("\n")[0] ?? ""), Math.max(20, room - inner.length))}`,
      );
    if (options.parameters === true) tellValues(output, inner, step.parameters);
  }
}

function tellValues(output: Output, indent: string, values: Readonly<Record<string, unknown>>): void {
  for (const [name, value] of Object.entries(values)) {
    const text = typeof value === "string" ? value : JSON.stringify(value);
    output.line(output.paintData("dim", printable(`${indent}${name} = ${text}`)));
  }
}

/** How long the newest try has taken, or when the next one may begin. */
function formatStepTime({ state, runs, readyAt }: StepDetail): string {
  if (state === "deferred") return `not before ${formatUtc(readyAt)}`;
  const run = runs.at(-1);
  if (run === undefined) return "";
  const from = run.startedAt ?? run.claimedAt;
  return run.endedAt === null ? `since ${formatUtc(from)}` : formatDuration(Math.max(0, run.endedAt - from));
}

function tellRows(output: Output, steps: readonly StepDetail[]): void {
  printTable(
    output,
    [
      { title: "id" },
      { title: "step" },
      { title: "state" },
      { title: "task" },
      { title: "queue" },
      { title: "errors" },
      { title: "message" },
    ],
    layOutTree(steps)
      .filter(({ pointer }) => !pointer)
      .map(({ step }) => [
        String(step.id),
        step.name,
        stepState(step),
        `${step.component}.${step.task}`,
        step.queue,
        String(step.errors),
        step.message,
      ]),
  );
}

function tellRuns(output: Output, steps: readonly StepDetail[]): void {
  output.line();
  printTable(
    output,
    [
      { title: "claim", align: "right" },
      { title: "step", shrinks: true },
      { title: "try", align: "right" },
      { title: "machine", shrinks: true },
      { title: "claimed" },
      { title: "took", align: "right" },
      { title: "outcome" },
      { title: "message", shrinks: true },
    ],
    steps
      .flatMap((step) => step.runs.map((run) => ({ step, run })))
      .sort((a, b) => a.run.claim - b.run.claim)
      .map(({ step, run }) => [
        String(run.claim),
        step.name,
        String(run.attempt),
        run.machine,
        formatUtc(run.claimedAt),
        run.endedAt === null ? "-" : formatDuration(Math.max(0, run.endedAt - run.claimedAt)),
        run.outcome ?? "under way",
        run.message,
      ]),
  );
}

const POLL_MS = 500;

/** A line, or a document, for each step that is in another state than it was; until the process runs no more. */
async function follow(
  jobs: JobClient,
  first: ProcessDetail,
  output: Output,
  signal: AbortSignal,
): Promise<ProcessDetail> {
  let before = first;
  while (before.process.state === "running") {
    await systemClock.sleep(POLL_MS, signal);
    const now = await jobs.process(before.process.id, { signal });
    const states = new Map(before.steps.map((step) => [step.id, stepState(step)]));
    for (const step of now.steps) {
      const state = stepState(step);
      const was = states.get(step.id) ?? "-";
      if (state === was) continue;
      const { id, name, message } = step;
      output.document({ time: systemClock.now(), step: id, name, from: was, to: state, message });
      const style = stepStyle(state);
      const words = message === "" ? "" : `  ${printable(message.split("\n")[0] ?? "")}`;
      const shown = style === null ? state : output.paintData(style, state);
      output.line(`${formatUtc(systemClock.now())}  ${printable(name)}  ${was} -> ${shown}${words}`);
    }
    before = now;
  }
  output.document({ time: systemClock.now(), process: before.process });
  output.line(`process ${before.process.id} ${before.process.state}`);
  return before;
}
