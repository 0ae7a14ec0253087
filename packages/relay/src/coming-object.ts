import { type FileHandle, open, readFile, rm, writeFile } from "node:fs/promises";
import type { IncomingMessage } from "node:http";
import type { Clock } from "@lockstep/platform";
import { type ContentEncoding, isLockstepError, LockstepError } from "@lockstep/protocol/wire";
import type { Upstream } from "./upstream.ts";

/**
 * One object on its way from the hub, for all who want it: it travels once, into a file, and whoever asked reads behind.
 *
 * The last piece is held back until the whole has been verified and kept, so nobody gets to the end of something wrong. A
 * cut goes on where it was, also after a restart of the relay: what has come stays, with the tag of what it is part of.
 */
export interface ObjectHead {
  readonly encoding: ContentEncoding;
  readonly type: string;
  readonly etag: string | null;
  /** Bytes as they travel, or null where the hub did not say. */
  readonly total: number | null;
}

export interface Wanted {
  readonly path: string;
  readonly accepts: "zstd" | "identity";
  readonly authorization: string | undefined;
  /** Seconds that the hub may let us wait before it answers. */
  readonly waitSeconds: number;
}

const HELD_BACK_BYTES = 64 * 1024;
const READ_BYTES = 128 * 1024;
const IDLE_TRIES_MAX = 4;
const PAUSE_MS = 500;

export class ComingObject {
  /** Settles when the hub has begun to answer. Rejects with what the hub says instead. */
  readonly head: Promise<ObjectHead>;
  /** Settles when everything is here, verified and kept. */
  readonly whole: Promise<void>;
  readonly #file: string;
  readonly #waiting = new Set<() => void>();
  #head: ObjectHead | null = null;
  #written = 0;
  #isWhole = false;
  #failure: { readonly error: unknown } | null = null;

