import { brokenDelta } from "./delta-format.ts";

/**
 * What applying a delta may cost.
 *
 * A delta of a few bytes can ask for anything: the same 32 MiB of an archive inflated anew for every byte, a dictionary of
 * 16 MiB for each of a million segments. The base and the result are signed for, the delta is not. So whoever applies one
 * counts the bytes that it makes us touch, and stops where it costs far more than its result is worth: fetching that whole
 * is cheaper then, and cannot be wrong.
 */
export class Work {
  #left: number;

  constructor(resultBytes: number) {
    this.#left = FREE_BYTES + FACTOR * resultBytes;
  }

  /** Throws DELTA_INVALID when that is more than is left. */
  spend(bytes: number): void {
    this.#left -= bytes;
    if (this.#left < 0) throw brokenDelta("it makes more work than its result is worth");
  }
}

const FREE_BYTES = 256 * 1024 * 1024;
/** Deltas that we make stay below 20, those between archives whose entries changed places included. */
const FACTOR = 64;
/** A stretch costs a look at the base, however short it is. */
export const STRETCH_BYTES = 64;

/**
 * An unfolded archive may be so many times larger than the archive, and this much more. What is beyond is a bomb, or so
 * well compressed that its delta saves nothing: makers leave such entries folded.
 */
export const UNFOLDED_FACTOR = 64;
export const UNFOLDED_FREE_BYTES = 1024 * 1024;
