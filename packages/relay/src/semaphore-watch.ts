import type { Clock, Logger } from "@lockstep/platform";
import { LockstepError, readSignedMark, type Semaphore, SIGNED_HEADER } from "@lockstep/protocol/wire";
import type { Upstream } from "./upstream.ts";

/**
 * The software revision, for all neighbours by one question.
 *
 * While anybody asks, one long poll lies at the hub: so the value that is shown is the hub's own, as of the moment in which
 * the hub moved it, and no neighbour's question costs the uplink anything. Nobody asked for a while: the poll ends, and the
 * next one who comes is answered by a question of its own. When the hub is away nobody is told a value: an old one would
 * read like "nothing new".
 *
 * A hub may announce another revision to an installation that is ordered to one. So, unless the hub says that there are no
 * orders, each that names itself is asked for, by a conditional question of its own, when the value moved and every five
 * minutes. The poll is also answered when there are other orders: there is another timestamp then, which says for whom.
 */
export interface Shown {
  readonly revision: number;
  readonly text: string;
  /** What the hub says of what is signed now; it goes on as it came. */
  readonly signed: string | null;
}

const POLL_SECONDS = 50;
/** The poll goes on for so long after somebody asked. */
const LINGER_MS = 120_000;
/** Between two questions, should a hub not let anybody wait. */
const PAUSE_MS = 1_000;
const BYTES_MAX = 64 * 1024;
const OWN_MS = 300_000;
const OWN_MAX = 10_000;
const NO_ORDERS = "none";
const ORDERS_MARK = /^(none|[0-9a-f]{8})$/;

export class SemaphoreWatch {
  readonly #hub: Upstream;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #stopping: AbortSignal;
  readonly #waiting = new Set<() => void>();
  /** What is announced to an installation alone; null: what is announced to all. */
  readonly #own = new Map<string, { shown: Shown | null; generation: number; at: number }>();
  #shown: Shown | null = null;
  #live = false;
  /** What the hub said last of orders: `none`, or digits that stand for them; null: nothing. */
  #orders: string | null = null;
  #askedAt = 0;
  #asking: Promise<Shown> | null = null;
  #generation = 0;
  #moves = 0;

  constructor(hub: Upstream, clock: Clock, log: Logger, stopping: AbortSignal) {
    this.#hub = hub;
    this.#clock = clock;
    this.#log = log;
    this.#stopping = stopping;
  }

  /** Whether a poll lies at the hub, so that a move would be known. */
  get isLive(): boolean {
    return this.#live;
  }

  /** Another number each time the value moves or there are other orders. */
  get moves(): number {
    return this.#moves;
  }

  /** The value now. Throws what the hub says, HUB_UNREACHABLE when it is away. */
  async ask(): Promise<Shown> {
    this.#askedAt = this.#clock.monotonic();
    if (this.#live && this.#shown !== null) return this.#shown;
    this.#asking ??= this.#fetch("/v1/revision", 0).finally(() => {
      this.#asking = null;
    });
    const shown = await this.#asking;
    if (!this.#live) void this.#poll();
    return shown;
  }

