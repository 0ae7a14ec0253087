import { setImmediate as nextTurn } from "node:timers/promises";
import type { Clock } from "@lockstep/platform";
import { isLockstepError, LockstepError } from "@lockstep/protocol/wire";

/**
 * Fetching from places that need not be trusted.
 *
 * Whoever answers may send without end (A7), a byte a minute (A8), something else (A9, A12), or break off. So a document
 * has a length that is not exceeded while it is read, a lowest rate, and a deadline over everything; what breaks off goes
 * on where it stopped, and what a mirror cannot deliver, or delivers wrongly, is asked of the next one. Whether a document
 * is the right one is decided by its reader, who is part of the attempt: a refusal is a reason to ask elsewhere.
 */
export interface Mirror {
  /** For messages. */
  readonly name: string;
  /**
   * Begins to fetch a document, from a byte on. Null: it does not exist there. The answer may begin at 0 whatever was
   * asked for. A connection that breaks throws out of `open` or out of `chunks`.
   */
  open(document: string, from: number, signal: AbortSignal): Promise<MirrorAnswer | null>;
}

export interface MirrorAnswer {
  /** The byte at which `chunks` begins. */
  readonly offset: number;
  readonly chunks: AsyncIterable<Uint8Array>;
}

export interface FetchLimits {
  /** Over all mirrors together. */
  readonly deadlineMs: number;
  /** Lowest rate, over each window; slower than that is a mirror that holds us up. */
  readonly rateBytesPerSecond: number;
  readonly rateWindowMs: number;
  /** How often what broke off is continued at one mirror. */
  readonly resumesMax: number;
}

export const DEFAULT_FETCH_LIMITS: FetchLimits = {
  deadlineMs: 120_000,
  rateBytesPerSecond: 256,
  rateWindowMs: 10_000,
  resumesMax: 2,
};

/** Who is woken so much too late stood still: what a mirror sent meanwhile lies there unread. */
const STOOD_STILL_MS = 2_000;
/** Nobody sleeps longer at once: of a long sleep most could be a standstill, and nobody would know. */
const SLEEP_MS_MAX = 1_000;

/** Where documents come from. */
export interface DocumentSource {
  /**
   * Fetches a document and has it accepted. `accept` throws what it has against the bytes; then the next mirror is
   * asked. Returns false when a mirror says that there is none and no other one delivers it. Throws what the preferred
   * mirror failed with when all failed.
   */
  fetch(document: string, bytesMax: number, accept: (bytes: Uint8Array) => Promise<void>): Promise<boolean>;
}

/** The mirrors in order, the first being preferred. `signal` ends everything. */
export class MirrorSource implements DocumentSource {
  readonly #mirrors: readonly Mirror[];
  readonly #clock: Clock;
  readonly #limits: FetchLimits;
  readonly #signal: AbortSignal | undefined;

  constructor(
    mirrors: readonly Mirror[],
    clock: Clock,
    limits: FetchLimits = DEFAULT_FETCH_LIMITS,
    signal?: AbortSignal,
  ) {
    this.#mirrors = mirrors;
    this.#clock = clock;
    this.#limits = limits;
    this.#signal = signal;
  }

  async fetch(
    document: string,
    bytesMax: number,
    accept: (bytes: Uint8Array) => Promise<void>,
  ): Promise<boolean> {
    const until = this.#clock.monotonic() + this.#limits.deadlineMs;
    let failure: unknown = null;
    let absent = this.#mirrors.length === 0;
    for (const mirror of this.#mirrors) {
      try {
        const bytes = await this.#fetchFrom(mirror, document, bytesMax, until);
        if (bytes !== null) {
          await accept(bytes);
          return true;
        }
        absent = true;
      } catch (error) {
        if (this.#signal?.aborted === true) throw error;
        // The first failure names the preferred mirror, which is the one that somebody looks after.
        failure ??= error;
      }
    }
    // One that lies about it, or is out of order, must not outweigh one that answers.
    if (!absent) throw failure;
    return false;
  }

  async #fetchFrom(
    mirror: Mirror,
    document: string,
    bytesMax: number,
    until: number,
  ): Promise<Uint8Array | null> {
    const held: Uint8Array[] = [];
    for (let tries = 0; ; tries++) {
      try {
        return await this.#attempt(mirror, document, bytesMax, until, held);
      } catch (error) {
        const broken =
          isLockstepError(error, "HUB_UNREACHABLE") && !(error instanceof TooSlow) && lengthOf(held) > 0;
        if (!broken || tries >= this.#limits.resumesMax || this.#clock.monotonic() >= until) throw error;
      }
    }
  }

  /** One request; what arrived stays in `held` when it breaks. */
  async #attempt(
    mirror: Mirror,
    document: string,
    bytesMax: number,
    until: number,
    held: Uint8Array[],
  ): Promise<Uint8Array | null> {
    const watch = new Watch(this.#clock, this.#limits, until, this.#signal, `${document} of ${mirror.name}`);
    try {
      const answer = await watch.over(mirror.open(document, lengthOf(held), watch.signal));
      if (answer === null) return null;
      if (answer.offset !== lengthOf(held)) held.length = 0;
      if (answer.offset !== lengthOf(held))
        throw watch.refuse("another part than asked for", 0, answer.offset);
      const chunks = answer.chunks[Symbol.asyncIterator]();
      try {
        for (;;) {
          const next = await watch.over(chunks.next());
          if (next.done === true) return Buffer.concat(held);
          watch.arrived(next.value.length);
          held.push(next.value);
          const length = lengthOf(held);
          if (length > bytesMax) {
            held.length = 0;
            throw watch.refuse("longer than allowed", bytesMax, length);
          }
        }
      } finally {
        // Not awaited: a mirror that hangs hangs here, too.
        void chunks.return?.()?.catch(() => {});
      }
    } finally {
      watch.end();
    }
  }
}

/** Going on there would be as slow. */
class TooSlow extends LockstepError {}

function lengthOf(chunks: readonly Uint8Array[]): number {
  return chunks.reduce((sum, chunk) => sum + chunk.length, 0);
}

/** Holds one request against deadline and rate. */
class Watch {
  readonly signal: AbortSignal;
  readonly #ended = new AbortController();
  readonly #clock: Clock;
  readonly #limits: FetchLimits;
  readonly #what: string;
  #until: number;
  #windowEnd: number;
  #windowBytes = 0;
  /** When this process is to go on: when who waits is to be woken, and at once where nobody waits. */
  #wakeAt: number;

