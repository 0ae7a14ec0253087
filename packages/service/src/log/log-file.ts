import { appendFileSync } from "node:fs";
import { type Clock, systemErrorCode } from "@lockstep/platform";
import type { LogFiles, LogHandle } from "./files.ts";
import { LogOvertaken, type LogOwner } from "./log-owner.ts";
import { rotate } from "./rotation.ts";

/**
 * One log file that rotates, and that can never hold anybody up.
 *
 * The caller gives a line and goes on at once. One operation at a time is under way, so a volume that hangs costs one
 * thread and some memory, not the service. What cannot be written waits (bounded, the oldest give way and are counted)
 * and is tried again; the lines keep their order, and none is written in part unless the machine dies.
 *
 * Each batch first looks whether the file under the name is still the open one: somebody may have moved or deleted it,
 * or the directory has only just come back.
 *
 * Not promised: lines given in the last milliseconds before a SIGKILL or a power cut.
 */
export interface LogFileOptions {
  readonly files: LogFiles;
  readonly clock: Clock;
  readonly place: LogPlace;
  /** On a volume that other machines reach: the right to write; null: whoever opens the log may write. */
  readonly owner?: LogOwner | null;
  /** Called when writing begins to fail, and with null when it works again; `lost` counts lines that gave way. */
  readonly onProblem: (problem: FileProblem | null, lost: number) => void;
}

export interface LogPlace {
  readonly path: string;
  readonly sizeBytesMax: number;
  readonly historySize: number;
}

export interface FileProblem {
  readonly problem: string;
  readonly error: unknown;
  /** Somebody else writes the log now; it is not tried again. */
  readonly isFinal: boolean;
}

const WAITING_LINES_MAX = 10_000;
const WAITING_BYTES_MAX = 16 * 1024 * 1024;
const BATCH_BYTES_MAX = 256 * 1024;
const RETRY_MS_MIN = 500;
const RETRY_MS_MAX = 30_000;
/** A log that cannot be rotated is still better than none: it grows, and the rotation is tried again after this. */
const ROTATE_AGAIN_MS = 60_000;
const CLOSE_MS = 2000;
/** In so many parts: while the whole process stands still one of them passes, and then what was written is heard of. */
const CLOSE_PARTS = 4;
/** Another process that writes the same log may rotate it at the same moment; so often in a row it is something else. */
const MEETINGS_MAX = 20;

export class LogFile {
  readonly #options: LogFileOptions;
  #place: LogPlace;
  #handle: LogHandle | null = null;
  #openedAt: string | null = null;
  #sizeBytes = 0;
  #waiting: Buffer[] = [];
  #waitingBytes = 0;
  /** Bytes of the first waiting line that are in the file already. */
  #begun = 0;
  /** The file in which it was begun. */
  #begunIn: string | null = null;
  /** Lines from the first on that are being written, and so must stay. */
  #underWay = 0;
  #lost = 0;
  #failing = false;
  #failures = 0;
  #rotateAfterMs = 0;
  #running: Promise<void> | null = null;
  #wake = new AbortController();
  #closed = false;
  #flushing: (() => void)[] = [];
  /** Rotations in a row that met another process at the same work. */
  #meetings = 0;
  /** Somebody with a higher fencing token writes the log now. */
  #isOvertaken = false;

  constructor(options: LogFileOptions) {
    this.#options = options;
    this.#place = options.place;
  }