  /** The same for an installation; null: for nobody in particular. */
  async askFor(installation: string | null): Promise<Shown> {
    const shown = await this.ask();
    if (installation === null || this.#orders === NO_ORDERS) return shown;
    const generation = this.#generation;
    const known = this.#own.get(installation);
    const now = this.#clock.monotonic();
    if (known !== undefined && known.generation === generation && now - known.at < OWN_MS)
      return known.shown ?? shown;
    const { status, body } = await this.#hub.read(
      {
        method: "GET",
        path: "/v1/revision",
        headers: { "if-none-match": `"${shown.revision}"`, "lockstep-installation": installation },
        accept: [304],
        signal: this.#stopping,
      },
      BYTES_MAX,
    );
    const own = status === 304 ? null : readShown(body, shown.signed);
    this.#own.delete(installation);
    this.#own.set(installation, {
      shown: own?.revision === shown.revision ? null : own,
      generation,
      at: now,
    });
    const [oldest] = this.#own.keys();
    if (this.#own.size > OWN_MAX && oldest !== undefined) this.#own.delete(oldest);
    return own ?? shown;
  }

  /** The value once it differs from `after`, or after `waitMs`. Throws like `ask`. */
  async askWhenOther(
    after: number,
    waitMs: number,
    signal: AbortSignal,
    installation: string | null,
  ): Promise<Shown> {
    const until = this.#clock.monotonic() + waitMs;
    for (;;) {
      const shown = await this.askFor(installation);
      const leftMs = until - this.#clock.monotonic();
      if (shown.revision !== after || leftMs <= 0 || signal.aborted || this.#stopping.aborted) return shown;
      const woken = new AbortController();
      const wake = () => woken.abort();
      this.#waiting.add(wake);
      try {
        await this.#clock.sleep(leftMs, AbortSignal.any([woken.signal, signal, this.#stopping]));
      } finally {
        this.#waiting.delete(wake);
      }
    }
  }

  async #poll(): Promise<void> {
    this.#live = true;
    try {
      while (!this.#stopping.aborted && this.#isWanted()) {
        const before = this.#shown?.revision ?? 0;
        const began = this.#clock.monotonic();
        const { revision } = await this.#fetch(
          `/v1/revision?after=${before}&wait=${POLL_SECONDS}`,
          POLL_SECONDS * 1000,
        );
        const tookMs = this.#clock.monotonic() - began;
        if (revision === before && tookMs < PAUSE_MS)
          await this.#clock.sleep(PAUSE_MS - tookMs, this.#stopping);
      }
    } catch (error) {
      if (!this.#stopping.aborted) this.#log.warn("the hub does not answer", { error });
    } finally {
      this.#live = false;
      this.#wake();
    }
  }

  #isWanted(): boolean {
    return this.#waiting.size > 0 || this.#clock.monotonic() - this.#askedAt < LINGER_MS;
  }

  async #fetch(path: string, waitMs: number): Promise<Shown> {
    const headers = { "lockstep-relay": this.#orders ?? "1" };
    const description = { method: "GET", path, headers, waitMs, signal: this.#stopping } as const;
    const { headers: said, body } = await this.#hub.read(description, BYTES_MAX);
    const signed = said[SIGNED_HEADER];
    const shown = readShown(body, typeof signed === "string" && readSignedMark(signed) ? signed : null);
    const mark = said["lockstep-orders"];
    const orders = typeof mark === "string" && ORDERS_MARK.test(mark) ? mark : null;
    const ordersBegan = this.#orders === NO_ORDERS && orders !== NO_ORDERS;
    // What was learnt of each is older than that.
    if (ordersBegan) this.#own.clear();
    const moved = shown.revision !== this.#shown?.revision;
    if (moved) this.#generation++;
    // With the orders there is another timestamp, with another mark there are other signatures.
    if (moved || orders !== this.#orders || shown.signed !== this.#shown?.signed) this.#moves++;
    this.#orders = orders;
    const other = shown.text !== this.#shown?.text;
    this.#shown = shown;
    if (other || ordersBegan) this.#wake();
    return shown;
  }

  #wake(): void {
    for (const wake of this.#waiting) wake();
  }
}

/** Reads a semaphore; the text goes on as it came. Throws HUB_ANSWER_INVALID. */
export function readShown(body: Uint8Array, signed: string | null = null): Shown {
  const text = Buffer.from(body).toString("utf8");
  try {
    const { revision } = JSON.parse(text) as Semaphore;
    if (Number.isSafeInteger(revision) && revision >= 0) return { revision, text, signed };
  } catch {
    // Below.
  }
  throw new LockstepError(
    "HUB_ANSWER_INVALID",
    "what answers at the hub's address gave no software revision",
    {
      expected: "a semaphore",
      found: text.slice(0, 40),
      hint: "Check the address that the relay was given.",
    },
  );
}
