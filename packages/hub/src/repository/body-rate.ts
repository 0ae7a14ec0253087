import { systemClock } from "@lockstep/platform";

/**
 * The lowest rate at which a request's body must arrive. A body that is silent, or of which a few bytes come now and
 * then, holds whatever was taken for it: a place at a gate, memory, a transaction. Only the time that we wait for it
 * counts: whoever is held back by us is not slow.
 */
export interface BodyRate {
  /** Length of a window of waiting, in milliseconds. */
  readonly windowMs: number;
  /** Fewest bytes that must have come within it. */
  readonly bytesMin: number;
}

/** Passes a body on. Throws what `tooSlow` makes of a body that arrives more slowly than it must. */
export async function* atLeast(
  rate: BodyRate,
  body: AsyncIterable<Uint8Array>,
  tooSlow: (found: string) => Error,
): AsyncGenerator<Uint8Array, void, undefined> {
  const chunks = body[Symbol.asyncIterator]();
  let leftMs = rate.windowMs;
  let bytes = 0;
  try {
    while (true) {
      let timer: NodeJS.Timeout | undefined;
      const slow = new Promise<never>((_, reject) => {
        timer = setTimeout(
          () => reject(tooSlow(`${bytes} bytes arrived in ${rate.windowMs / 1000} s of waiting`)),
          leftMs,
        );
      });
      const since = systemClock.monotonic();
      const next = await Promise.race([chunks.next(), slow]).finally(() => clearTimeout(timer));
      if (next.done === true) return;
      leftMs -= systemClock.monotonic() - since;
      bytes += next.value.length;
      if (bytes >= rate.bytesMin) {
        leftMs = rate.windowMs;
        bytes = 0;
      }
      yield next.value;
    }
  } finally {
    // Not awaited: a body that hangs would hang here as well.
    chunks.return?.().catch(() => {});
  }
}
