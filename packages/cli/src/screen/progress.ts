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
const BAR_WIDTH = 24;

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
    const text = `${this.#title}  ${describe(state)}  ${this.#pace(now)}`;
    if (!this.#terminal.interactive) {
      this.#write(`${text.trimEnd()}\n`);
      return;
    }
    const width = this.#terminal.columns - 1;
    this.#write(`\r\u001b[2K${(state.bytesTotal === null ? text : `${bar(state)} ${text}`).slice(0, width)}`);
    this.#drawn = true;
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
      bytesTotal === null || rate <= 0
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

function bar(state: ProgressState): string {
  const total = state.bytesTotal ?? 0;
  const part = total === 0 ? 1 : Math.min(1, state.bytes / total);
  const full = Math.floor(part * BAR_WIDTH);
  return `[${"#".repeat(full)}${"-".repeat(BAR_WIDTH - full)}] ${String(Math.floor(part * 100)).padStart(3)}%`;
}
