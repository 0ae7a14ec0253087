import { linkSync, mkdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { isWithoutLinks, systemErrorCode } from "./disk.ts";

/**
 * Files that say who holds something, among processes that know nothing of each other but the disk.
 *
 * Making one is a single call that fails where a file stands already, and the file is whole from its first moment:
 * written beside, then linked. A lock that is made empty and filled afterwards looks like the leftover of a crash to
 * whoever comes in between, and is taken away from a living holder.
 *
 * Taking a stale one away is the dangerous part: two who find the same dead lock could each remove it, the second one
 * removing the first one's new lock. So only who holds the small take-over directory removes a lock, and looks again
 * before it does. That directory lives for a few system calls; one that is older than a minute belongs to a process that
 * died within them.
 *
 * Both throw the system's own errors.
 */
const TAKEOVER_AGE_MAX_MS = 60_000;

/**
 * Puts a whole lock in place. False: something stands there. `beside`: a name on the same file system that nobody else
 * uses.
 */
export function makeLockFile(file: string, text: string, beside: string, mode: number): boolean {
  // Durable first: after a power cut a name that was made in time could stand for an empty file.
  writeFileSync(beside, text, { flag: "wx", mode, flush: true });
  try {
    linkSync(beside, file);
    return true;
  } catch (error) {
    if (systemErrorCode(error) === "EEXIST") return false;
    if (!isWithoutLinks(error)) throw error;
    // The call that fails if the file is there has to do: half a lock for a moment.
    return writeNew(file, text, mode);
  } finally {
    removeQuietly(beside);
  }
}

function writeNew(file: string, text: string, mode: number): boolean {
  try {
    writeFileSync(file, text, { flag: "wx", mode });
    return true;
  } catch (error) {
    if (systemErrorCode(error) === "EEXIST") return false;
    throw error;
  }
}

/**
 * Removes a lock if it is stale, `isStale` looking once more. False: somebody else is doing just that.
 * `takeover`: the directory that says so, for all who come to this lock the same.
 */
export function removeStaleLock(
  file: string,
  takeover: string,
  now: number,
  isStale: () => boolean,
): boolean {
  try {
    mkdirSync(takeover, { mode: 0o700 });
  } catch (error) {
    if (systemErrorCode(error) !== "EEXIST") throw error;
    const madeAt = statSync(takeover, { throwIfNoEntry: false })?.mtimeMs ?? now;
    // Also one from the future: a clock that was set back must not make it last.
    if (Math.abs(now - madeAt) > TAKEOVER_AGE_MAX_MS) removeQuietly(takeover);
    return false;
  }
  try {
    if (isStale()) rmSync(file, { force: true });
    return true;
  } finally {
    removeQuietly(takeover);
  }
}

/** A leftover is no reason to fail: it is cleared with the others, or ignored when it is old. */
function removeQuietly(path: string): void {
  try {
    rmSync(path, { recursive: true, force: true });
  } catch {
    // It stays.
  }
}
