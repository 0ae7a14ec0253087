import { createHash } from "node:crypto";

/**
 * For which installations there is an order, signed with the timestamp.
 *
 * That nothing is ordered has to be believed of somebody. Asking the hub itself costs each installation a connection of its own
 * with every update; said in the timestamp, it travels with what everybody needs anyway, also through a relay, and stands beside
 * the snapshot that the same signature makes the newest: who takes that snapshot has seen which orders there were.
 *
 * An installation stands in it by the beginning of a digest of its id and of the time of signing: all sites see the list, and it tells
 * them how many orders there are, but neither for whom nor whether they are the same as an hour ago. Two with the same beginning both
 * ask, and find out; nobody who is ordered is missing. What is not said here, is older than an hour or cannot be understood means:
 * ask. So whoever shows a timestamp from before an order hides it for an hour at most.
 */
export interface OrderedList {
  /** When it was signed, in milliseconds since 1970. */
  readonly createdAt: number;
  readonly marks: ReadonlySet<string>;
}

const FORMAT = 1;
/**
 * More than these are not listed, and everybody asks: a hub that moves its whole fleet by orders. These cost whoever updates some
 * 300 bytes, and asking 200.
 */
export const ORDERED_MAX = 64;
const MARK_LENGTH = 8;
const FRESH_MS = 3_600_000;
/** A clock that is further behind the hub's cannot tell how old it is. */
const SKEW_MS = 300_000;

/** The member of a timestamp that names these installations; empty where they are too many. */
export function describeOrdered(
  installations: readonly string[],
  createdAt: number,
): Readonly<Record<string, unknown>> {
  if (installations.length > ORDERED_MAX) return {};
  return { lockstep: { format: FORMAT, createdAt, orders: marksOf(installations, createdAt) } };
}

/** Whether a timestamp names exactly these. */
export function namesOrdered(
  timestamp: { readonly unrecognizedFields?: Record<string, unknown> | undefined },
  installations: readonly string[],
): boolean {
  const list = readOrdered(timestamp);
  if (list === null) return installations.length > ORDERED_MAX;
  const marks = marksOf(installations, list.createdAt);
  return (
    installations.length <= ORDERED_MAX &&
    marks.length === list.marks.size &&
    marks.every((mark) => list.marks.has(mark))
  );
}

/** Reads what a verified timestamp says; null: nothing that we understand. */
export function readOrdered(timestamp: {
  readonly unrecognizedFields?: Record<string, unknown> | undefined;
}): OrderedList | null {
  const member = timestamp.unrecognizedFields?.lockstep;
  if (typeof member !== "object" || member === null) return null;
  const { format, createdAt, orders }: { format?: unknown; createdAt?: unknown; orders?: unknown } = member;
  if (format !== FORMAT || !Number.isSafeInteger(createdAt) || !Array.isArray(orders)) return null;
  return orders.length <= ORDERED_MAX && orders.every(isMark)
    ? { createdAt: createdAt as number, marks: new Set(orders) }
    : null;
}

/** Whether an installation has to ask the hub itself. */
export function mayBeOrdered(list: OrderedList | null, installation: string, nowMs: number): boolean {
  if (list === null) return true;
  const ageMs = nowMs - list.createdAt;
  return ageMs > FRESH_MS || ageMs < -SKEW_MS || list.marks.has(markOf(installation, list.createdAt));
}

function marksOf(installations: readonly string[], createdAt: number): string[] {
  return [...new Set(installations.map((installation) => markOf(installation, createdAt)))].sort();
}

function markOf(installation: string, createdAt: number): string {
  return createHash("sha256")
    .update(`lockstep-ordered/${FORMAT}\n${createdAt}\n${installation}`)
    .digest("hex")
    .slice(0, MARK_LENGTH);
}

function isMark(value: unknown): value is string {
  return typeof value === "string" && /^[0-9a-f]{8}$/.test(value);
}