  constructor(
    clock: Clock,
    limits: FetchLimits,
    until: number,
    outer: AbortSignal | undefined,
    what: string,
  ) {
    this.#clock = clock;
    this.#limits = limits;
    this.#until = until;
    this.#what = what;
    this.#wakeAt = clock.monotonic();
    this.#windowEnd = this.#wakeAt + limits.rateWindowMs;
    this.signal = outer === undefined ? this.#ended.signal : AbortSignal.any([outer, this.#ended.signal]);
  }

  /** Waits for a step of the request, no longer than is left of the window and the deadline. */
  async over<T>(step: Promise<T>): Promise<T> {
    const done = new AbortController();
    this.#beginAnewAfterStandstill();
    const late = this.#late(done.signal);
    // Whichever comes second is nobody's concern any more.
    late.catch(() => {});
    step.catch(() => {});
    try {
      return await Promise.race([step, late]);
    } finally {
      this.#beginAnewAfterStandstill();
      this.#wakeAt = this.#clock.monotonic();
      done.abort();
    }
  }

  /** Rejects when window or deadline have passed; never before, however soon the clock's sleep returns. */
  async #late(done: AbortSignal): Promise<never> {
    while (!done.aborted) {
      const leftMs = Math.min(this.#windowEnd, this.#until) - this.#clock.monotonic();
      if (leftMs <= 0) throw this.#tooSlow();
      const sleepMs = Math.min(leftMs, SLEEP_MS_MAX);
      this.#wakeAt = this.#clock.monotonic() + sleepMs;
      await this.#clock.sleep(sleepMs, done);
      this.#beginAnewAfterStandstill();
      await nextTurn();
    }
    return await new Promise<never>(() => {});
  }

  /** What time went by while this process stood still, no mirror held it up. */
  #beginAnewAfterStandstill(): void {
    const now = this.#clock.monotonic();
    const lateMs = now - this.#wakeAt;
    if (lateMs < STOOD_STILL_MS) return;
    this.#windowBytes = 0;
    this.#windowEnd = now + this.#limits.rateWindowMs;
    this.#until = Math.max(this.#until + lateMs, this.#windowEnd);
    this.#wakeAt = now;
  }

  /** Counts bytes. Throws when a window ended with too few of them. */
  arrived(bytes: number): void {
    this.#windowBytes += bytes;
    const now = this.#clock.monotonic();
    if (now >= this.#until) throw this.#tooSlow();
    if (this.#windowBytes < (this.#limits.rateBytesPerSecond * this.#limits.rateWindowMs) / 1000) {
      if (now >= this.#windowEnd) throw this.#tooSlow();
      return;
    }
    this.#windowBytes = 0;
    this.#windowEnd = now + this.#limits.rateWindowMs;
  }

  end(): void {
    this.#ended.abort();
  }

  refuse(problem: string, expected: number, found: number): LockstepError {
    return new LockstepError("HUB_ANSWER_INVALID", `${this.#what} is ${problem}`, {
      expected,
      found,
      hint: "Nothing was taken of it. Something answers there that does not mean well, or is no hub.",
    });
  }

  #tooSlow(): LockstepError {
    return new TooSlow("HUB_UNREACHABLE", `${this.#what} arrives too slowly`, {
      expected: `at least ${this.#limits.rateBytesPerSecond} bytes a second`,
      found: "less",
      hint: "Nothing was changed. It is tried again with the next check.",
    });
  }
}
