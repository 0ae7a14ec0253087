/**
 * The updater, as the command line and other programs use it. What a check needs is loaded with this file; everything
 * else only when it is called, because most starts find nothing to do.
 */
import type { AgentOptions } from "./agent.ts";
import type { InstallationChange } from "./configure.ts";
import type { HubAccess } from "./hub-access.ts";
import type { InstallOptions } from "./install.ts";
import type { LaunchOptions } from "./launch.ts";
import type { LogBreak } from "./log-break.ts";
import type { Unreadable } from "./observe.ts";
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
export type { LogBreak } from "./log-break.ts";
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

/** What a verification could not read, as a failure; null where there is nothing of the kind. */
export async function notReadable(directory: string, unreadable: readonly Unreadable[]) {
  return (await import("./verify.ts")).notReadable(directory, unreadable);
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

/** Where update.log was altered; null when nobody did. */
export async function findLogBreak(directory: string) {
  const [{ locate }, log] = await Promise.all([import("./installation.ts"), import("./log-break.ts")]);
  return log.findLogBreak(locate(directory));
}

/** The error of an update.log that was altered: UPDATE_LOG_ALTERED. */
export async function logAltered(directory: string, found: LogBreak) {
  return (await import("./log-break.ts")).logAltered(directory, found);
}

/** What an installation trusts, to read from: for whoever verifies something before it gets there. */
export async function readTrusted(directory: string) {
  const { locate } = await import("./installation.ts");
  return (await import("./trust.ts")).trustStore(locate(directory));
}

/** Whose signatures count in an installation, and what it has seen of them. */
export async function showTrust(directory: string) {
  return await (await import("./trust-show.ts")).showTrust(directory);
}

/** What is signed now, whether or not something new is announced. */
export async function checkTrust(directory: string, options: SessionOptions) {
  return await (await import("./trust-check.ts")).checkTrust(directory, options);
}

/** Has the hub note the key of an installation, by a secret that is good once. Returns the id of the installation. */
export async function enrolInstallation(directory: string, access: HubAccess, secret: string) {
  const [{ locate, readInstallHead }, { hubOf }, { demandPrivate }, { enrol }] = await Promise.all([
    import("./installation.ts"),
    import("./hub-access.ts"),
    import("./private-directory.ts"),
    import("./identity.ts"),
  ]);
  const paths = locate(directory);
  const head = readInstallHead(paths);
  demandPrivate(paths);
  return await enrol(paths, hubOf(head.hub, access), secret, head.id);
}

/** Pins another root of trust. */
export async function pinRoot(directory: string, root: Uint8Array) {
  return await (await import("./trust-show.ts")).pinRoot(directory, root, {
    access: { environment: process.env },
  });
}

/** The records of update.log, oldest first. */
export async function readLog(directory: string) {
  const [{ locate }, { readUpdateLog }] = await Promise.all([
    import("./installation.ts"),
    import("./update-log.ts"),
  ]);
  return readUpdateLog(locate(directory));
}
