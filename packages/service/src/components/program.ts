import { spawn } from "node:child_process";
import { constants } from "node:fs";
import { access, stat } from "node:fs/promises";
import { delimiter, join, resolve } from "node:path";
import { systemErrorCode } from "@lockstep/platform";
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
 * Holds a program back until its group is under guard: were we killed in between, it would run on with nobody knowing
 * it. When we are, the pipe ends, and the program never begins. No text of the step is read by this shell; it replaces
 * itself by the program and hands the arguments on as they are.
 */
const HOLD = 'IFS= read -r _ <&3 && exec "$@" 3<&-';

/**
 * Runs a program without a shell and waits until it and every process of its group has ended: what it left running in
 * its group ends with it. Throws PROGRAM_NOT_STARTED, or the reason of the signal.
 */
export async function runProgram(options: ProgramOptions): Promise<ProgramEnd> {
  const { signal } = options;
  signal.throwIfAborted();
  const child = startProgram(options, await findProgram(options));
  const stdout = new KeptOutput(options.outputBytesMax);
  const stderr = new KeptOutput(options.outputBytesMax);
  child.stdout?.on("data", (chunk: Buffer) => stdout.add(chunk));
  child.stderr?.on("data", (chunk: Buffer) => stderr.add(chunk));
  // A program that reads nothing ends as it likes.
  child.stdin?.on("error", () => {});
  const group = child.pid;
  if (group !== undefined) guardGroup(group);
  const gate = child.stdio[3];
  if (gate !== null && gate !== undefined && "end" in gate) gate.on("error", () => {}).end("go\n");
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

function startProgram(options: ProgramOptions, file: string) {
  const input = options.input === null ? "ignore" : "pipe";
  const common = { cwd: options.directory, env: { ...options.environment }, windowsHide: true };
  try {
    return process.platform === "win32"
      ? spawn(file, options.arguments, { ...common, stdio: [input, "pipe", "pipe"] })
      : spawn("/bin/sh", ["-c", HOLD, "sh", file, ...options.arguments], {
          ...common,
          stdio: [input, "pipe", "pipe", "pipe"],
          detached: true,
        });
  } catch (error) {
    // A NUL in an argument, or more arguments than the system takes.
    throw notStarted(options.program, error);
  }
}

/** The file that a program's name means: looked up in the PATH that it will have, as the system would do it. */
async function findProgram({ program, directory, environment }: ProgramOptions): Promise<string> {
  if (process.platform === "win32") return program;
  const path = environment.PATH ?? "/usr/local/bin:/usr/bin:/bin";
  const files = program.includes("/")
    ? [resolve(directory, program)]
    : path.split(delimiter).map((each) => join(resolve(directory, each), program));
  let problem: unknown = new Error("there is no such program");
  for (const file of files) {
    try {
      if (!(await stat(file)).isFile()) continue;
      await access(file, constants.X_OK);
      return file;
    } catch (error) {
      if (systemErrorCode(error) !== "ENOENT") problem = error;
    }
  }
  throw notStarted(program, problem);
}

function notStarted(program: string, cause: unknown): LockstepError {
  const problem = cause instanceof Error ? cause.message : String(cause);
  return new LockstepError("PROGRAM_NOT_STARTED", `${program} could not be started: ${problem}`, { cause });
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
