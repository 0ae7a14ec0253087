import type { ServerResponse } from "node:http";
import type { LogRecord, LogWriter } from "../log/types.ts";

/**
 * Tells open pages what changed, by server-sent events (WHATWG HTML, section 9.2).
 *
 * One look at the state a second for all of them, and none while nobody looks. A reader that does not take what it is
 * sent is let go: it comes back by itself.
 */
export interface EventStreamOptions {
  readonly log: Pick<LogWriter, "follow" | "recent">;
  /** The changing part of the page as HTML. */
  readonly renderState: () => string;
  /** Tells one run of the service from the next. */
  readonly instance: () => string;
}

const READERS_MAX = 50;
const PERIOD_MS = 1000;
const WAITING_BYTES_MAX = 1024 * 1024;
/** A proxy may cut a connection on which nothing is said. */
const SILENCE_PERIODS_MAX = 15;

export class EventStream {
  readonly #options: EventStreamOptions;
  readonly #readers = new Set<ServerResponse>();
  #records: LogRecord[] = [];
  #last = "";
  #silence = 0;
  #timer: NodeJS.Timeout | null = null;
  #unfollow: (() => void) | null = null;

  constructor(options: EventStreamOptions) {
    this.#options = options;
  }

  /** Whether one more reader may come. */
  get hasRoom(): boolean {
    return this.#readers.size < READERS_MAX;
  }

  /** Takes a reader over, whose headers are written. `after`: the newest record that it has. */
  add(response: ServerResponse, after: number, instance: string | null): void {
    if (this.#timer === null) this.#begin();
    this.#readers.add(response);
    response.once("close", () => this.#remove(response));
    response.write(`retry: 3000\nid: ${this.#options.instance()}\n\n`);
    // The page is of another run: numbers of records mean something else there.
    if (instance !== null && instance !== this.#options.instance()) response.write(format("restart", true));
    const missed = this.#options.log.recent().filter(({ number }) => number > after);
    if (missed.length > 0) response.write(format("log", missed));
    response.write(format("state", this.#options.renderState()));
  }

  close(): void {
    for (const response of this.#readers) response.end();
    this.#readers.clear();
    this.#end();
  }

  #begin(): void {
    this.#unfollow = this.#options.log.follow((record) => this.#records.push(record));
    this.#timer = setInterval(() => this.#tell(), PERIOD_MS);
    this.#timer.unref();
  }

  #end(): void {
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#timer = null;
    this.#unfollow?.();
    this.#unfollow = null;
    this.#records = [];
    this.#last = "";
  }

  #remove(response: ServerResponse): void {
    this.#readers.delete(response);
    if (this.#readers.size === 0) this.#end();
  }

  #tell(): void {
    const parts: string[] = [];
    const records = this.#records.splice(0);
    if (records.length > 0) parts.push(format("log", records.slice(-500)));
    const state = this.#options.renderState();
    if (state !== this.#last) parts.push(format("state", state));
    this.#last = state;
    if (parts.length === 0 && ++this.#silence >= SILENCE_PERIODS_MAX) parts.push(": still here\n\n");
    if (parts.length === 0) return;
    this.#silence = 0;
    const text = parts.join("");
    for (const response of this.#readers)
      if (response.writableLength > WAITING_BYTES_MAX) response.destroy();
      else response.write(text);
  }
}

/** JSON has no line ends, so it is one line of data. */
function format(event: string, data: unknown): string {
  return `event: ${event}\ndata: ${JSON.stringify(data)}\n\n`;
}
