import { spawn } from "node:child_process";
import { accessSync, constants } from "node:fs";
import { systemClock } from "@lockstep/platform";
import { isLockstepError, LockstepError } from "@lockstep/protocol/wire";
import { type CheckResult, checkLocated } from "./check.ts";
import { connectHub } from "./hub-access.ts";
import { isUnfinished, locate, readInstalledRevision } from "./installation.ts";
import type { InstallationPaths } from "./layout.ts";
import { recoverFirst } from "./recovery.ts";
import { describeProblem } from "./report.ts";
import type { SessionOptions } from "./session.ts";
import { lookAtSignatures, reportPostponed, update } from "./update.ts";

/**
 * Starting a program of the installation in step (domain 1.4): check, update if need be, start.
 *
 * A program that can run is not kept from running by an update that cannot: when the hub is out of reach, the directory
 * cannot be written or the update fails, that is said and the program starts as it is. Only one thing keeps it from
 * starting: an update that stopped between its commit and its end and can be neither finished nor taken back, because
 * then its files may be of two revisions.
 */
export interface LaunchOptions extends SessionOptions {
  readonly program: string;
  readonly args: readonly string[];
  /** Asks the user whether to update now; null where there is nobody to ask. Only called where postponing is allowed. */
  readonly askPostpone: ((question: { from: number | null; to: number }) => Promise<boolean>) | null;
  /** Where messages go: one line each. */
  readonly say: (message: string) => void;
  /** How long to wait for another update before the program may start. */
  readonly updateWaitMs?: number;
  /** How long the question whether there is an update may take, in milliseconds; 5,000 unless given. */
  readonly checkTimeoutMs?: number;
}

