import { lstatSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { InstallationPaths } from "./layout.ts";

/**
 * What killed processes left in the private directory: a self-test, a file that was to be renamed, a lock that was never
 * put in place. Cleared by whoever has the lock next; nobody else writes any of it without the lock but a lock itself,
 * which lives under its first name for two system calls.
 */
const LEFTOVER =
  /^(self-test|plug-in-root|(state|run\.json|index|revision|attempts\.json)\.new|lock-[0-9a-f-]{36}(-\d+)?)$/;
const LOCK = /^lock-/;
const LOCK_AGE_MIN_MS = 60_000;

/** Clears it. The caller holds the lock, and no update is interrupted. Never throws: what stays, stays. */
export function clearLeftovers(paths: InstallationPaths, now: number): void {
  try {
    for (const name of readdirSync(paths.privateDirectory)) {
      if (!LEFTOVER.test(name)) continue;
      const path = join(paths.privateDirectory, name);
      const isYoung = LOCK.test(name) && Math.abs(now - lstatSync(path).mtimeMs) < LOCK_AGE_MIN_MS;
      if (!isYoung) rmSync(path, { recursive: true, force: true });
    }
  } catch {
    // The next one tries again.
  }
}
