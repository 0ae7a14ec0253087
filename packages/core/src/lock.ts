/**
 * update.lock: who works on an installation (domain 1.4).
 *
 * The file holds the process that started the update and the updater itself. It is ignored when nobody of them lives
 * any more, and when it is older than two hours: a holder renews it while it works, so an old one belongs to a process
 * that hangs. A process id alone says too little, since ids are given out again: the moment at which the process began
 * belongs to it.
 */
export interface LockHolder {
  readonly pid: number;
  /** When the process began, in whatever words the system has; null where it has none. */
  readonly start: string | null;
  readonly purpose: "trigger" | "updater";
}

export interface LockRecord {
  /** Names this one lock: whoever holds it recognises it by this. */
  readonly token: string;
  readonly host: string;
  readonly createdAt: number;
  /** When the holder last said that it still works; milliseconds since 1970. */
  readonly renewedAt: number;
  readonly holders: readonly LockHolder[];
}

export const LOCK_AGE_MAX_MS = 2 * 60 * 60 * 1000;
/** How often a holder renews: often enough that a missed renewal or two do not matter. */
export const LOCK_RENEW_MS = 10 * 60 * 1000;

export type LockDecision =
  | { readonly kind: "free" }
  | { readonly kind: "stale"; readonly reason: "age" | "dead" | "unreadable" }
  | { readonly kind: "held"; readonly by: readonly LockHolder[] };

/** What is known of a lock file: nothing there, something unreadable (with its age), or a record. */
export type LockObservation =
  | { readonly kind: "absent" }
  | { readonly kind: "unreadable"; readonly modifiedAt: number }
  | { readonly kind: "record"; readonly record: LockRecord };

/** A file that is being written just now is unreadable for a moment; only after this time it counts as broken. */
const UNREADABLE_GRACE_MS = 5000;

/**
 * Whether a lock keeps us out. `isRunning` is asked only for processes of this machine; those of another one (a
 * directory on a file server) can be judged by age alone. A lock from the future counts as new for once its age
 * cannot be told, unless it is further ahead than it may be old.
 */
export function decideLock(
  observation: LockObservation,
  now: number,
  host: string,
  isRunning: (holder: LockHolder) => boolean,
): LockDecision {
  if (observation.kind === "absent") return { kind: "free" };
  if (observation.kind === "unreadable") {
    const age = Math.abs(now - observation.modifiedAt);
    return age > UNREADABLE_GRACE_MS ? { kind: "stale", reason: "unreadable" } : { kind: "held", by: [] };
  }
  const { record } = observation;
  if (Math.abs(now - record.renewedAt) > LOCK_AGE_MAX_MS) return { kind: "stale", reason: "age" };
  if (record.host !== host) return { kind: "held", by: record.holders };
  const running = record.holders.filter(isRunning);
  return running.length === 0 ? { kind: "stale", reason: "dead" } : { kind: "held", by: running };
}

/** Writes a lock as text. */
export function formatLock(record: LockRecord): string {
  return `${JSON.stringify({ format: "lockstep-lock/1", ...record })}\n`;
}

/** Reads a lock. Null when it is unreadable: cut off, or written by something else. */
export function parseLock(text: string): LockRecord | null {
  let value: Partial<Record<keyof LockRecord | "format", unknown>>;
  try {
    value = JSON.parse(text) as typeof value;
  } catch {
    return null;
  }
  if (typeof value !== "object" || value === null || value.format !== "lockstep-lock/1") return null;
  const { token, host, createdAt, renewedAt, holders } = value;
  if (typeof token !== "string" || typeof host !== "string") return null;
  if (typeof createdAt !== "number" || typeof renewedAt !== "number" || !Array.isArray(holders)) return null;
  const read: LockHolder[] = [];
  for (const holder of holders as Partial<LockHolder>[]) {
    if (!Number.isSafeInteger(holder?.pid)) return null;
    read.push({
      pid: holder.pid as number,
      start: typeof holder.start === "string" ? holder.start : null,
      purpose: holder.purpose === "updater" ? "updater" : "trigger",
    });
  }
  return { token, host, createdAt, renewedAt, holders: read };
}
