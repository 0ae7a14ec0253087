import { readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import type { Attempts } from "@lockstep/core";
import type { InstallationPaths } from "./layout.ts";

/** How often the current revision was tried here in vain, kept over restarts of the agent. */
export function readAttempts(paths: InstallationPaths): Attempts | null {
  try {
    const value = JSON.parse(readFileSync(paths.attempts, "utf8")) as Partial<Attempts>;
    return Number.isSafeInteger(value.revision) && Number.isSafeInteger(value.failures)
      ? (value as Attempts)
      : null;
  } catch {
    return null;
  }
}

/** Keeps or forgets (null) the count. Best effort: where it cannot be written, the agent's own memory has to do. */
export function writeAttempts(paths: InstallationPaths, attempts: Attempts | null): void {
  try {
    if (attempts === null) {
      rmSync(paths.attempts, { force: true });
      return;
    }
    writeFileSync(`${paths.attempts}.new`, JSON.stringify(attempts), { mode: 0o600 });
    renameSync(`${paths.attempts}.new`, paths.attempts);
  } catch {
    // A directory without permission: that is the failure that is being counted.
  }
}