export interface LaunchResult {
  readonly update: "in-step" | "updated" | "postponed" | "disabled" | "failed";
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** A program start must not wait long for a hub that is away. */
const CONNECT_TIMEOUT_MS = 3000;
const CHECK_TIMEOUT_MS = 5000;
const UPDATE_WAIT_MS = 10 * 60_000;
const ALLOW_POSTPONE = "Common/AutoUpdate/AllowOutOfTimeApps";

/**
 * Checks, updates and starts. Throws INSTALLATION_DAMAGED and its kin when the installation must not be started from,
 * INSTALLATION_LOCKED when another update does not end, PROGRAM_NOT_STARTED.
 */
export async function launch(directory: string, options: LaunchOptions): Promise<LaunchResult> {
  const paths = locate(directory);
  await recoverOrWait(paths, options);
  const outcome = await bringInStep(directory, paths, options);
  const ended = await start(paths, options);
  return { update: outcome, ...ended };
}

/** Finishes an interrupted update, or waits until whoever works there has: nobody starts in between (behaviour 29). */
async function recoverOrWait(paths: InstallationPaths, options: LaunchOptions): Promise<void> {
  const clock = options.clock ?? systemClock;
  const until = clock.monotonic() + (options.updateWaitMs ?? UPDATE_WAIT_MS);
  let told = false;
  while (isUnfinished(paths)) {
    try {
      await recoverFirst(paths, { environment: options.access.environment });
    } catch (error) {
      if (!isLockstepError(error, "INSTALLATION_LOCKED") || clock.monotonic() > until) throw error;
      if (!told) options.say("another update is being finished; the program starts after it");
      told = true;
      await clock.sleep(500, options.signal);
      if (options.signal?.aborted) throw error;
    }
  }
}

async function bringInStep(
  directory: string,
  paths: InstallationPaths,
  options: LaunchOptions,
): Promise<LaunchResult["update"]> {
  const access = { connectTimeoutMs: CONNECT_TIMEOUT_MS, ...options.access };
  try {
    const found = await checkInTime(paths, { ...options, access });
    const askedAt = (options.clock ?? systemClock).monotonic();
    if (found.kind === "in-step") return "in-step";
    if (!found.semaphore.autoUpdate || !found.head.settings.autoUpdate) {
      const where = found.semaphore.autoUpdate ? "in this installation" : "at the hub";
      options.say(
        `software revision ${found.semaphore.revision} is there, but automatic updates are switched off ${where}`,
      );
      return "disabled";
    }
    demandWritable(paths);
    const question = { from: found.installed, to: found.semaphore.revision };
    if (await isPostponed(directory, found.head.hub, question, { ...options, access })) return "postponed";
    options.say(`updating to software revision ${found.semaphore.revision}`);
    const result = await update(directory, {
      ...options,
      access,
      trigger: "launch",
      announced: { semaphore: found.semaphore, atMs: askedAt },
      lockWaitMs: options.updateWaitMs ?? UPDATE_WAIT_MS,
    });
    return result.kind === "updated" || result.kind === "in-step" ? "updated" : "in-step";
  } catch (error) {
    if (!isLockstepError(error)) throw error;
    if (isUnfinished(paths) || error.code === "INSTALLATION_DAMAGED") throw error;
    if (error.code === "UPDATE_POSTPONED") {
      options.say(`${error.message} (${error.expected}); the program starts as it is installed now`);
      return "postponed";
    }
    options.say(`${describeProblem(error)}${error.hint === undefined ? "" : ` ${error.hint}`}`);
    options.say("the program starts as it is installed now");
    return "failed";
  }
}

/** The check as a whole has a deadline: a hub that answers byte by byte must not keep a program from starting. */
async function checkInTime(paths: InstallationPaths, options: LaunchOptions): Promise<CheckResult> {
  const ms = options.checkTimeoutMs ?? CHECK_TIMEOUT_MS;
  const deadline = AbortSignal.timeout(ms);
  const signal = options.signal === undefined ? deadline : AbortSignal.any([options.signal, deadline]);
  try {
    return await checkLocated(paths, { access: options.access, signal });
  } catch (cause) {
    // A check writes nothing; where nobody but programs that start ever asks, the alarm is raised here. Best effort.
    if (isLockstepError(cause) && cause.code.startsWith("TRUST_"))
      await lookAtSignatures(paths.root, readInstalledRevision(paths)?.revision ?? 0, {
        ...options,
        signal: AbortSignal.timeout(ms),
      }).catch(() => {});
    if (!deadline.aborted || options.signal?.aborted) throw cause;
    throw new LockstepError("HUB_UNREACHABLE", "the hub did not answer the check in time", {
      expected: `an answer within ${ms / 1000} s`,
      found: "none",
      hint: "The next start asks again.",
      cause,
    });
  }
}

/** Before a question is asked or a byte is fetched: whether an update could be written at all. */
function demandWritable(paths: InstallationPaths): void {
  try {
    accessSync(paths.root, constants.W_OK);
  } catch (cause) {
    throw new LockstepError("INSTALLATION_NOT_WRITABLE", `${paths.root} cannot be written by this user`, {
      expected: "write permission",
      found: String((cause as NodeJS.ErrnoException).code),
      hint: "Let somebody with write permission run: lockstep update DIR.",
      cause,
    });
  }
}

async function isPostponed(
  directory: string,
  hub: Parameters<typeof connectHub>[0],
  question: { from: number | null; to: number },
  options: LaunchOptions,
): Promise<boolean> {
  if (options.askPostpone === null) return false;
  const client = await connectHub(hub, options.access, locate(directory));
  try {
    const settings = await client.settings({ signal: options.signal });
    if (settings[ALLOW_POSTPONE] !== true) return false;
  } finally {
    await client.close();
  }
  if (!(await options.askPostpone(question))) return false;
  options.say(`the update to revision ${question.to} is offered again at the next start`);
  await reportPostponed(directory, options, `the user postponed revision ${question.to}`);
  return true;
}

async function start(
  paths: InstallationPaths,
  options: LaunchOptions,
): Promise<{ status: number | null; signal: NodeJS.Signals | null }> {
  const child = spawn(options.program, [...options.args], {
    stdio: "inherit",
    env: programEnvironment(process.env),
  });
  const forward = (signal: NodeJS.Signals) => child.kill(signal);
  const signals = ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"] as const;
  for (const signal of signals) process.on(signal, forward);
  try {
    return await new Promise((resolve, reject) => {
      child.once("error", (cause: NodeJS.ErrnoException) =>
        reject(
          new LockstepError("PROGRAM_NOT_STARTED", `${options.program} could not be started`, {
            expected: "a program that can be run",
            found: cause.code ?? cause.message,
            hint: `Check the name and its permissions; programs of the installation stand below ${paths.root}.`,
            cause,
          }),
        ),
      );
      child.once("exit", (status, signal) => resolve({ status, signal }));
    });
  } finally {
    for (const signal of signals) process.off(signal, forward);
  }
}

/** The program gets our environment without what is meant for us alone. */
export function programEnvironment(environment: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(environment).filter(([name]) => !name.startsWith("LOCKSTEP_")));
}
