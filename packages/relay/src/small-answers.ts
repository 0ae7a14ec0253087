import type { Clock } from "@lockstep/platform";
import { isLockstepError } from "@lockstep/protocol/wire";
import type { SemaphoreWatch } from "./semaphore-watch.ts";
import type { Upstream } from "./upstream.ts";

/**
 * Signed metadata and other short answers, in memory.
 *
 * A document with a number hardly ever changes (a hub that was restored can give a number again), so it is asked for
 * again after ten minutes, by its tag. What has no number, and that something is not there, holds for a minute at most,
 * and only while the semaphore is watched and neither it nor the orders have moved: a move and its signatures are one
 * transaction of the hub. One that came out different makes all of these be asked for again, so that a new timestamp never
 * meets an old root.
 *
 * Nothing here is believed by anybody: it proves itself, or it is asked of the hub.
 */
export interface SmallAnswer {
  readonly status: number;
  readonly type: string;
  readonly etag: string | null;
  readonly body: Buffer;
}

interface Kept extends SmallAnswer {
  readonly at: number;
  readonly moves: number;
  readonly round: number;
}

const NUMBERED = /^\/v1\/(trust\/\d+\.(root|targets|snapshot)\.json|revisions\/\d+)$/;
const NUMBERED_MS = 600_000;
const OTHER_MS = 60_000;
const BYTES_MAX = 16 * 1024 * 1024;
/** Of all together. */
const KEPT_BYTES_MAX = 64 * 1024 * 1024;
const KEPT_MAX = 2_000;

export class SmallAnswers {
  readonly #hub: Upstream;
  readonly #semaphore: SemaphoreWatch;
  readonly #clock: Clock;
  /** In the order of use. */
  readonly #kept = new Map<string, Kept>();
  readonly #asking = new Map<string, Promise<Kept>>();
  #bytes = 0;
  #round = 0;

  constructor(hub: Upstream, semaphore: SemaphoreWatch, clock: Clock) {
    this.#hub = hub;
    this.#semaphore = semaphore;
    this.#clock = clock;
  }

  /** An answer by its path. `stale` says that the hub could not be asked. Throws what the hub says. */
  async get(
    path: string,
    authorization: string | undefined,
  ): Promise<{ readonly answer: SmallAnswer; readonly how: "hit" | "asked" | "stale" }> {
    const kept = this.#kept.get(path);
    if (kept !== undefined && this.#isFresh(path, kept)) {
      this.#keep(path, kept);
      return { answer: kept, how: "hit" };
    }
    let asking = this.#asking.get(path);
    if (asking === undefined) {
      asking = this.ask(path, authorization).finally(() => this.#asking.delete(path));
      this.#asking.set(path, asking);
    }
    try {
      return { answer: await asking, how: "asked" };
    } catch (error) {
      if (kept === undefined || !isLockstepError(error, "HUB_UNREACHABLE", "HUB_BUSY", "HUB_INTERNAL"))
        throw error;
      return { answer: kept, how: "stale" };
    }
  }

  /** Asks the hub, whatever is here; what is still the same does not travel. */
  async ask(path: string, authorization: string | undefined): Promise<Kept> {
    const former = this.#kept.get(path);
    // Taken before: what moves while the question is under way makes the answer old.
    const { moves } = this.#semaphore;
    const round = this.#round;
    const { status, headers, body } = await this.#hub.read(
      {
        method: "GET",
        path,
        headers: {
          ...(authorization === undefined ? {} : { authorization }),
          ...(former?.etag ? { "if-none-match": former.etag } : {}),
        },
        accept: [304, 404],
      },
      BYTES_MAX,
    );
    const same = status === 304 && former !== undefined;
    const answer: SmallAnswer = same
      ? former
      : { status, body, etag: headers.etag ?? null, type: headers["content-type"] ?? "application/json" };
    if (!NUMBERED.test(path) && former !== undefined && !former.body.equals(answer.body)) this.#round++;
    const at = this.#clock.monotonic();
    const { type, etag } = answer;
    const kept: Kept = {
      status: answer.status,
      type,
      etag,
      body: answer.body,
      at,
      moves,
      round: Math.max(round, this.#round),
    };
    this.#keep(path, kept);
    return kept;
  }

  #isFresh(path: string, { status, at, moves, round }: Kept): boolean {
    const age = this.#clock.monotonic() - at;
    if (status === 200 && NUMBERED.test(path)) return age < NUMBERED_MS;
    return (
      age < OTHER_MS && this.#semaphore.isLive && moves === this.#semaphore.moves && round === this.#round
    );
  }

  #keep(path: string, answer: Kept): void {
    this.#bytes += answer.body.length - (this.#kept.get(path)?.body.length ?? 0);
    this.#kept.delete(path);
    this.#kept.set(path, answer);
    for (const [oldest, { body }] of this.#kept) {
      if (this.#bytes <= KEPT_BYTES_MAX && this.#kept.size <= KEPT_MAX) return;
      this.#kept.delete(oldest);
      this.#bytes -= body.length;
    }
  }
}
