import {
  closeSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { identify, isRunning, ownIdentity, type ProcessIdentity } from "@lockstep/platform";
import { LockstepError } from "@lockstep/protocol/wire";

/** The exit status by which an engine asks its supervisor for an update. */
export const UPDATE_STATUS = 75;

/** Files of a service in its StateDirectory that outlive one run of it. */

/** An update that this service owes: written before the service ends for it, gone when the hub was told. */
export interface UpdateRecord {
  readonly format: "lockstep-job-update/1";
  /** The software revision that the hub wanted. */
  readonly revision: number;
  readonly steps: readonly { readonly queue: string; readonly step: number; readonly claim: number }[];
  readonly startedAt: number;
  /** Null: not tried yet. */
  readonly outcome: { readonly status: number; readonly message: string } | null;
}

const updateFile = (stateDirectory: string) => join(stateDirectory, "update.json");

/** Durable when it returns. */
export function writeUpdateRecord(stateDirectory: string, record: UpdateRecord): void {
  const file = updateFile(stateDirectory);
  writeFileSync(`${file}.new`, JSON.stringify(record), { mode: 0o600, flush: true });
  renameSync(`${file}.new`, file);
  const directory = openSync(stateDirectory, "r");
  try {
    fsyncSync(directory);
  } finally {
    closeSync(directory);
  }
}

/** Null: none is owed, or the file does not hold. */
export function readUpdateRecord(stateDirectory: string): UpdateRecord | null {
  try {
    const record = JSON.parse(readFileSync(updateFile(stateDirectory), "utf8")) as UpdateRecord;
    return record.format === "lockstep-job-update/1" && Array.isArray(record.steps) ? record : null;
  } catch {
    return null;
  }
}

export function dropUpdateRecord(stateDirectory: string): void {
  rmSync(updateFile(stateDirectory), { force: true });
}

/**
 * Makes this process the only engine on a StateDirectory; a lock of a dead one is taken over.
 * Throws SERVICE_ALREADY_RUNNING.
 */
export function lockState(stateDirectory: string): Disposable {
  mkdirSync(stateDirectory, { recursive: true, mode: 0o700 });
  const file = join(stateDirectory, "engine.lock");
  while (true) {
    try {
      writeFileSync(file, JSON.stringify(ownIdentity()), { mode: 0o600, flag: "wx" });
      return { [Symbol.dispose]: () => rmSync(file, { force: true }) };
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    }
    const holder = readIdentity(file);
    if (holder !== null && isRunning(holder) && identify(holder.pid) !== null)
      throw new LockstepError(
        "SERVICE_ALREADY_RUNNING",
        `process ${holder.pid} already serves ${stateDirectory}`,
        {
          expected: "one service for each StateDirectory",
          found: holder.pid,
          hint: "Stop the other one, or give this service a StateDirectory of its own.",
        },
      );
    rmSync(file, { force: true });
  }
}

function readIdentity(file: string): ProcessIdentity | null {
  try {
    const identity = JSON.parse(readFileSync(file, "utf8")) as ProcessIdentity;
    return typeof identity.pid === "number" ? identity : null;
  } catch {
    return null;
  }
}
