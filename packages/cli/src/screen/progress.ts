import type { Clock, Terminal } from "@lockstep/platform";
import { counted, formatBytes, formatCount, formatDuration } from "./format.ts";

/** What is known of something that takes time: bytes, and files where that says more. */
export interface ProgressState {
  readonly bytes: number;
  /** Null: nobody knows yet. */
  readonly bytesTotal: number | null;
  readonly files?: number;
  readonly filesTotal?: number;
}

const REDRAW_MS = 100;
const LINE_MS = 10_000;
/** The rate is that of the last seconds, not since the beginning: a stalled transfer must look stalled. */
const RATE_WINDOW_MS = 5_000;
const BAR_WIDTH_MIN = 8;
const BAR_WIDTH_MAX = 24;

/**
 * Shows how far something is, on standard error: a bar that redraws itself for a person, now and then a plain line for
 * a log, nothing when quiet. Always ends with one line that says what was done, at which rate.
 */
export class Progress {
  readonly #title: string;
  readonly #terminal: Terminal;
  readonly #clock: Pick<Clock, "monotonic">;
  readonly #write: (text: string) => void;
  readonly #startedAt: number;
  readonly #samples: { at: number; bytes: number }[] = [];
  #shownAt: number;
  #drawn = false;
  #state: ProgressState = { bytes: 0, bytesTotal: null };

  constructor(
    title: string,
    terminal: Terminal,
    clock: Pick<Clock, "monotonic">,
    write: (text: string) => void = (text) => process.stderr.write(text),
  ) {
    this.#title = title;
    this.#terminal = terminal;
    this.#clock = clock;
    this.#write = write;
    this.#startedAt = clock.monotonic();
    this.#shownAt = terminal.interactive ? Number.NEGATIVE_INFINITY : this.#startedAt;
  }

  update(state: ProgressState): void {
    this.#state = state;
    const now = this.#clock.monotonic();
    if (now - this.#shownAt < (this.#terminal.interactive ? REDRAW_MS : LINE_MS)) return;
    this.#shownAt = now;
    this.#samples.push({ at: now, bytes: state.bytes });
    while (this.#samples.length > 2 && now - (this.#samples[0]?.at ?? now) > RATE_WINDOW_MS)
      this.#samples.shift();
    if (!this.#terminal.interactive) {
      this.#write(`${this.#text(state, now)}\n`);
      return;
    }
    this.#write(`\r\u001b[2K${this.#line(state, now)}`);
    this.#drawn = true;
  }

  /** What fits into one line: a narrow terminal loses the count of files first, then length of the bar. */
  #line(state: ProgressState, now: number): string {
    const width = this.#terminal.columns - 1;
    const { bytes, bytesTotal } = state;
    const full = this.#text(state, now);
    const room = (text: string) => width - text.length - "[] 100% ".length;
    const text = room(full) >= BAR_WIDTH_MIN ? full : this.#text({ bytes, bytesTotal }, now);
    const barWidth = Math.min(BAR_WIDTH_MAX, room(text));
    const drawn = bytesTotal === null || barWidth < BAR_WIDTH_MIN ? "" : `${bar(state, barWidth)} `;
    return `${drawn}${text}`.slice(0, width);
  }

  #text(state: ProgressState, now: number): string {
    return `${this.#title}  ${describe(state)}  ${this.#pace(now)}`.trimEnd();
  }

  /** Removes the bar and says in one line what was done. `said` replaces the usual words; null says nothing. */
  finish(said?: string | null): void {
    this.#clear();
    if (said === null) return;
    const ms = this.#clock.monotonic() - this.#startedAt;
    const { bytes, files } = this.#state;
    const rate = ms > 0 ? ` (${formatBytes((bytes * 1000) / ms)}/s)` : "";
    const what =
      files === undefined ? formatBytes(bytes) : `${counted(files, "file")}, ${formatBytes(bytes)}`;
    this.#write(`${said ?? `${this.#title}  ${what} in ${formatDuration(ms)}${rate}`}\n`);
  }

  #clear(): void {
    if (this.#drawn) this.#write("\r\u001b[2K");
    this.#drawn = false;
  }

  #pace(now: number): string {
    const first = this.#samples[0] ?? { at: this.#startedAt, bytes: 0 };
    const from = this.#samples.length < 2 ? { at: this.#startedAt, bytes: 0 } : first;
    const ms = now - from.at;
    if (ms <= 0) return "";
    const rate = ((this.#state.bytes - from.bytes) * 1000) / ms;
    const { bytesTotal, bytes } = this.#state;
    const left =
      bytesTotal === null || bytes >= bytesTotal || rate <= 0
        ? ""
        : `  ${formatDuration(((bytesTotal - bytes) / rate) * 1000)} left`;
    return `${formatBytes(rate)}/s${left}`;
  }
}

function describe(state: ProgressState): string {
  const total = state.bytesTotal === null ? "" : ` of ${formatBytes(state.bytesTotal)}`;
  const files =
    state.files === undefined
      ? ""
      : `${formatCount(state.files)}${state.filesTotal === undefined ? "" : ` of ${formatCount(state.filesTotal)}`} files, `;
  return `${files}${formatBytes(state.bytes)}${total}`;
}

function bar(state: ProgressState, width: number): string {
  const total = state.bytesTotal ?? 0;
  const part = total === 0 ? 1 : Math.min(1, state.bytes / total);
  const full = Math.floor(part * width);
  return `[${"#".repeat(full)}${"-".repeat(width - full)}] ${String(Math.floor(part * 100)).padStart(3)}%`;
}
