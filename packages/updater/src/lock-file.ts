import { randomUUID } from "node:crypto";
import { existsSync, lstatSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import {
  decideLock,
  formatLock,
  type LockHolder,
  type LockObservation,
  type LockRecord,
  parseLock,
} from "@lockstep/core";
import {
  type Clock,
  hostName,
  isRunning,
  makeLockFile,
  ownIdentity,
  removeStaleLock,
  systemErrorCode,
} from "@lockstep/platform";
import { LockstepError } from "@lockstep/protocol/wire";
import { guarded } from "./io-failure.ts";
import type { InstallationPaths } from "./layout.ts";
import { demandPrivate } from "./private-directory.ts";

/** update.lock on the disk. How locks are made and taken over: platform/lock-file.ts. */
export interface HeldLock {
  readonly token: string;
  /** Whether the file still names this lock: false after a stall so long that somebody took it for dead. */
  isOurs(): boolean;
  /** Says that the holder still works. Does nothing when the lock is lost. */
  renew(): void;
  /** Removes the file if it is still ours. Never throws: a lock that cannot be removed is ignored by whoever comes next. */
  release(): void;
}

export type LockAttempt =
  | {
      readonly kind: "acquired";
      readonly lock: HeldLock;
      readonly ignored: "age" | "dead" | "unreadable" | null;
    }
  | { readonly kind: "held"; readonly by: readonly LockHolder[]; readonly host: string | null };

/** Locks that this process gave back, whether their file could be removed or not. */
const released = new Set<string>();

/** Looks at the lock and tries to get it, once. Throws INSTALLATION_NOT_WRITABLE and its kin. */
export function tryLock(paths: InstallationPaths, clock: Pick<Clock, "now">): LockAttempt {
  demandPrivate(paths);
  let ignored: "age" | "dead" | "unreadable" | null = null;
  // Each round is lost only to somebody else who made progress; a handful is plenty.
  for (let round = 0; round < 5; round++) {
    const record = newRecord(clock.now());
    if (create(paths, record)) return { kind: "acquired", lock: new FileLock(paths, clock, record), ignored };
    const observation = observe(paths.lock);
    const decision = decide(observation, clock.now());
    if (decision.kind === "held")
      return {
        kind: "held",
        by: decision.by,
        host: observation.kind === "record" ? observation.record.host : null,
      };
    if (decision.kind === "stale") {
      ignored = decision.reason;
      if (!removeStale(paths, clock.now())) break;
    }
  }
  return { kind: "held", by: [], host: null };
}

function decide(observation: LockObservation, now: number): ReturnType<typeof decideLock> {
  if (observation.kind === "record" && released.has(observation.record.token))
    return { kind: "stale", reason: "dead" };
  return decideLock(observation, now, hostName(), isRunning);
}

/** Whether somebody holds the lock, by looking alone: for whoever may not write here. */
export function lookAtLock(
  paths: InstallationPaths,
  clock: Pick<Clock, "now">,
): (LockAttempt & { readonly kind: "held" }) | null {
  const observation = observe(paths.lock);
  const decision = decide(observation, clock.now());
  if (decision.kind !== "held") return null;
  const host = observation.kind === "record" ? observation.record.host : null;
  return { kind: "held", by: decision.by, host };
}

/** Whether there is a lock that nobody holds any more. */
export function isLeftBehind(paths: InstallationPaths, clock: Pick<Clock, "now">): boolean {
  return existsSync(paths.lock) && lookAtLock(paths, clock) === null;
}

/** The error of whoever cannot wait for the lock. */
export function lockedError(
  paths: InstallationPaths,
  attempt: LockAttempt & { kind: "held" },
): LockstepError {
  const pids = attempt.by.map((holder) => holder.pid).join(", ");
  const where = attempt.host === null || attempt.host === hostName() ? "" : ` on ${attempt.host}`;
  return new LockstepError("INSTALLATION_LOCKED", `another update works on ${paths.root}`, {
    expected: "no living process in update.lock",
    found: pids === "" ? "a process that is just beginning" : `process ${pids}${where}`,
    hint: "Wait until it is done. A lock whose processes are gone, or that was not renewed for two hours, is ignored by itself.",
    retryAfterSeconds: 5,
  });
}

/**
 * Adds this process to a lock that the triggering program holds (domain 1.4: both write their id).
 * Throws INSTALLATION_LOCKED when the lock is not that one any more.
 */
export function joinLock(paths: InstallationPaths, token: string, clock: Pick<Clock, "now">): HeldLock {
  demandPrivate(paths);
  const observation = observe(paths.lock);
  if (observation.kind !== "record" || observation.record.token !== token)
    throw new LockstepError(
      "INSTALLATION_LOCKED",
      `the lock of ${paths.root} belongs to somebody else by now`,
      {
        expected: token,
        found: observation.kind === "record" ? observation.record.token : observation.kind,
        hint: "Run it again.",
      },
    );
  const record: LockRecord = {
    ...observation.record,
    renewedAt: clock.now(),
    holders: [...observation.record.holders, { ...ownIdentity(), purpose: "updater" }],
  };
  replace(paths, record);
  return new FileLock(paths, clock, record);
}

class FileLock implements HeldLock {
  readonly #paths: InstallationPaths;
  readonly #clock: Pick<Clock, "now">;
  readonly token: string;

  constructor(paths: InstallationPaths, clock: Pick<Clock, "now">, record: LockRecord) {
    this.#paths = paths;
    this.#clock = clock;
    this.token = record.token;
  }

  #found(): LockRecord | null {
    const observation = observe(this.#paths.lock);
    return observation.kind === "record" && observation.record.token === this.token
      ? observation.record
      : null;
  }

  isOurs(): boolean {
    return this.#found() !== null;
  }

  renew(): void {
    const record = this.#found();
    if (record !== null) replace(this.#paths, { ...record, renewedAt: this.#clock.now() });
  }

  release(): void {
    // First, so that it counts for no more than it is: the process that is named in it may run on for months.
    released.add(this.token);
    try {
      if (this.#found() !== null) rmSync(this.#paths.lock, { force: true });
    } catch {
      // What the lock was held for has its own outcome, which must not be hidden by this one.
    }
  }
}

function newRecord(now: number): LockRecord {
  return {
    token: randomUUID(),
    host: hostName(),
    createdAt: now,
    renewedAt: now,
    holders: [{ ...ownIdentity(), purpose: "trigger" }],
  };
}

/** Puts a whole lock in place if there is none. */
function create(paths: InstallationPaths, record: LockRecord): boolean {
  const beside = join(paths.privateDirectory, `lock-${record.token}`);
  return guarded(paths.lock, "making", () => makeLockFile(paths.lock, formatLock(record), beside, 0o644));
}

function replace(paths: InstallationPaths, record: LockRecord): void {
  const next = join(paths.privateDirectory, `lock-${record.token}-${process.pid}`);
  guarded(paths.lock, "renewing", () => {
    writeFileSync(next, formatLock(record), { mode: 0o644 });
    renameSync(next, paths.lock);
  });
}

function observe(path: string): LockObservation {
  let text: string;
  try {
    // A pipe in its place would keep a reader waiting.
    const found = lstatSync(path, { throwIfNoEntry: false });
    if (found !== undefined && !found.isFile()) return { kind: "unreadable", modifiedAt: found.mtimeMs };
    text = readFileSync(path, "utf8");
  } catch (error) {
    if (systemErrorCode(error) === "ENOENT") return { kind: "absent" };
    return { kind: "unreadable", modifiedAt: statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0 };
  }
  const record = parseLock(text);
  if (record !== null) return { kind: "record", record };
  return { kind: "unreadable", modifiedAt: statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0 };
}

/** Removes a lock that is stale. False when somebody else is doing just that. */
function removeStale(paths: InstallationPaths, now: number): boolean {
  const takeover = join(paths.privateDirectory, "lock-takeover");
  return guarded(paths.lock, "removing", () =>
    removeStaleLock(paths.lock, takeover, now, () => decide(observe(paths.lock), now).kind === "stale"),
  );
}
