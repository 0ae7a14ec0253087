import { describeTerminal, firstSignal, paint, printable, signalExitStatus } from "@lockstep/platform";
import { exitStatus, LockstepError, toErrorBody } from "@lockstep/protocol/wire";

/** Ends a command with this exit status and without a word: everything has been said. */
export class Finished extends Error {
  readonly status: number;

  constructor(status: number) {
    super(`exit ${status}`);
    this.status = status;
  }
}

export interface FailureView {
  /** `--json`: the error is the one document of this run. */
  readonly json: boolean;
  readonly stdout: { write(text: string): unknown };
}

/** More faults than these are counted on a screen, not shown; `--json` has them all. */
const FAULTS_SHOWN_MAX = 50;

/**
 * Tells an error: its code, what was expected and found, every fault, the next step and where to read on, on standard
 * error; behind `--json` also as a document on standard output. Returns the exit status of its kind.
 */
export function reportFailure(error: unknown, view: FailureView): number {
  if (error instanceof Finished) return error.status;
  const failure = toFailure(error);
  process.stderr.write(formatFailure(failure));
  // A fault of another process of ours brings its own trace in its message.
  const traced = /\n\s+at /.test(failure.message);
  if ((failure.code === "INTERNAL" && !traced) || process.env.LOCKSTEP_DEBUG)
    process.stderr.write(formatTrace(error));
  if (view.json) view.stdout.write(`${JSON.stringify(toErrorBody(failure))}\n`);
  // What a shell, or a supervisor, takes for the end by a signal. At a question Ctrl-C is a key, and no signal comes.
  if (failure.code === "INTERRUPTED") return signalExitStatus(firstSignal() ?? "SIGINT");
  return exitStatus(failure.code);
}

/** Whatever was thrown, as an error with a code: what the operating system refused is no fault of ours. */
function toFailure(error: unknown): LockstepError {
  if (error instanceof LockstepError) return error;
  if (!(error instanceof Error)) return new LockstepError("INTERNAL", String(error));
  if ("syscall" in error && "code" in error && "path" in error)
    return new LockstepError("FILE_ACCESS_FAILED", error.message, {
      hint: "Look at the file, its permissions and the free space, then try again.",
    });
  return new LockstepError("INTERNAL", error.message, { cause: error });
}

/** An error as people read it. */
export function formatFailure(failure: LockstepError): string {
  const terminal = describeTerminal(process.stderr, process.env);
  const lines = [
    `${paint(terminal, "red", `error ${failure.code}:`)} ${printable(failure.message, "lines")}`,
  ];
  if (failure.expected !== undefined) lines.push(`  expected: ${printable(String(failure.expected))}`);
  if (failure.found !== undefined) lines.push(`  found:    ${printable(String(failure.found))}`);
  for (const fault of failure.faults.slice(0, FAULTS_SHOWN_MAX))
    lines.push(`  - ${printable(fault.where)}: ${printable(fault.problem)}`);
  const rest = failure.faults.length - FAULTS_SHOWN_MAX;
  if (rest > 0) lines.push(`  ... and ${rest} more (all of them with --json)`);
  for (const cause of causesOf(failure)) lines.push(`  because:  ${printable(cause)}`);
  if (failure.hint !== undefined) lines.push(`  hint: ${printable(failure.hint)}`);
  lines.push(`  see docs/reference/errors.md#${failure.code}`);
  return `${lines.join("\n")}\n`;
}

function causesOf(failure: Error): string[] {
  const causes: string[] = [];
  for (let cause = failure.cause; cause instanceof Error && causes.length < 4; cause = cause.cause)
    if (cause.message !== "" && cause.message !== failure.message && !causes.includes(cause.message))
      causes.push(cause.message);
  return causes;
}

/** Where an error comes from, without its message, which stands above. */
function formatTrace(error: unknown): string {
  const stack = error instanceof Error ? error.stack : undefined;
  const at = stack?.search(/^\s+at /m) ?? -1;
  return stack === undefined || at === -1 ? "" : `${stack.slice(at)}\n`;
}
