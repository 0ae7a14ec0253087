import { mkdirSync, mkdtempSync } from "node:fs";
import { chmod, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { type Clock, systemClock } from "@lockstep/platform";
import {
  type ClaimedStep,
  ERRORS,
  isLockstepError,
  LockstepError,
  type StepResult,
} from "@lockstep/protocol/wire";
import { findTask } from "./catalog.ts";
import { Mask } from "./mask.ts";
import { checkParameters, hiddenNames } from "./parameters.ts";
import type { Component, ServiceIdentity, StepHub, StepLog, Task, TaskContext, TaskResult } from "./types.ts";

/**
 * Runs one step: finds its task, checks its parameters, gives it a private directory and a time limit, and turns
 * whatever comes of it into a result. The same function runs in the service and in its external workers.
 *
 * Nothing leaves it unmasked: each line of the log, the message and the output pass the mask of the hidden values.
 *
 * A task that does not end soon after it was told to is left behind, and the end says `terminate`: only the end of the
 * process ends what it does then.
 */
export interface RunStepOptions {
  readonly service: ServiceIdentity;
  /** Null in an external worker. */
  readonly hub: StepHub | null;
  /** Lost lease or shutdown, for a reason that is a LockstepError. The time limit is watched here. */
  readonly signal: AbortSignal;
  /** Takes masked lines. */
  readonly log: StepLog;
  /** Where the private directory is made; made itself where it is missing, with mode 0700. */
  readonly directory: string;
  readonly plugins?: readonly Component[];
  /** For every program that a step starts: ExternalSlotEnvironment. */
  readonly environment?: Readonly<Record<string, string>>;
  readonly clock?: Clock;
  /** How long a task may take to end after it was told to. */
  readonly abortGraceMs?: number;
  /** Told each value that a task hides while it runs, for the masks of other logs. */
  readonly onHide?: (value: string) => void;
}

export interface StepEnd {
  readonly result: StepResult;
  /** The process in which the step ran must not run another one. */
  readonly terminate: boolean;
}

const ABORT_GRACE_MS = 10_000;
/** What the hub takes as a message. */
const MESSAGE_CHARACTERS_MAX = 65_536;
/** A result travels with many others in one request and is kept for as long as its process. */
const OUTPUT_CHARACTERS_MAX = 256 * 1024;

/** Runs a step to its end. Never throws. */
export async function runStep(step: ClaimedStep, options: RunStepOptions): Promise<StepEnd> {
  const clock = options.clock ?? systemClock;
  const startedAt = clock.now();
  const mask = new Mask();
  mask.hide(...step.hidden.map((name) => step.parameters[name]), ...(step.secrets ?? []));
  const end = (result: TaskResult | GivenBack): StepEnd => ({
    result: {
      step: step.id,
      claim: step.claim,
      ...describe(result, mask),
      startedAt,
      endedAt: Math.max(startedAt, clock.now()),
    },
    terminate: result.kind === "error" && result.terminate === true,
  });
  const abort = new AbortController();
  const ended = new AbortController();
  const onOuterAbort = () => abort.abort(options.signal.reason);
  options.signal.addEventListener("abort", onOuterAbort, { once: true });
  if (options.signal.aborted) onOuterAbort();
  let left: TaskResult | GivenBack;
  try {
    if (step.timeLimitMs !== null) watchTimeLimit(step.timeLimitMs, clock, abort, ended.signal);
    left = await runTask(step, options, mask, abort.signal);
  } catch (error) {
    left = abort.signal.aborted ? ofAbort(abort.signal, step) : ofError(error);
  } finally {
    ended.abort();
    options.signal.removeEventListener("abort", onOuterAbort);
  }
  return end(left);
}

interface GivenBack {
  readonly kind: "given-back";
  readonly message: string;
}

async function runTask(
  step: ClaimedStep,
  options: RunStepOptions,
  mask: Mask,
  signal: AbortSignal,
): Promise<TaskResult | GivenBack> {
  signal.throwIfAborted();
  const task = await findTask(step.component, step.task, options.plugins);
  mask.hide(...hiddenNames(task.parameters, step.hidden).map((name) => step.parameters[name]));
  const parameters = checkParameters(task.parameters, step.parameters, step);
  const log = maskedLog(options.log, mask);
  const directory = new PrivateDirectory(options.directory, step.id);
  let isLeft = false;
  try {
    const running = startTask(task, {
      step,
      parameters,
      signal,
      log,
      get directory() {
        return directory.path();
      },
      service: options.service,
      hub: options.hub,
      environment: options.environment ?? {},
      hide: (...values) => {
        mask.hide(...values);
        for (const value of values) options.onHide?.(value);
      },
      mask,
    });
    const result = await Promise.race([
      running,
      afterAbort(signal, options.abortGraceMs ?? ABORT_GRACE_MS, running),
    ]);
    isLeft = result === LEFT_BEHIND;
    if (isLeft) {
      log.error("the task did not stop when it was told to; its process ends with it");
      return { kind: "error", message: `${reasonOf(signal)}, and did not stop`, terminate: true };
    }
    // Whatever a task says after it was told to stop: success counts, because its effect has happened.
    if (signal.aborted && result !== LEFT_BEHIND && result?.kind !== "success") return ofAbort(signal, step);
    if (result === LEFT_BEHIND) return ofAbort(signal, step);
    // A plug-in may return anything.
    return isResult(result) ? result : { kind: "error", message: "the task gave no result", permanent: true };
  } finally {
    await directory
      .remove()
      .catch((error: unknown) => log.warn(`the private directory could not be removed: ${String(error)}`));
  }
}

/** A directory for one run of a step. Most steps never ask for theirs, and making one costs more than many of them. */
class PrivateDirectory {
  readonly #parent: string;
  readonly #step: number;
  #path: string | null = null;

  constructor(parent: string, step: number) {
    this.#parent = parent;
    this.#step = step;
  }

  path(): string {
    if (this.#path !== null) return this.#path;
    mkdirSync(this.#parent, { recursive: true, mode: 0o700 });
    this.#path = mkdtempSync(join(this.#parent, `step-${this.#step}-`));
    return this.#path;
  }

  async remove(): Promise<void> {
    if (this.#path !== null) await removeDirectory(this.#path);
  }
}

/** A plug-in may also throw or return at once. */
const startTask = async (task: Task, context: TaskContext): Promise<TaskResult> => await task.run(context);

function isResult(value: unknown): value is TaskResult {
  if (typeof value !== "object" || value === null || !("kind" in value)) return false;
  return (
    value.kind === "success" ||
    value.kind === "error" ||
    (value.kind === "deferred" && "afterMs" in value && Number.isFinite(value.afterMs))
  );
}

const LEFT_BEHIND = Symbol("left behind");

/** Resolves when the task had its time to stop and did not; never where nothing aborts. */
function afterAbort(
  signal: AbortSignal,
  graceMs: number,
  running: Promise<unknown>,
): Promise<typeof LEFT_BEHIND> {
  return new Promise((resolve) => {
    let timer: NodeJS.Timeout | undefined;
    const begin = () => {
      timer = setTimeout(() => resolve(LEFT_BEHIND), graceMs);
    };
    const stop = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", begin);
    };
    signal.addEventListener("abort", begin, { once: true });
    if (signal.aborted) begin();
    running.then(stop, stop);
  });
}

function watchTimeLimit(limitMs: number, clock: Clock, abort: AbortController, ended: AbortSignal): void {
  void clock.sleep(limitMs, ended).then(() => {
    if (ended.aborted || abort.signal.aborted) return;
    abort.abort(
      new LockstepError("JOB_TIME_LIMIT", `the step took longer than its time limit of ${limitMs / 1000} s`, {
        expected: limitMs,
      }),
    );
  });
}

/** What the end of an aborted step is. Stopped by the service and safe to repeat: nobody's failure, so it takes no try. */
function ofAbort(signal: AbortSignal, step: ClaimedStep): TaskResult | GivenBack {
  const message = reasonOf(signal);
  if (isLockstepError(signal.reason, "JOB_TIME_LIMIT") || step.onCrash === "freeze")
    return { kind: "error", message };
  return { kind: "given-back", message };
}

function reasonOf(signal: AbortSignal): string {
  const { reason } = signal;
  return isLockstepError(reason) ? `${reason.code}: ${reason.message}` : String(reason);
}

const CAUSES_MAX = 4;

function ofError(error: unknown): TaskResult {
  const texts: string[] = [];
  for (let each = error; each !== undefined && texts.length < CAUSES_MAX; ) {
    const text = each instanceof Error ? each.message : String(each);
    if (!texts.some((before) => before.includes(text))) texts.push(text);
    each = each instanceof Error ? each.cause : undefined;
  }
  const code =
    error instanceof Error && "code" in error && typeof error.code === "string" ? `${error.code}: ` : "";
  const first = texts.join(": ");
  const message = `${first.startsWith(code) ? "" : code}${first}`;
  if (!isLockstepError(error)) return { kind: "error", message };
  const { kind } = ERRORS[error.code];
  const difference =
    error.expected === undefined || error.found === undefined
      ? ""
      : ` (expected ${error.expected}, found ${error.found})`;
  return {
    kind: "error",
    message: `${message}${difference}`,
    permanent: kind === "usage" || kind === "refused",
  };
}

function describe(
  result: TaskResult | GivenBack,
  mask: Mask,
): Pick<StepResult, "outcome" | "message" | "output" | "deferMs" | "permanent"> {
  const message = result.message === undefined ? {} : { message: cut(mask.text(String(result.message))) };
  if (result.kind === "given-back") return { outcome: "given-back", ...message };
  if (result.kind === "deferred")
    return { outcome: "deferred", deferMs: Math.max(0, Math.ceil(result.afterMs)), ...message };
  const permanent = result.kind === "error" && result.permanent === true ? { permanent: true } : {};
  if (result.output === undefined) return { outcome: result.kind, ...message, ...permanent };
  const output = readOutput(result.output);
  if (typeof output === "string") return { outcome: "error", message: output, permanent: true };
  return {
    outcome: result.kind,
    ...message,
    ...permanent,
    output: mask.value(output) as Record<string, unknown>,
  };
}

/** The output as the JSON that travels, or why it cannot. */
function readOutput(output: Readonly<Record<string, unknown>>): Record<string, unknown> | string {
  try {
    const text = JSON.stringify(output);
    if (text.length > OUTPUT_CHARACTERS_MAX)
      return `the step was done, but its output of ${text.length} characters is larger than ${OUTPUT_CHARACTERS_MAX}`;
    const read: unknown = JSON.parse(text);
    if (typeof read === "object" && read !== null && !Array.isArray(read))
      return read as Record<string, unknown>;
  } catch {
    // Said below.
  }
  return "the step was done, but its output is not an object that can be written as JSON";
}

function cut(text: string): string {
  if (text.length <= MESSAGE_CHARACTERS_MAX) return text;
  return `${text.slice(0, MESSAGE_CHARACTERS_MAX - 1).toWellFormed()}…`;
}

function maskedLog(log: StepLog, mask: Mask): StepLog {
  return {
    info: (message) => log.info(mask.text(message)),
    warn: (message) => log.warn(mask.text(message)),
    error: (message) => log.error(mask.text(message)),
  };
}

/** Removes the directory also where a program took the right to look into its parts away. */
async function removeDirectory(directory: string): Promise<void> {
  try {
    await rm(directory, { recursive: true, force: true, maxRetries: 3 });
  } catch {
    await makeAccessible(directory);
    await rm(directory, { recursive: true, force: true });
  }
}

async function makeAccessible(directory: string): Promise<void> {
  await chmod(directory, 0o700);
  for (const entry of await readdir(directory, { withFileTypes: true }))
    if (entry.isDirectory()) await makeAccessible(join(directory, entry.name));
}
