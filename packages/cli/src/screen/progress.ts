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

/** A rate and a time left that are taken from less than this say nothing. */
const RATE_AFTER_MS = 1_000;
const LEFT_AFTER_MS = 2_000;
/**
 * What a file costs beside its bytes, in bytes. A thousand small files take as long as one of some megabytes, so that by
 * bytes alone the time left would begin with minutes for the small ones and end in a moment with the large one.
 */
const FILE_COST_BYTES = 32 * 1024;
const REDRAW_MS = 100;
const LINE_MS = 10_000;
/** The rate is that of the last seconds, not since the beginning: a stalled transfer must look stalled. */
const RATE_WINDOW_MS = 5_000;
const BAR_WIDTH_MIN = 8;
const BAR_WIDTH_MAX = 24;

/**
 * Shows how far something is, on standard error: a bar that redraws itself for a person, now and then a plain line for
 * a log, nothing when quiet. Ends with one line that says what was done, where anything was.
 */
export class Progress {
  readonly #title: string;
  readonly #terminal: Terminal;
  readonly #clock: Pick<Clock, "monotonic">;
  readonly #write: (text: string) => void;
  readonly #startedAt: number;
  readonly #samples: { at: number; bytes: number; work: number }[] = [];
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
    this.#samples.push({ at: now, bytes: state.bytes, work: workOf(state.bytes, state.files) });
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

  /**
   * Removes the bar and says in one line what was done, if anything was. `said` replaces the usual words; null says
   * nothing.
   */
  finish(said?: string | null): void {
    this.#clear();
    const { bytes, files } = this.#state;
    if (said === null || (said === undefined && bytes === 0 && (files ?? 0) === 0)) return;
    const ms = this.#clock.monotonic() - this.#startedAt;
    const rate = ms >= RATE_AFTER_MS ? ` (${formatBytes((bytes * 1000) / ms)}/s)` : "";
    const what =
      files === undefined ? formatBytes(bytes) : `${counted(files, "file")}, ${formatBytes(bytes)}`;
    this.#write(`${said ?? `${this.#title}  ${what} in ${formatDuration(ms)}${rate}`}\n`);
  }

  #clear(): void {
    if (this.#drawn) this.#write("\r\u001b[2K");
    this.#drawn = false;
  }

  #pace(now: number): string {
    if (now - this.#startedAt < RATE_AFTER_MS) return "";
    const start = { at: this.#startedAt, bytes: 0, work: 0 };
    const from = this.#samples.length < 2 ? start : (this.#samples[0] ?? start);
    const ms = now - from.at;
    if (ms <= 0) return "";
    const rate = ((this.#state.bytes - from.bytes) * 1000) / ms;
    return `${formatBytes(rate)}/s${this.#left(now, from)}`;
  }

  /** The time left by the work of the last seconds, or nothing while nobody can say. */
  #left(now: number, from: { readonly at: number; readonly work: number }): string {
    const { bytes, bytesTotal, files, filesTotal } = this.#state;
    if (bytesTotal === null || now - this.#startedAt < LEFT_AFTER_MS) return "";
    const done = workOf(bytes, files);
    const rest = workOf(bytesTotal, files === undefined ? undefined : filesTotal) - done;
    const perMs = (done - from.work) / (now - from.at);
    return rest <= 0 || perMs <= 0 ? "" : `  ${formatDuration(rest / perMs)} left`;
  }
}

/** How much work bytes and files are together, in bytes. */
function workOf(bytes: number, files: number | undefined): number {
  return bytes + (files ?? 0) * FILE_COST_BYTES;
}

function describe(state: ProgressState): string {
  const { bytes, bytesTotal, files, filesTotal } = state;
  // Something goes on, and that is all there is to say.
  if (bytes === 0 && bytesTotal === null && files === undefined) return "...";
  const total = bytesTotal === null ? "" : ` of ${formatBytes(bytesTotal)}`;
  const counts =
    files === undefined
      ? ""
      : filesTotal === undefined
        ? `${counted(files, "file")}, `
        : `${formatCount(files)} of ${counted(filesTotal, "file")}, `;
  return `${counts}${formatBytes(bytes)}${total}`;
}

function bar({ bytes, bytesTotal, files, filesTotal }: ProgressState, width: number): string {
  const total = workOf(bytesTotal ?? 0, files === undefined ? undefined : filesTotal);
  const part = total === 0 ? 1 : Math.min(1, workOf(bytes, files) / total);
  const full = Math.floor(part * width);
  return `[${"#".repeat(full)}${"-".repeat(width - full)}] ${String(Math.floor(part * 100)).padStart(3)}%`;
}
