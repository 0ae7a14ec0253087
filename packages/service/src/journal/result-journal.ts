import { createHash } from "node:crypto";
import { type FileHandle, mkdir, open, rename } from "node:fs/promises";
import { dirname, join } from "node:path";
import { crc32 } from "node:zlib";
import { LockstepError, type StepResult } from "@lockstep/protocol/wire";

/**
 * Results that the hub has not taken yet, on disk, so that they outlive the service: one file for each queue.
 *
 * A line is a checksum and a JSON document: `{"r": result}` or `{"f": [claims]}` for those that the hub has. A result is
 * safe when its line was flushed. What stands behind the last whole line was being written when the service died, and
 * nobody was told that it was safe; it is cut off. A forgotten claim need not be flushed: told twice, the hub knows it.
 *
 * The file is written anew when it holds mostly what is forgotten, and emptied when all of it is. It does not grow beyond
 * a limit, and a full disk is an error that names itself: the service then begins no further steps.
 */
const FORMAT = "lockstep-job-results/1";
const BYTES_MAX = 256 * 1024 * 1024;
const COMPACT_BYTES = 1024 * 1024;

export class ResultJournal {
  readonly file: string;
  readonly #queue: string;
  readonly #bytesMax: number;
  readonly #kept = new Map<number, StepResult>();
  #handle: FileHandle;
  /** Up to here every line is whole. */
  #length: number;
  #order: Promise<unknown> = Promise.resolve();

  private constructor(file: string, queue: string, handle: FileHandle, bytesMax: number) {
    this.file = file;
    this.#queue = queue;
    this.#handle = handle;
    this.#bytesMax = bytesMax;
    this.#length = 0;
  }

  /** Opens the journal of a queue, with what a former run left. Throws JOB_JOURNAL_FAILED. */
  static async open(directory: string, queue: string, bytesMax = BYTES_MAX): Promise<ResultJournal> {
    const name = createHash("sha256").update(queue).digest("hex").slice(0, 16);
    const file = join(directory, `results-${name}.jsonl`);
    try {
      await mkdir(directory, { recursive: true, mode: 0o700 });
      const handle = await open(file, "a+", 0o600);
      const journal = new ResultJournal(file, queue, handle, bytesMax);
      await journal.#read();
      return journal;
    } catch (cause) {
      throw failure(file, cause);
    }
  }

  /** What the hub has not taken yet, in the order in which it was written. */
  get results(): readonly StepResult[] {
    return [...this.#kept.values()];
  }

  /** Resolves when these are safe. No results: tries whether writing works. Throws JOB_JOURNAL_FAILED. */
  write(results: readonly StepResult[]): Promise<void> {
    return this.#inOrder(async () => {
      const text = results.map((r) => formatLine({ r })).join("");
      const probe = text === "" ? formatLine({ f: [] }) : text;
      await this.#append(probe, true);
      for (const result of results) this.#kept.set(result.claim, result);
    });
  }

  /** The hub has these. */
  forget(claims: readonly number[]): void {
    void this.#inOrder(async () => {
      const kept = claims.filter((claim) => this.#kept.delete(claim));
      if (kept.length === 0) return;
      if (this.#kept.size === 0) await this.#empty();
      else await this.#append(formatLine({ f: kept }), false);
      if (this.#length > COMPACT_BYTES && this.#length > 2 * this.#keptBytes()) await this.#compact();
    }).catch(() => {
      // It stays, and is told once more after the next start: the hub knows it then.
    });
  }

  close(): Promise<void> {
    return this.#inOrder(() => this.#handle.close());
  }

  #inOrder<T>(act: () => Promise<T>): Promise<T> {
    const done = this.#order.then(act);
    this.#order = done.catch(() => {});
    return done;
  }

  async #read(): Promise<void> {
    const bytes = await this.#handle.readFile();
    let at = 0;
    for (let end = bytes.indexOf(10, at); end !== -1; end = bytes.indexOf(10, at)) {
      const entry = parseLine(bytes.toString("utf8", at, end));
      // One line that does not hold is no reason to lose those behind it: each stands for itself.
      if (entry !== null && "r" in entry) this.#kept.set(entry.r.claim, entry.r);
      else if (entry !== null) for (const claim of entry.f) this.#kept.delete(claim);
      at = end + 1;
    }
    this.#length = at;
    if (at < bytes.length) await this.#handle.truncate(at);
    if (at === 0) await this.#empty();
  }

  async #append(text: string, flush: boolean): Promise<void> {
    const bytes = Buffer.from(text, "utf8");
    try {
      if (this.#length + bytes.length > this.#bytesMax) {
        await this.#compact();
        if (this.#length + bytes.length > this.#bytesMax)
          throw Object.assign(new Error(`it holds ${this.#length} bytes`), { code: "EFBIG" });
      }
      await this.#handle.appendFile(bytes);
      if (flush) await this.#handle.datasync();
      this.#length += bytes.length;
    } catch (cause) {
      // A torn line in the middle would only be skipped, but a full disk must not fill up with halves.
      await this.#handle.truncate(this.#length).catch(() => {});
      throw failure(this.file, cause);
    }
  }

  async #empty(): Promise<void> {
    await this.#handle.truncate(0);
    this.#length = 0;
    await this.#append(formatHeader(this.#queue), false);
  }

  #keptBytes(): number {
    let sum = 0;
    for (const r of this.#kept.values()) sum += JSON.stringify(r).length + 20;
    return sum;
  }

  async #compact(): Promise<void> {
    const temporary = `${this.file}.new`;
    const text = formatHeader(this.#queue) + this.results.map((r) => formatLine({ r })).join("");
    const handle = await open(temporary, "w", 0o600);
    try {
      await handle.writeFile(text);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, this.file);
    const directory = await open(dirname(this.file), "r");
    try {
      await directory.sync();
    } finally {
      await directory.close();
    }
    const former = this.#handle;
    this.#handle = await open(this.file, "a+", 0o600);
    this.#length = Buffer.byteLength(text);
    await former.close();
  }
}

type Entry = { readonly r: StepResult } | { readonly f: readonly number[] };

function formatLine(entry: Entry | { readonly format: string; readonly queue: string }): string {
  const json = JSON.stringify(entry);
  return `${crc32(json).toString(16).padStart(8, "0")} ${json}\n`;
}

const formatHeader = (queue: string) => formatLine({ format: FORMAT, queue });

function parseLine(line: string): Entry | null {
  const json = line.slice(9);
  if (line[8] !== " " || crc32(json).toString(16).padStart(8, "0") !== line.slice(0, 8)) return null;
  const entry = JSON.parse(json) as Entry | { readonly format: string };
  return "format" in entry ? null : entry;
}

function failure(file: string, cause: unknown): LockstepError {
  if (cause instanceof LockstepError) return cause;
  const code = (cause as NodeJS.ErrnoException).code ?? "UNKNOWN";
  const full = code === "ENOSPC" || code === "EDQUOT" || code === "EFBIG";
  const problem = full
    ? code === "EFBIG"
      ? "it has reached its limit"
      : "the disk is full"
    : cause instanceof Error
      ? cause.message
      : String(cause);
  return new LockstepError("JOB_JOURNAL_FAILED", `results cannot be kept in ${file}: ${problem}`, {
    expected: "room for the results that the hub has not taken yet",
    found: code,
    hint: full
      ? "Make room there. No further step begins until then; results that are in memory go to the hub as soon as it answers."
      : "Look at the disk and at the permissions of StateDirectory. No further step begins until then.",
    cause,
  });
}