  /** `keep` verifies what has come and takes the file over. `bytesMax`: nothing longer is taken. */
  constructor(
    hub: Upstream,
    wanted: Wanted,
    file: string,
    options: {
      readonly clock: Clock;
      readonly signal: AbortSignal;
      readonly bytesMax: number;
      readonly keep: (file: string, head: ObjectHead) => Promise<void>;
    },
  ) {
    this.#file = file;
    let begin: (head: ObjectHead) => void = () => {};
    let refuse: (error: unknown) => void = () => {};
    this.head = new Promise<ObjectHead>((resolve, reject) => {
      begin = resolve;
      refuse = reject;
    });
    this.whole = this.#bring(hub, wanted, options, begin).catch((error: unknown) => {
      this.#failure = { error };
      refuse(error);
      this.#wake();
      throw error;
    });
    this.head.catch(() => {});
    this.whole.catch(() => {});
  }

  /** The bytes from `start` to `end` (both included; null: to the last), as they come. Throws what ended it. */
  async *read(start: number, end: number | null): AsyncGenerator<Buffer, void> {
    const file = await open(this.#file, "r");
    try {
      let at = start;
      for (;;) {
        const safe = this.#isWhole ? this.#written : this.#written - HELD_BACK_BYTES;
        const stop = end === null ? safe : Math.min(end + 1, safe);
        if (at < stop) {
          const buffer = Buffer.allocUnsafe(Math.min(READ_BYTES, stop - at));
          const { bytesRead } = await file.read(buffer, 0, buffer.length, at);
          if (bytesRead > 0) {
            at += bytesRead;
            yield buffer.subarray(0, bytesRead);
            continue;
          }
        }
        if (this.#isWhole || (end !== null && at > end)) return;
        if (this.#failure !== null) throw this.#failure.error;
        await new Promise<void>((resolve) => this.#waiting.add(resolve));
      }
    } finally {
      await file.close();
    }
  }

  async #bring(
    hub: Upstream,
    wanted: Wanted,
    {
      clock,
      signal,
      bytesMax,
      keep,
    }: {
      readonly clock: Clock;
      readonly signal: AbortSignal;
      readonly bytesMax: number;
      readonly keep: (file: string, head: ObjectHead) => Promise<void>;
    },
    begin: (head: ObjectHead) => void,
  ): Promise<void> {
    const file = await open(this.#file, "a+", 0o600);
    try {
      await this.#resume(file);
      for (let idle = 0; ; ) {
        const before = this.#written;
        try {
          const response = await this.#ask(hub, wanted, signal);
          await this.#begin(file, response, begin);
          for await (const chunk of hub.chunks(response, signal)) {
            await file.appendFile(chunk);
            this.#written += chunk.length;
            if (this.#written > bytesMax) throw tooLong(wanted.path, bytesMax, this.#written);
            this.#wake();
          }
          const total = this.#head?.total ?? null;
          if (total === null || this.#written === total) break;
          if (this.#written > total) throw tooLong(wanted.path, total, this.#written);
          throw cut(wanted.path, total, this.#written);
        } catch (error) {
          idle = this.#written > before ? 1 : idle + 1;
          const passing = isLockstepError(error, "HUB_UNREACHABLE") && this.#head !== null;
          if (!passing || idle > IDLE_TRIES_MAX || signal.aborted) throw error;
          await clock.sleep(PAUSE_MS * idle, signal);
        }
      }
      if (this.#head !== null) await keep(this.#file, this.#head);
      await rm(`${this.#file}.head`, { force: true });
      this.#isWhole = true;
      this.#wake();
    } catch (error) {
      // What was cut goes on later; what is wrong must not.
      if (!isLockstepError(error, "HUB_UNREACHABLE", "HUB_BUSY")) await this.#drop();
      throw error;
    } finally {
      await file.close();
    }
  }

  async #ask(hub: Upstream, wanted: Wanted, signal: AbortSignal): Promise<IncomingMessage> {
    const { path, accepts, authorization, waitSeconds } = wanted;
    const etag = this.#head?.etag;
    const resumes = this.#written > 0 && etag;
    return await hub.send({
      method: "GET",
      path,
      headers: {
        "accept-encoding": accepts,
        ...(authorization === undefined ? {} : { authorization }),
        ...(resumes ? { range: `bytes=${this.#written}-`, "if-range": etag } : {}),
      },
      waitMs: waitSeconds * 1000,
      signal,
    });
  }

  async #begin(
    file: FileHandle,
    response: IncomingMessage,
    begin: (head: ObjectHead) => void,
  ): Promise<void> {
    const { headers, statusCode } = response;
    const encoding = headers["content-encoding"] ?? "identity";
    if (encoding !== "identity" && encoding !== "zstd") throw strange("its encoding", encoding);
    const range = /^bytes (\d+)-\d+\/(\d+)$/.exec(headers["content-range"] ?? "");
    const from = statusCode === 206 && range?.[1] !== undefined ? Number(range[1]) : 0;
    if (statusCode === 206 && from !== this.#written) throw strange("another range than asked for", from);
    const length = Number(headers["content-length"] ?? Number.NaN);
    const total = statusCode === 206 ? Number(range?.[2]) : length;
    const etag = headers.etag ?? null;
    if (from === 0 && this.#written > 0) {
      await file.truncate(0);
      this.#written = 0;
    }
    this.#head = {
      encoding,
      type: headers["content-type"] ?? "application/octet-stream",
      etag,
      total: Number.isSafeInteger(total) ? total : null,
    };
    await writeFile(`${this.#file}.head`, JSON.stringify(this.#head), { mode: 0o600 });
    begin(this.#head);
  }

  /** Goes on with what an earlier relay left, where it says what it is. */
  async #resume(file: FileHandle): Promise<void> {
    const { size } = await file.stat();
    if (size === 0) return;
    try {
      const head = JSON.parse(await readFile(`${this.#file}.head`, "utf8")) as ObjectHead;
      if (typeof head.etag !== "string") throw new TypeError("no tag");
      this.#head = head;
      this.#written = size;
    } catch {
      await file.truncate(0);
    }
  }

  async #drop(): Promise<void> {
    for (const path of [this.#file, `${this.#file}.head`])
      await rm(path, { force: true }).catch(() => undefined);
  }

  #wake(): void {
    for (const wake of this.#waiting) wake();
    this.#waiting.clear();
  }
}

function strange(what: string, found: string | number): LockstepError {
  return new LockstepError("HUB_ANSWER_INVALID", `the hub's answer is unusable: ${what}`, { found });
}

function tooLong(path: string, expected: number, found: number): LockstepError {
  return new LockstepError("HUB_ANSWER_INVALID", `the hub's answer to ${path} does not end`, {
    expected: `at most ${expected} bytes`,
    found,
    hint: "Nothing of it was kept. Look at what answers at the hub's address.",
  });
}

function cut(path: string, expected: number, found: number): LockstepError {
  return new LockstepError("HUB_UNREACHABLE", `the hub's answer to ${path} ended too early`, {
    expected: `${expected} bytes`,
    found,
    hint: "It goes on where it was cut.",
  });
}
