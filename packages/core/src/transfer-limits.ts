/**
 * How much of a line an update may take, and when.
 *
 * Three limits, each of the hub for all and of an installation for itself, which outranks the hub's: bytes in a second, times
 * of the day in which large transfers may run, and how many of them at once. Whoever asks gives the time, in the
 * installation's own zone: a window that says 22:00 means the night there.
 */
export interface TransferLimits {
  /** 0: no limit. */
  readonly bytesPerSecond: number;
  /** Times of the day, as `parseTransferWindow` takes them; empty: any. */
  readonly window: string;
  /** An update that fetches fewer bytes waits for no window. */
  readonly windowFromBytes: number;
  /** Answers with contents that are read at the same time. */
  readonly atOnce: number;
}

/** Those that somebody has set. */
export type TransferSettings = Partial<TransferLimits>;

export const DEFAULT_TRANSFER: TransferLimits = {
  bytesPerSecond: 0,
  window: "",
  windowFromBytes: 4 * 1024 * 1024,
  atOnce: 3,
};

/** Slower than that, a hub takes a reader for dead. */
export const BYTES_PER_SECOND_MIN = 20_000;
const BYTES_PER_SECOND_MAX = 100_000_000_000;
export const AT_ONCE_MAX = 3;
const MINUTES = 24 * 60;
/** What may pass at once after a pause, as a share of a second's bytes. */
const BURST_MS = 250;

/** A part of each day, in minutes after midnight; one that ends before it begins goes over midnight. */
interface DayWindow {
  readonly from: number;
  readonly to: number;
}

/**
 * Reads `22:00-05:00`, or several with commas between. Null: it is none. The empty text has no parts and closes nothing.
 */
export function parseTransferWindow(text: string): readonly DayWindow[] | null {
  if (text === "") return [];
  const windows: DayWindow[] = [];
  for (const part of text.split(",")) {
    const match = /^([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)$/.exec(part.trim());
    if (match === null) return null;
    const [, fromHour, fromMinute, toHour, toMinute] = match.map(Number);
    const window = {
      from: (fromHour ?? 0) * 60 + (fromMinute ?? 0),
      to: (toHour ?? 0) * 60 + (toMinute ?? 0),
    };
    if (window.from === window.to) return null;
    windows.push(window);
  }
  return windows;
}

/** Whether a large transfer may run at a minute of the day, and else in how many minutes it may. */
export function minutesUntilOpen(windows: readonly DayWindow[], minute: number): number {
  const waits = windows.map(({ from, to }) => {
    const length = (to - from + MINUTES) % MINUTES;
    const since = (minute - from + MINUTES) % MINUTES;
    return since < length ? 0 : MINUTES - since;
  });
  return waits.length === 0 ? 0 : Math.min(...waits);
}

/** The limits that hold: the installation's, else the hub's, else none. */
export function transferLimits(
  own: TransferSettings | undefined,
  hub: TransferSettings | undefined,
): TransferLimits {
  return { ...DEFAULT_TRANSFER, ...readTransferSettings(hub), ...readTransferSettings(own) };
}

/** What of an unknown value are settings; the rest is left out, so that a newer hub or updater does no harm. */
export function readTransferSettings(value: unknown): TransferSettings {
  if (typeof value !== "object" || value === null) return {};
  return Object.fromEntries(
    Object.entries(TRANSFER_CHECKS).flatMap(([name, accepts]) => {
      const found = (value as Record<string, unknown>)[name];
      return accepts(found) ? [[name, found]] : [];
    }),
  );
}

/** What each of them may hold. */
export const TRANSFER_CHECKS: Readonly<Record<keyof TransferLimits, (value: unknown) => boolean>> = {
  bytesPerSecond: (value) => value === 0 || isWithin(value, BYTES_PER_SECOND_MIN, BYTES_PER_SECOND_MAX),
  window: (value) => typeof value === "string" && value.length <= 200 && parseTransferWindow(value) !== null,
  windowFromBytes: (value) => isWithin(value, 0, Number.MAX_SAFE_INTEGER),
  atOnce: (value) => isWithin(value, 1, AT_ONCE_MAX),
};

function isWithin(value: unknown, min: number, max: number): boolean {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= min && value <= max;
}

/** How far the bytes that have passed reach, on the clock that only goes forward. */
export type BucketState = number;

/**
 * Takes bytes that have come, and says how long nobody may read on. Over any time t no more than `bytesPerSecond` times
 * (t + a quarter of a second) pass, and no less where something is always there to be read.
 */
export function takeBytes(
  state: BucketState | null,
  nowMs: number,
  bytes: number,
  bytesPerSecond: number,
): { readonly state: BucketState; readonly waitMs: number } {
  const earliest = nowMs - BURST_MS;
  const next = Math.max(state ?? earliest, earliest) + (bytes * 1000) / bytesPerSecond;
  return { state: next, waitMs: Math.max(0, next - nowMs) };
}
