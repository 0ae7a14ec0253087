import { randomUUID } from "node:crypto";
import {
  closeSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import {
  isRunning,
  makeLockFile,
  ownIdentity,
  type ProcessIdentity,
  removeStaleLock,
  systemErrorCode,
} from "@lockstep/platform";
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

/** A lock that cannot be read is believed for so long: somebody may be writing it where files have no second names. */
const UNREADABLE_MS = 5000;

/**
 * Makes this process the only engine on a StateDirectory; a lock of a dead one is taken over.
 * Throws SERVICE_ALREADY_RUNNING.
 */
export function lockState(stateDirectory: string): Disposable {
  mkdirSync(stateDirectory, { recursive: true, mode: 0o700 });
  const file = join(stateDirectory, "engine.lock");
  const token = randomUUID();
  const text = JSON.stringify({ ...ownIdentity(), token });
  while (!makeLockFile(file, text, `${file}.${token}`, 0o600)) {
    const now = Date.now();
    const holder = findHolder(file, now);
    if (
      holder === null &&
      removeStaleLock(file, `${file}.takeover`, now, () => findHolder(file, now) === null)
    )
      continue;
    const who = holder === null || holder === "unknown" ? "another process" : `process ${holder.pid}`;
    throw new LockstepError("SERVICE_ALREADY_RUNNING", `${who} already serves ${stateDirectory}`, {
      expected: "one service for each StateDirectory",
      found: who,
      hint: "Stop the other one, or give this service a StateDirectory of its own.",
    });
  }
  return {
    [Symbol.dispose]: () => {
      // Where it was taken for dead, the lock is somebody else's by now.
      if (readQuietly(file) === text) rmSync(file, { force: true });
    },
  };
}

/** Who holds the lock; null: nobody any more. */
function findHolder(file: string, now: number): ProcessIdentity | "unknown" | null {
  const text = readQuietly(file);
  if (text === null) return null;
  const holder = parseIdentity(text);
  if (holder !== null) return isRunning(holder) ? holder : null;
  const writtenAt = statSync(file, { throwIfNoEntry: false })?.mtimeMs ?? 0;
  return Math.abs(now - writtenAt) > UNREADABLE_MS ? null : "unknown";
}

function readQuietly(file: string): string | null {
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    if (systemErrorCode(error) === "ENOENT") return null;
    throw error;
  }
}

function parseIdentity(text: string): ProcessIdentity | null {
  try {
    const identity = JSON.parse(text) as ProcessIdentity;
    return typeof identity.pid === "number" ? identity : null;
  } catch {
    return null;
  }
}
