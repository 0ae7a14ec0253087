import { readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { type Clock, type Logger, realDisk, silentLogger, systemClock } from "@lockstep/platform";
import { LockstepError } from "@lockstep/protocol/wire";
import { type ApplyContext, type RecoverResult, recover } from "./apply/index.ts";
import { isUnfinished, mayNotLook } from "./installation.ts";
import { guarded, unnamedIoFailure } from "./io-failure.ts";
import type { InstallationPaths } from "./layout.ts";
import { type HeldLock, lockedError, lookAtLock, tryLock } from "./lock-file.ts";
import { forgetPartial, salvage } from "./partial.ts";
import { PluginHost } from "./plugin-host.ts";
import { UpdateLog } from "./update-log.ts";

/**
 * Recover first: whoever comes to an installation finishes what an interrupted update left, before anything else.
 *
 * A recovery is no update: it needs no hub, fetches nothing and decides nothing. Only the plug-ins of the interrupted
 * run are asked once more whether the new files hold; which ones they were, the run noted before its commit.
 */
export interface RunNote {
  readonly run: string;
  /** Directory of the unpacked Update.zip, or null where the run had none. */
  readonly archive: string | null;
  readonly from: number | null;
  readonly to: number;
  readonly roles: readonly string[];
  readonly packages: readonly string[];
}

/** What applying needs of the machine. */
export function applyContext(
  paths: InstallationPaths,
  clock: Pick<Clock, "now" | "monotonic"> = systemClock,
  log: Pick<Logger, "info" | "warn"> = silentLogger,
): ApplyContext {
  return { disk: realDisk, root: paths.root, clock, log };
}

/** Notes what a recovery would have to know. Written before the commit comes into force. */
export function writeRunNote(paths: InstallationPaths, note: RunNote): void {
  const temporary = `${paths.run}.new`;
  guarded(paths.run, "writing", () => {
    writeFileSync(temporary, JSON.stringify(note), { mode: 0o600, flush: true });
    renameSync(temporary, paths.run);
  });
}

/** Forgets it. Only a record in force makes anybody read it, and the next run writes its own first: so it may stay. */
export function dropRunNote(paths: InstallationPaths): void {
  try {
    rmSync(paths.run, { force: true });
  } catch {
    // It stays.
  }
}

function readRunNote(paths: InstallationPaths): RunNote | null {
  try {
    const note = JSON.parse(readFileSync(paths.run, "utf8")) as RunNote;
    return typeof note.run === "string" && Array.isArray(note.roles) && Array.isArray(note.packages)
      ? note
      : null;
  } catch {
    return null;
  }
}

export interface RecoverOptions {
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly clock?: Clock;
  readonly log?: Pick<Logger, "info" | "warn">;
}

/**
 * Finishes an interrupted update under a lock of its own. Does nothing when there is none.
 * Throws INSTALLATION_LOCKED while another process works there (it is then its business), INSTALLATION_DAMAGED,
 * INSTALLATION_* .
 */
export async function recoverFirst(
  paths: InstallationPaths,
  options: RecoverOptions,
): Promise<RecoverResult> {
  if (!isUnfinished(paths)) return { kind: "nothing" };
  const clock = options.clock ?? systemClock;
  if (mayNotLook(paths)) {
    const holder = lookAtLock(paths, clock);
    throw holder === null ? unfinishable(paths) : lockedError(paths, holder);
  }
  const attempt = tryLock(paths, clock);
  if (attempt.kind === "held") throw lockedError(paths, attempt);
  try {
    return await recoverLocked(paths, attempt.lock, options);
  } catch (error) {
    throw unnamedIoFailure(error, paths.root);
  } finally {
    attempt.lock.release();
  }
}

/** An update was interrupted, perhaps in the middle of its switch, and this user can neither see nor mend it. */
function unfinishable(paths: InstallationPaths): LockstepError {
  return new LockstepError("INSTALLATION_NOT_WRITABLE", `an update of ${paths.root} was interrupted`, {
    expected: "no update.lock, or permission to finish what it stands for",
    found: "an update.lock whose processes are gone",
    hint: "Let the user who owns the installation run lockstep update: that finishes it. Until then nothing is started from it, since it may be half switched.",
  });
}

/** The same for a caller that holds the lock. Also saves what an unfinished run had fetched. */
export async function recoverLocked(
  paths: InstallationPaths,
  _lock: HeldLock,
  options: RecoverOptions,
): Promise<RecoverResult> {
  if (!isUnfinished(paths)) {
    salvage(paths);
    return { kind: "nothing" };
  }
  const clock = options.clock ?? systemClock;
  const note = readRunNote(paths);
  const log = new UpdateLog(paths, clock, note?.run);
  const plugins = note?.archive == null ? null : PluginHost.open(paths, note.archive, log);
  const context =
    note === null ? null : { from: note.from, to: note.to, roles: note.roles, packages: note.packages };
  const result = await recover(applyContext(paths, clock, options.log), {
    afterSwitch: async () => {
      if (plugins === null || context === null) return true;
      await plugins.afterSwitch(context, "switched");
      return true;
    },
  });
  if (result.kind === "rolled-back" && plugins !== null && context !== null)
    await plugins.afterSwitchQuietly(context, "rolled-back");
  if (result.kind !== "nothing")
    log.note("recover", null, "ok", result.kind === "rolled-back" ? result.reason : null, {
      from: result.from,
      to: result.to,
      outcome: result.kind,
    });
  dropRunNote(paths);
  if (result.kind === "finished") forgetPartial(paths);
  const unwritten = log.flush();
  if (unwritten !== null) options.log?.warn("update.log is not complete", { problem: unwritten });
  return result;
}
