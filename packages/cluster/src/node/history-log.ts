import { appendFile, mkdir, readFile, rename, stat } from "node:fs/promises";
import { join } from "node:path";
import { HISTORY_ENTRY, type HistoryEntry } from "@lockstep/core";
import type { Clock, Logger } from "@lockstep/platform";
import type { Documents } from "../coordination/documents.ts";
import { HISTORY, historyAt } from "../documents/addresses.ts";

/**
 * What this node saw and did, in order: in the store for everybody, its newest thousand entries, and in a file of this
 * machine for the time when the store is away. Nothing waits for it. What the store does not take now it is given later,
 * in the same order, so that a history without a gap is one in which nothing is missing.
 */
export interface HistoryOptions {
  readonly node: string;
  readonly documents: Documents;
  readonly directory: string;
  readonly clock: Clock;
  readonly log: Logger;
}

export type HistoryNews = Pick<HistoryEntry, "server" | "token" | "what" | "detail">;

const KEPT = 1_000;
const PENDING_MAX = 1_000;
const FILE_BYTES_MAX = 4 * 1024 * 1024;
const RETRY_MS = 500;
const DETAIL_MAX = 4_000;
const WHAT_MAX = 100;

export class HistoryLog {
  readonly #options: HistoryOptions;
  readonly #file: string;
  readonly #ending = new AbortController();
  readonly #pending: (HistoryNews & { readonly at: number })[] = [];
  #running: Promise<void> | null = null;
  #last: number | null = null;
  #sizeBytes = 0;

  constructor(options: HistoryOptions) {
    this.#options = options;
    this.#file = join(options.directory, "history.jsonl");
  }

  /** Writes down that something happened now. */
  add(news: HistoryNews): void {
    const { log, clock } = this.#options;
    log.info(news.what, {
      ...(news.server === null ? {} : { server: news.server }),
      ...(news.token === null ? {} : { token: news.token }),
      detail: news.detail,
    });
    if (this.#ending.signal.aborted) return;
    if (this.#pending.length >= PENDING_MAX) this.#pending.shift();
    this.#pending.push({
      ...news,
      what: news.what.slice(0, WHAT_MAX),
      detail: news.detail.slice(0, DETAIL_MAX),
      at: clock.now(),
    });
    this.#running ??= this.#flush();
  }

  /** Tries for so long to write the rest. */
  async close(withinMs: number): Promise<void> {
    const limit = this.#options.clock.sleep(withinMs, this.#ending.signal);
    await Promise.race([this.#running, limit]);
    this.#ending.abort();
    await this.#running;
    await this.#keepRest();
  }

  /** What the store did not take is in the file alone; the numbers go on behind it, so that the gap shows. */
  async #keepRest(): Promise<void> {
    if (this.#pending.length === 0) return;
    let number = this.#last ?? (await this.#findLastInFile());
    for (const news of this.#pending.splice(0)) {
      number += 1;
      await this.#appendToFile(`${HISTORY_ENTRY.format({ ...news, node: this.#options.node, number })}\n`);
    }
  }

  async #flush(): Promise<void> {
    const { clock, log } = this.#options;
    let isTold = false;
    while (this.#pending.length > 0 && !this.#ending.signal.aborted) {
      try {
        this.#last ??= await this.#findLast();
        await this.#writeFirst(this.#last + 1);
        isTold = false;
      } catch (error) {
        if (!isTold) log.warn("the history could not be written", { error });
        isTold = true;
        await clock.sleep(RETRY_MS, this.#ending.signal);
      }
    }
    // At once, not when somebody learns that this has ended: what is added in between would lie until the next.
    this.#running = null;
  }

  async #writeFirst(number: number): Promise<void> {
    const { node, documents } = this.#options;
    const [news] = this.#pending;
    if (news === undefined) return;
    const entry: HistoryEntry = { ...news, node, number };
    const text = HISTORY_ENTRY.format(entry);
    const { key } = historyAt(node, number);
    // Taken: by a try of ours whose answer was lost, or by another life; then a later number does.
    const written = await documents.write(key, 0, text);
    this.#last = number;
    if (written === null && (await documents.read(key))?.text !== text) return;
    this.#pending.shift();
    await this.#appendToFile(`${text}\n`);
    if (number > KEPT) {
      const old = historyAt(node, number - KEPT).key;
      const present = await documents.read(old);
      if (present !== null) await documents.write(old, present.revision, null);
    }
  }

  async #findLast(): Promise<number> {
    const { node, documents } = this.#options;
    const keys = [...(await documents.list(`${HISTORY.prefix}${node}/`)).keys()];
    const inStore = Math.max(0, ...keys.map((key) => Number(key.slice(key.lastIndexOf("/") + 1))));
    return Math.max(inStore, await this.#findLastInFile());
  }

  async #findLastInFile(): Promise<number> {
    try {
      await mkdir(this.#options.directory, { recursive: true, mode: 0o700 });
      const text = await readFile(this.#file, "utf8");
      this.#sizeBytes = Buffer.byteLength(text);
      const parsed = HISTORY_ENTRY.parse(text.trimEnd().split("\n").at(-1) ?? "");
      return parsed.ok ? parsed.value.number : 0;
    } catch {
      return 0;
    }
  }

  /** A disk that is full costs the file's entry, not the store's. */
  async #appendToFile(line: string): Promise<void> {
    try {
      if (this.#sizeBytes > FILE_BYTES_MAX) {
        await rename(this.#file, `${this.#file}.1`);
        this.#sizeBytes = 0;
      }
      await appendFile(this.#file, line, { mode: 0o600 });
      this.#sizeBytes = this.#sizeBytes === 0 ? (await stat(this.#file)).size : this.#sizeBytes + line.length;
    } catch (error) {
      this.#options.log.warn("the history file could not be written", { file: this.#file, error });
    }
  }
}
