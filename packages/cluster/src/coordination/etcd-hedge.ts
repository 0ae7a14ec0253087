import type { SwapAnswer } from "./coordination.ts";

/**
 * How a call gets past a member that says nothing, and past a leader that has just died.
 *
 * A member that is frozen, or a machine without power, lets a call hang for its whole time. What is only read may be asked
 * of the others beside it. A compare and swap may be sent again as well: at most one of its copies can happen, because the
 * first one moves the revision that all of them expect, and one that is refused and finds its own record there has
 * happened. Every record is written once (its instance, its number), so its own text is told from any other.
 *
 * It is not sent blindly, or a slow disk would get each write several times. A member that follows passes a write on to
 * its leader; one that has died without anybody's knowing takes it along, and nobody answers. A read beside the write
 * waits until there is a leader, and its answer names the leader's term. Only where that differs from the one that the
 * write was sent in, where another member had to answer, or where every copy has failed, is the write sent again.
 */

/** So long a member is given before another one is asked beside it. Most answers come in a tenth of it. */
export const HEDGE_MS = 50;
/** The same where answers may be large: they are slower by themselves, and asked for twice they are slower still. */
export const LARGE_HEDGE_MS = 200;

/** So many copies of a swap may fail: a store that is full reads, and refuses every write at once. */
const FAILURES_MAX = 3;

/** What a write was sent to, as far as that is known: another one means that it may be lost. */
export interface Standing {
  /** The newest term of a leader that any member told of. */
  readonly term: number;
  /** The member that a call goes to first. */
  readonly first: string;
}

export interface AskOptions {
  /** Gets each member that was passed by a later one which answered at once. */
  readonly silent: (member: string) => void;
  /** `again`: the member is there and can only not answer yet; `final`: no other one would answer differently. */
  readonly judge: (error: unknown) => "next" | "again" | "final";
  readonly signal: AbortSignal;
  /** From one member to the next, milliseconds. */
  readonly hedgeMs: number;
  /** Milliseconds of a clock that only grows. */
  readonly monotonic: () => number;
}

/**
 * Asks one member after the other, each `hedgeMs` after the one before or as soon as one has failed, and returns what the
 * first one answers; the other questions are aborted. Whoever cannot answer yet is asked once again. Rejects with the last
 * failure when all have failed, at once with one that is final.
 */
export function askBeside<T>(
  members: readonly string[],
  ask: (member: string, signal: AbortSignal) => Promise<T>,
  { silent, judge, signal, hedgeMs, monotonic }: AskOptions,
): Promise<T> {
  const untried = [...members];
  const repeated = new Set<string>();
  /** Those that have been asked and have not answered, in this order. */
  const open: string[] = [];
  const over = new AbortController();
  const limit = AbortSignal.any([signal, over.signal]);
  return new Promise<T>((resolve, reject) => {
    let timer: NodeJS.Timeout | undefined;
    const end = () => {
      clearTimeout(timer);
      over.abort();
    };
    const next = () => {
      clearTimeout(timer);
      const member = untried.shift();
      if (member !== undefined) start(member);
      if (untried.length > 0) timer = setTimeout(next, hedgeMs);
    };
    const start = (member: string) => {
      const asked = monotonic();
      open.push(member);
      ask(member, limit).then(
        (answer) => {
          if (over.signal.aborted) return;
          end();
          if (monotonic() - asked < hedgeMs) open.slice(0, open.indexOf(member)).forEach(silent);
          resolve(answer);
        },
        (error: unknown) => {
          if (over.signal.aborted) return;
          open.splice(open.indexOf(member), 1);
          const judged = signal.aborted ? "final" : judge(error);
          if (judged === "again" && !repeated.has(member)) {
            repeated.add(member);
            start(member);
          } else if (judged !== "final" && untried.length > 0) next();
          else if (judged === "final" || open.length === 0) {
            end();
            reject(error);
          }
        },
      );
    };
    next();
  });
}

export interface SwapCalls {
  /** Sends the swap to the member that goes first. */
  readonly send: () => Promise<SwapAnswer>;
  /** What is known of it by what stands in the store now; null: it has not happened yet. */
  readonly look: () => Promise<SwapAnswer | null>;
  readonly standing: () => Standing;
  /** Whether it is still worth while: the time is not over, and nothing newer is on its way. */
  readonly isWanted: () => boolean;
}

/** One compare and swap, with as many copies as it takes. Rejects as the last copy does. */
export async function swapBeside({ send, look, standing, isWanted }: SwapCalls): Promise<SwapAnswer> {
  const answered = Promise.withResolvers<SwapAnswer>();
  let [open, failures] = [0, 0];
  let failure: unknown = null;
  let tell = () => {};
  const copy = (): Standing => {
    const to = standing();
    open += 1;
    send().then(answered.resolve, (error: unknown) => {
      open -= 1;
      failures += 1;
      failure = error;
      tell();
    });
    return to;
  };
  /** An answer; null after a while (null: without an end), or as soon as a copy has failed. */
  const wait = async (ms: number | null): Promise<SwapAnswer | null> => {
    const { promise, resolve } = Promise.withResolvers<null>();
    tell = () => resolve(null);
    const timer = ms === null ? undefined : setTimeout(tell, ms);
    const answer = await Promise.race([answered.promise, promise]);
    clearTimeout(timer);
    return answer;
  };

  let sentTo = copy();
  for (let ms = HEDGE_MS; ; ms *= 2) {
    const answer = await wait(ms);
    if (answer !== null) return answer;
    if (!isWanted()) break;
    const seen = await Promise.race([answered.promise, look().catch(() => "unknown" as const)]);
    if (seen !== null && seen !== "unknown") return seen;
    if (!isWanted()) break;
    const now = standing();
    const isLost = open === 0 || now.term !== sentTo.term || now.first !== sentTo.first;
    if (seen === null && isLost && failures < FAILURES_MAX) sentTo = copy();
    else if (open === 0) break;
  }
  // Nothing more is sent; what is on its way may still be answered, and ends by itself.
  while (open > 0) {
    const answer = await wait(null);
    if (answer !== null) return answer;
  }
  throw failure;
}
