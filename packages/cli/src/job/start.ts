import type { JobClient } from "@lockstep/client";
import { listenForInterruption, printable, systemClock } from "@lockstep/platform";
import { exitStatus, type JobTemplate, type ProcessSummary } from "@lockstep/protocol/wire";
import { Finished, formatFailure } from "../failure.ts";
import { usage } from "../options.ts";
import { formatDuration } from "../screen/format.ts";
import { Output } from "../screen/output.ts";
import { fitText } from "../screen/table.ts";
import { type JobArguments, withJobs } from "./connect.ts";
import { describeOutcome } from "./outcome.ts";
import { formatSteps } from "./states.ts";
import { isTemplateFile, readTemplateFile } from "./templates.ts";
import { readValues, type ValueArguments } from "./values.ts";

interface StartArguments extends JobArguments, ValueArguments {
  readonly priority?: number;
  readonly at?: string;
  readonly key?: string;
  readonly wait?: boolean;
  readonly quiet?: boolean;
}

/** `lockstep job start`. With `--wait` the exit status is 0 finished, 1 failed, 3 cancelled, 4 waits for a person. */
export async function startJob(wanted: string, options: StartArguments): Promise<void> {
  const output = new Output(options);
  const parameters = readValues(options);
  const startAt = options.at === undefined ? undefined : readTime(options.at);
  const template: string | JobTemplate = isTemplateFile(wanted) ? await readTemplateFile(wanted) : wanted;
  using interruption = listenForInterruption();
  const { signal } = interruption;
  await withJobs(options, async (jobs) => {
    const started = await jobs.start(
      {
        template,
        parameters,
        ...(options.priority === undefined ? {} : { priority: options.priority }),
        ...(startAt === undefined ? {} : { startAt }),
        ...(options.key === undefined ? {} : { idempotencyKey: options.key }),
      },
      { signal },
    );
    const { id } = started.process;
    if (!started.created) output.note(`the key was used before: it started process ${id}`);
    if (started.overLimit)
      output.warn(
        `too many processes of this template run already; process ${id} waits: lockstep job reactivate --process ${id} --as step`,
      );
    if (options.wait !== true) {
      output.document(started);
      output.line(`process ${id}`);
      return;
    }
    const process = await waitForEnd(jobs, id, output, signal);
    output.document({ ...started, process });
    output.line(`process ${id} ${process.state}`);
    const failure = describeOutcome(process);
    if (failure === null) return;
    // The document is the process, however it ended; the words go where words go.
    globalThis.process.stderr.write(formatFailure(failure));
    throw new Finished(exitStatus(failure.code));
  });
}

function readTime(text: string): number {
  const time = Date.parse(text);
  // Without a zone it would mean another moment on every machine.
  if (/(?:Z|[+-]\d{2}:?\d{2})$/.test(text) && Number.isFinite(time)) return time;
  throw usage("--at takes a time with its zone", "2026-01-31T02:30Z or 2026-01-31T02:30+01:00", text);
}

const POLL_MS = { first: 100, max: 1_000 };

async function waitForEnd(
  jobs: JobClient,
  id: number,
  output: Output,
  signal: AbortSignal,
): Promise<ProcessSummary> {
  const began = systemClock.monotonic();
  const line = new StatusLine(output);
  let waitMs = POLL_MS.first;
  try {
    for (;;) {
      const process = await jobs.processSummary(id, { signal });
      const passed = formatDuration(systemClock.monotonic() - began);
      line.show(`process ${id}  ${printable(process.name)}  ${formatSteps(process.steps)}  ${passed}`);
      if (process.state !== "running") return process;
      await systemClock.sleep(waitMs, signal);
      waitMs = Math.min(waitMs * 1.5, POLL_MS.max);
    }
  } finally {
    line.end();
  }
}

/** One line on standard error that is written over itself; nothing where nobody watches. */
class StatusLine {
  readonly #output: Output;
  #drawn = false;

  constructor(output: Output) {
    this.#output = output;
  }

  show(text: string): void {
    const { interactive, columns } = this.#output.remarks;
    if (!interactive || this.#output.quiet) return;
    process.stderr.write(`\r\u001b[2K${fitText(text, columns - 1)}`);
    this.#drawn = true;
  }

  end(): void {
    if (this.#drawn) process.stderr.write("\r\u001b[2K");
    this.#drawn = false;
  }
}
