/**
 * The updater, as the command line and other programs use it. What a check needs is loaded with this file; everything
 * else only when it is called, because most starts find nothing to do.
 */
import type { AgentOptions } from "./agent.ts";
import type { InstallationChange } from "./configure.ts";
import type { InstallOptions } from "./install.ts";
import type { LaunchOptions } from "./launch.ts";
import type { PlanOptions } from "./plan.ts";
import type { ReselectOptions } from "./reselect.ts";
import type { SessionOptions } from "./session.ts";
import type { UpdateOptions } from "./update.ts";
import type { RepairOptions, VerifyOptions } from "./verify.ts";

export type { AgentEvent, AgentOptions } from "./agent.ts";
export { type CheckOptions, type CheckResult, check } from "./check.ts";
export type { InstallationChange } from "./configure.ts";
export type { HubAccess } from "./hub-access.ts";
export type { InstallOptions } from "./install.ts";
export type { LaunchOptions, LaunchResult } from "./launch.ts";
export type { PlanOptions } from "./plan.ts";
export type { ProgressEvent, ProgressListener, ProgressPhase } from "./progress.ts";
export type { ReselectOptions, ReselectResult } from "./reselect.ts";
export type { RollbackOutcome } from "./rollback.ts";
export type { KeptFile, PlanDocument, RunResult } from "./run-types.ts";
export type { SessionOptions } from "./session.ts";
export type { DisabledUpdate, UpdateOptions, UpdateResult } from "./update.ts";
export type { LogRecord } from "./update-log.ts";
export type { Damage, RepairOptions, RepairResult, VerifyOptions, VerifyResult } from "./verify.ts";
export { UPDATER_VERSION } from "./version.ts";

/** Makes a directory an installation of the given machine roles and packages. */
export async function install(directory: string, options: InstallOptions) {
  return await (await import("./install.ts")).install(directory, options);
}

/** What an update would do, and why. */
export async function plan(directory: string, options: PlanOptions) {
  return await (await import("./plan.ts")).plan(directory, options);
}

/** Brings an installation to the current software revision. */
export async function update(directory: string, options: UpdateOptions) {
  return await (await import("./update.ts")).update(directory, options);
}

/** Holds every installed file against what is recorded of it. */
export async function verify(directory: string, options: VerifyOptions) {
  return await (await import("./verify.ts")).verify(directory, options);
}

/** Brings every file back to what is installed. */
export async function repair(directory: string, options: RepairOptions) {
  return await (await import("./verify.ts")).repair(directory, options);
}

/** Takes the last update back. */
export async function rollback(directory: string, options: SessionOptions) {
  return await (await import("./rollback.ts")).rollback(directory, options);
}

/** Brings an installation in step and starts a program of it. */
export async function launch(directory: string, options: LaunchOptions) {
  return await (await import("./launch.ts")).launch(directory, options);
}

/** Keeps installations in step until the signal comes. */
export async function runAgent(options: AgentOptions) {
  return await (await import("./agent.ts")).runAgent(options);
}

/** Changes or reads the settings of an installation. */
export async function configure(directory: string, change: InstallationChange, options: SessionOptions) {
  return await (await import("./configure.ts")).configure(directory, change, options);
}

/** Changes which machine roles and packages an installation has, at the software revision that it is at. */
export async function reselect(directory: string, options: ReselectOptions) {
  return await (await import("./reselect.ts")).reselect(directory, options);
}

/** The records of update.log, oldest first. */
export async function readLog(directory: string) {
  const [{ locate }, { readUpdateLog }] = await Promise.all([
    import("./installation.ts"),
    import("./update-log.ts"),
  ]);
  return readUpdateLog(locate(directory));
}