  /** Takes a line with its line end. */
  append(line: string): void {
    if (this.#closed) return;
    if (this.#isOvertaken) {
      this.#lost++;
      return;
    }
    const bytes = Buffer.from(line);
    this.#waiting.push(bytes);
    this.#waitingBytes += bytes.length;
    while (this.#waiting.length > WAITING_LINES_MAX || this.#waitingBytes > WAITING_BYTES_MAX)
      this.#giveWay();
    this.#start();
  }

  /** Lines that gave way since the log was last well. */
  get lost(): number {
    return this.#lost;
  }

  /** Another path, size or history; tries again at once where writing failed. */
  move(place: LogPlace): void {
    this.#place = place;
    this.#rotateAfterMs = 0;
    this.#isOvertaken = false;
    this.#wake.abort();
    this.#start();
  }

  /** Resolves when everything given so far is written, or writing fails. */
  async flush(): Promise<void> {
    if (this.#running === null || this.#failures > 0) return;
    await new Promise<void>((resolve) => this.#flushing.push(resolve));
  }

  /**
   * Resolves when everything is written and the file is closed; or, with false, when a volume that hangs did not let
   * that happen in time: nobody's end may wait for it.
   */
  async close(waitMs = CLOSE_MS): Promise<boolean> {
    const inTime = new AbortController();
    const late = this.#wait(waitMs, inTime.signal).then(() => false);
    const isClosed = await Promise.race([this.#finish().then(() => true), late]);
    inTime.abort();
    this.#closed = true;
    return isClosed;
  }

  async #wait(waitMs: number, signal: AbortSignal): Promise<void> {
    for (let part = 0; part < CLOSE_PARTS && !signal.aborted; part++)
      await this.#options.clock.sleep(waitMs / CLOSE_PARTS, signal);
  }

  async #finish(): Promise<void> {
    await this.flush();
    this.#closed = true;
    this.#wake.abort();
    await this.#running;
    await this.#release();
  }

  /** Lines that are not in the file yet. */
  get waiting(): number {
    return this.#waiting.length;
  }

  /** For the very end of the process, when nothing else runs any more: a line may come twice, but none is missing. */
  writeNow(): void {
    if (this.#waiting.length === 0) return;
    const rest = Buffer.concat(this.#waiting);
    this.#waiting = [];
    try {
      // Under the name there may be the file of somebody who has taken over meanwhile; what is open is ours.
      if (this.#options.owner) this.#handle?.writeNow(rest);
      else appendFileSync(this.#place.path, rest);
    } catch {
      // There is nobody left to tell.
    }
  }

  #giveWay(): void {
    // The first one may be half written.
    const [gone] = this.#waiting.splice(Math.max(this.#underWay, this.#begun > 0 ? 1 : 0), 1);
    this.#waitingBytes -= gone?.length ?? 0;
    this.#lost++;
  }

  #start(): void {
    if (this.#running !== null || this.#waiting.length === 0 || this.#closed) return;
    this.#running = this.#run().finally(() => {
      this.#running = null;
      this.#start();
      if (this.#running === null) this.#endFlushing();
    });
  }

  #endFlushing(): void {
    for (const resolve of this.#flushing.splice(0)) resolve();
  }

  async #run(): Promise<void> {
    while (this.#waiting.length > 0 && !this.#closed) {
      try {
        await this.#writeBatch();
        this.#recover();
      } catch (error) {
        await this.#release();
        if (error instanceof LogOvertaken) {
          this.#yieldTo(error);
          return;
        }
        this.#fail("cannot be written", error);
        const delayMs = Math.min(RETRY_MS_MAX, RETRY_MS_MIN * 2 ** this.#failures++);
        this.#endFlushing();
        this.#wake = new AbortController();
        if (!this.#closed) await this.#options.clock.sleep(delayMs, this.#wake.signal);
      }
    }
  }

  /** Writes no more. What waits is not written by anybody. */
  #yieldTo(error: LogOvertaken): void {
    this.#isOvertaken = true;
    this.#lost += this.#waiting.length;
    this.#waiting = [];
    this.#waitingBytes = 0;
    this.#begun = 0;
    this.#failing = true;
    const problem = `${this.#place.path} is no longer written here: ${error.message}`;
    this.#options.onProblem({ problem, error, isFinal: true }, this.#lost);
  }

  #fail(what: string, error: unknown): void {
    if (this.#failing) return;
    this.#failing = true;
    const reason = error instanceof Error ? error.message : String(error);
    const problem = `${this.#place.path} ${what}: ${reason}`;
    this.#options.onProblem({ problem, error, isFinal: false }, this.#lost);
  }

  #recover(): void {
    this.#failures = 0;
    if (!this.#failing || this.#rotateAfterMs > 0) return;
    this.#failing = false;
    const lost = this.#lost;
    this.#lost = 0;
    this.#options.onProblem(null, lost);
  }

  async #writeBatch(): Promise<void> {
    const handle = await this.#open();
    const room = this.#place.sizeBytesMax - this.#sizeBytes;
    const count = this.#countFor(Math.min(room, BATCH_BYTES_MAX));
    if (count === 0 && this.#sizeBytes > 0 && (await this.#hasRotated())) return;
    this.#underWay = Math.max(count, 1);
    try {
      const batch = Buffer.concat(this.#waiting.slice(0, this.#underWay)).subarray(this.#begun);
      for (let done = 0; done < batch.length; ) {
        const written = await handle.write(batch.subarray(done));
        done += written;
        this.#sizeBytes += written;
        this.#settle(written);
      }
    } finally {
      this.#underWay = 0;
    }
  }

  /** How many waiting lines fit. */
  #countFor(bytesMax: number): number {
    let bytes = -this.#begun;
    let count = 0;
    for (const line of this.#waiting) {
      bytes += line.length;
      if (bytes > bytesMax) break;
      count++;
    }
    return count;
  }

  /** Takes written bytes off the waiting lines. */
  #settle(written: number): void {
    this.#begun += written;
    let count = 0;
    for (const line of this.#waiting) {
      if (this.#begun < line.length) break;
      this.#begun -= line.length;
      this.#waitingBytes -= line.length;
      count++;
    }
    this.#waiting.splice(0, count);
    this.#underWay -= count;
  }

  async #open(): Promise<LogHandle> {
    const { files, owner } = this.#options;
    const { path } = this.#place;
    if (this.#handle !== null && (await files.identify(path)) === this.#handle.identity) return this.#handle;
    const former = this.#openedAt === path ? this.#handle : null;
    await owner?.enter(path, former, () => this.#rotate());
    await this.#release();
    const handle = await files.open(path);
    this.#handle = handle;
    this.#openedAt = path;
    // Whoever was faster than we could look has opened the same file.
    await owner?.confirm(path);
    this.#sizeBytes = handle.sizeBytes;
    // What was begun in another file is begun anew here; in the same file it goes on where it stopped.
    if (this.#begun > 0 && handle.identity !== this.#begunIn) this.#begun = 0;
    if (handle.torn && this.#begun === 0) this.#sizeBytes += await handle.write(Buffer.from("\n"));
    this.#begunIn = handle.identity;
    return handle;
  }
  /** Returns false when the log could not be rotated and has to grow. */
  async #hasRotated(): Promise<boolean> {
    const { owner, clock } = this.#options;
    if (this.#rotateAfterMs > 0 && clock.monotonic() < this.#rotateAfterMs) return false;
    await this.#release();
    try {
      await owner?.confirm(this.#place.path);
      await this.#rotate();
      this.#rotateAfterMs = 0;
      this.#meetings = 0;
    } catch (error) {
      if (error instanceof LogOvertaken) throw error;
      const code = systemErrorCode(error);
      const met = (code === "EEXIST" || code === "ENOENT") && this.#meetings++ < MEETINGS_MAX;
      if (!met) {
        this.#rotateAfterMs = clock.monotonic() + ROTATE_AGAIN_MS;
        this.#fail("cannot be rotated, and grows", error);
      }
    }
    return true;
  }

  async #rotate(): Promise<void> {
    await rotate(this.#options.files, this.#place.path, this.#place.historySize);
  }

  async #release(): Promise<void> {
    const handle = this.#handle;
    this.#handle = null;
    await handle?.close().catch(() => {});
  }
}
