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
import { formatParameters } from "../log/masking.ts";
import { findTask } from "./catalog.ts";
import { Mask } from "./mask.ts";
import { checkParameters, hiddenNames } from "./parameters.ts";
import { StopOrder } from "./stop-order.ts";
import { after, timeLimitError } from "./time-limit.ts";
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
  /** Lost lease or shutdown. The time limit is watched here. */
  readonly stop: StopOrder;
  /** Takes masked lines. */
  readonly log: StepLog;
  /** Where the private directory is made; made itself where it is missing, with mode 0700. */
  readonly directory: string;
  readonly plugins?: readonly Component[];
  /** Says into the log what the task was given, how long it ran and how it ended: ComponentDebugMode. */
  readonly debug?: boolean;
  /** For every program that a step starts: ExternalSlotEnvironment. */
  readonly environment?: Readonly<Record<string, string>>;
  readonly clock?: Clock;
  /** How long a task may take to end after `stop` told it to. */
  readonly abortGraceMs?: number;
  /** The same after its time limit; as long as that where it is not given. */
  readonly limitGraceMs?: number;
  /** Told each value that a task hides while it runs, for the masks of other logs. */
  readonly onHide?: (value: string) => void;
}

export interface StepEnd {
  readonly result: StepResult;
  /** The process in which the step ran must not run another one. */
  readonly terminate: boolean;
  /** The work still goes on in this process, and only the end of the process ends it. */
  readonly leftBehind: boolean;
}

const ABORT_GRACE_MS = 10_000;
/** What the hub takes as a message. */
const MESSAGE_CHARACTERS_MAX = 65_536;
/** A task that wants to be asked again at once would have hub and service do nothing else. */
const DEFER_MS_MIN = 100;
/** A result travels with many others in one request and is kept for as long as its process. */
const OUTPUT_CHARACTERS_MAX = 256 * 1024;

/** Runs a step to its end. Never throws. */
export async function runStep(step: ClaimedStep, options: RunStepOptions): Promise<StepEnd> {
  const clock = options.clock ?? systemClock;
  const startedAt = clock.now();
  const mask = new Mask();
  mask.hide(...step.hidden.map((name) => step.parameters[name]), ...(step.secrets ?? []));
  const end = ({ result, leftBehind }: TaskEnd): StepEnd => ({
    result: {
      step: step.id,
      claim: step.claim,
      ...describe(result, mask),
      startedAt,
      endedAt: Math.max(startedAt, clock.now()),
    },
    terminate: leftBehind || (result.kind === "error" && result.terminate === true),
    leftBehind,
  });
  const limited = step.timeLimitMs === null ? null : limitTime(step.timeLimitMs, options.stop, clock);
  const stop = limited?.stop ?? options.stop;
  let left: TaskEnd;
  try {
    left = await runTask(step, options, clock, mask, stop);
  } catch (error) {
    left = stopped(stop.reason === null ? ofError(error) : ofStop(stop.reason, step));
  } finally {
    limited?.end();
  }
  try {
    return end(left);
  } catch {
    // A plug-in may return objects that throw where they are read.
    const message = "the task gave a result that cannot be read";
    return end({ ...left, result: { kind: "error", message, permanent: true } });
  }
}

/** An order that is given with another one, and at the time limit. */
function limitTime(
  limitMs: number,
  outer: StopOrder,
  clock: Clock,
): { readonly stop: StopOrder; end(): void } {
  const stop = new StopOrder();
  const ended = new AbortController();
  outer.whenGiven((reason) => stop.give(reason));
  after(limitMs, clock, ended.signal, () => stop.give(timeLimitError(limitMs)));
  return { stop, end: () => ended.abort() };
}

interface GivenBack {
  readonly kind: "given-back";
  readonly message: string;
}

interface TaskEnd {
  readonly result: TaskResult | GivenBack;
  readonly leftBehind: boolean;
}

const stopped = (result: TaskResult | GivenBack): TaskEnd => ({ result, leftBehind: false });

