import { spawn } from "node:child_process";
import { isLockstepError, LockstepError } from "@lockstep/protocol/wire";
import { KeptOutput } from "./kept-output.ts";
import { guardGroup, releaseGroup, signalGroup } from "./process-guard.ts";

/** One program that a step starts. */
export interface ProgramOptions {
  readonly program: string;
  readonly arguments: readonly string[];
  readonly directory: string;
  readonly environment: Readonly<Record<string, string>>;
  /** For its standard input; null: it has none. */
  readonly input: string | null;
  /** Ends it with its whole process group. */
  readonly signal: AbortSignal;
  readonly outputBytesMax: number;
}

export interface ProgramEnd {
  /** Null: it was ended by a signal. */
  readonly status: number | null;
  readonly signal: string | null;
  readonly stdout: KeptOutput;
  readonly stderr: KeptOutput;
}

/** How long a program may take to end by itself when the service shuts down. */
const TERM_MS = 5_000;
/** A program may have ended while something that it started still holds its output. */
const LAST_OUTPUT_MS = 500;

/**
 * Runs a program without a shell and waits until it and every process of its group has ended: what it left running in
 * its group ends with it. Throws PROGRAM_NOT_STARTED, or the reason of the signal.
 */
export async function runProgram(options: ProgramOptions): Promise<ProgramEnd> {
  const { signal } = options;
  signal.throwIfAborted();
  const child = startProgram(options);
  const stdout = new KeptOutput(options.outputBytesMax);
  const stderr = new KeptOutput(options.outputBytesMax);
  child.stdout?.on("data", (chunk: Buffer) => stdout.add(chunk));
  child.stderr?.on("data", (chunk: Buffer) => stderr.add(chunk));
  // A program that reads nothing ends as it likes.
  child.stdin?.on("error", () => {});
  const group = child.pid;
  if (group !== undefined) guardGroup(group);
  let timer: NodeJS.Timeout | undefined;
  const stop = () => {
    if (group === undefined) return;
    const isUrgent = !isLockstepError(signal.reason, "INTERRUPTED");
    signalGroup(group, isUrgent ? "SIGKILL" : "SIGTERM");
    if (!isUrgent) timer = setTimeout(signalGroup, TERM_MS, group, "SIGKILL");
  };
  try {
    const closed = new Promise<void>((resolve) => child.once("close", () => resolve()));
    const exited = new Promise<{ status: number | null; signal: string | null }>((resolve, reject) => {
      child.once("error", (error) => reject(notStarted(options.program, error)));
      child.once("exit", (status, name) => resolve({ status, signal: name }));
    });
    signal.addEventListener("abort", stop, { once: true });
    child.stdin?.end(options.input ?? "");
    const end = await exited;
    await Promise.race([closed, pause(LAST_OUTPUT_MS)]);
    if (group !== undefined) signalGroup(group, "SIGKILL");
    await Promise.race([closed, pause(LAST_OUTPUT_MS)]);
    signal.throwIfAborted();
    return { ...end, stdout, stderr };
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", stop);
    child.stdout?.destroy();
    child.stderr?.destroy();
    if (group !== undefined) releaseGroup(group);
  }
}

function startProgram(options: ProgramOptions) {
  try {
    return spawn(options.program, options.arguments, {
      cwd: options.directory,
      env: { ...options.environment },
      stdio: [options.input === null ? "ignore" : "pipe", "pipe", "pipe"],
      detached: process.platform !== "win32",
      windowsHide: true,
    });
  } catch (error) {
    // A NUL in an argument, or more arguments than the system takes.
    throw notStarted(options.program, error);
  }
}

function notStarted(program: string, cause: unknown): LockstepError {
  const problem = cause instanceof Error ? cause.message : String(cause);
  return new LockstepError("PROGRAM_NOT_STARTED", `${program} could not be started: ${problem}`, { cause });
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