async function runTask(
  step: ClaimedStep,
  options: RunStepOptions,
  clock: Clock,
  mask: Mask,
  stop: StopOrder,
): Promise<TaskEnd> {
  if (stop.reason !== null) return stopped(ofStop(stop.reason, step));
  const task = await findTask(step.component, step.task, options.plugins);
  if (task.execution !== "either" && task.execution !== step.execution)
    throw new LockstepError("JOB_EXECUTION_INVALID", `${step.component}.${step.task} cannot run there`, {
      expected: task.execution,
      found: step.execution,
      hint: "Correct `execution` of the step in its template.",
    });
  mask.hide(...hiddenNames(task.parameters, step.hidden).map((name) => step.parameters[name]));
  const parameters = checkParameters(task.parameters, step.parameters, step);
  const log = maskedLog(options.log, mask);
  const directory = new PrivateDirectory(options.directory, step.id);
  const tellEnd = options.debug === true ? tellRun(step, task, parameters, log, mask, stop, clock) : null;
  try {
    const running = startTask(task, {
      step,
      parameters,
      get signal() {
        return stop.signal;
      },
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
    if (tellEnd !== null) running.then(tellEnd, (error: unknown) => tellEnd(error));
    const result = await endOrLeave(running, stop, options, clock);
    if (result === LEFT_BEHIND) {
      log.error("the task did not stop when it was told to; its process ends with it");
      const why = ofStop(stop.reason, step);
      return { result: { ...why, message: `${why.message}, and did not stop` }, leftBehind: true };
    }
    // A plug-in may return anything.
    if (!isResult(result))
      return stopped(
        stop.reason === null
          ? { kind: "error", message: "the task gave no result", permanent: true }
          : ofStop(stop.reason, step),
      );
    // Whatever a task says after it was told to stop: success counts, because its effect has happened.
    const isStopped = stop.reason !== null && result.kind !== "success";
    return stopped(isStopped ? ofStop(stop.reason, step) : result);
  } finally {
    if (directory.isMade)
      await directory
        .remove()
        .catch((error: unknown) => log.warn(`the private directory could not be removed: ${String(error)}`));
  }
}

const VALUE_CHARACTERS_MAX = 1000;

/** Says how a run of a task begins and when it is told to stop. Returns what says how it ended. */
function tellRun(
  { component, task: name, hidden }: ClaimedStep,
  { parameters: table }: Task,
  parameters: Readonly<Record<string, unknown>>,
  log: StepLog,
  mask: Mask,
  stop: StopOrder,
  clock: Clock,
): (end: unknown) => void {
  const beganAt = clock.monotonic();
  const seconds = () => `${((clock.monotonic() - beganAt) / 1000).toFixed(3)} s`;
  const given = Object.fromEntries(Object.entries(parameters).filter(([, value]) => value !== undefined));
  const shown = formatParameters(given, hiddenNames(table, hidden), VALUE_CHARACTERS_MAX, (text) =>
    mask.text(text),
  );
  log.info(`${component}.${name} begins: ${shown}`);
  let isOver = false;
  stop.whenGiven((reason) => {
    if (!isOver) log.info(`${component}.${name} is told to stop after ${seconds()}: ${textOfStop(reason)}`);
  });
  return (end) => {
    isOver = true;
    const how = isResult(end) ? end.kind : `the error ${textOf(() => end)}`;
    log.info(`${component}.${name} ended after ${seconds()} with ${how}`);
  };
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

  get isMade(): boolean {
    return this.#path !== null;
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

/** What the task comes to; or that it had its time to stop after it was told to, and did not. */
function endOrLeave(
  running: Promise<unknown>,
  stop: StopOrder,
  { stop: outer, abortGraceMs = ABORT_GRACE_MS, limitGraceMs = abortGraceMs }: RunStepOptions,
  clock: Clock,
): Promise<unknown> {
  return new Promise((resolve, reject) => {
    let isOver = false;
    let patience: AbortController | null = null;
    const losePatience = () => {
      if (isOver) return;
      patience?.abort();
      patience = new AbortController();
      const graceMs = outer.reason === null ? limitGraceMs : abortGraceMs;
      after(graceMs, clock, patience.signal, () => resolve(LEFT_BEHIND));
    };
    const end = () => {
      isOver = true;
      patience?.abort();
    };
    running.then(
      (result) => {
        end();
        resolve(result);
      },
      (error: unknown) => {
        end();
        reject(error);
      },
    );
    stop.whenGiven(losePatience);
    // Also where the lease ends while a time limit is being waited for.
    if (outer !== stop) outer.whenGiven(losePatience);
  });
}

/** What the end of a stopped step is. Stopped by the service and safe to repeat: nobody's failure, so it takes no try. */
function ofStop(
  reason: LockstepError | null,
  step: ClaimedStep,
): (TaskResult & { kind: "error" }) | GivenBack {
  const message = textOfStop(reason);
  if (isLockstepError(reason, "JOB_TIME_LIMIT") || step.onCrash === "freeze")
    return { kind: "error", message };
  return { kind: "given-back", message };
}

const textOfStop = (reason: LockstepError | null) =>
  reason === null ? "it was stopped" : `${reason.code}: ${reason.message}`;

/** What was thrown, in words. A plug-in may throw anything, also what throws itself where it is read. */
function textOf(read: () => unknown): string {
  try {
    return String(read());
  } catch {
    return "something was thrown that cannot be read";
  }
}

const CAUSES_MAX = 4;

function ofError(error: unknown): TaskResult {
  const texts: string[] = [];
  for (let each = error; each !== undefined && texts.length < CAUSES_MAX; ) {
    const text = textOf(() => (each instanceof Error ? each.message : each));
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
    return { outcome: "deferred", deferMs: Math.max(DEFER_MS_MIN, Math.ceil(result.afterMs)), ...message };
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
