import type { DifferenceStreams } from "./delta-format.ts";
import { NumberWriter } from "./number-stream.ts";

/** Bytes of the whole base: so many from a position. Valid until the next call. */
export type ReadBase = (position: number, length: number) => Uint8Array;

/**
 * Stretches as six streams of bytes of one kind each, which compress far better apart than together.
 *
 * The difference against the base is nearly all zero. Written out it costs a compressor time for every byte of the file;
 * as lengths of runs and the few changes in between it costs time for the changes alone, and fewer bytes too.
 */
export function codeDifferences(
  read: ReadBase,
  content: Uint8Array,
  stretches: readonly number[],
): DifferenceStreams {
  const taken = new NumberWriter();
  const fresh = new NumberWriter();
  const seeks = new NumberWriter();
  const runs = new NumberWriter();
  const changed = new GrowingChanges();
  const extra: Uint8Array[] = [];
  let at = 0;
  let expected = 0;
  let run = 0;
  for (let i = 0; i < stretches.length; i += 3) {
    const [length = 0, added = 0, position = 0] = stretches.slice(i, i + 3);
    taken.add(length);
    fresh.add(added);
    seeks.addSigned(position - expected);
    expected = position + length;
    const base = read(position, length);
    for (let k = 0; k < length; k++) {
      const change = ((content[at + k] as number) - (base[k] as number)) & 0xff;
      if (change === 0) run++;
      else {
        runs.add(run);
        run = 0;
        changed.add(change);
      }
    }
    at += length;
    extra.push(content.subarray(at, at + added));
    at += added;
  }
  return {
    taken: taken.bytes(),
    fresh: fresh.bytes(),
    seeks: seeks.bytes(),
    runs: runs.bytes(),
    changes: changed.bytes(),
    extra: Buffer.concat(extra),
  };
}

class GrowingChanges {
  #bytes = new Uint8Array(64);
  #length = 0;

  add(change: number): void {
    if (this.#length === this.#bytes.length) {
      const larger = new Uint8Array(2 * this.#length);
      larger.set(this.#bytes);
      this.#bytes = larger;
    }
    this.#bytes[this.#length++] = change;
  }

  bytes(): Uint8Array {
    return this.#bytes.subarray(0, this.#length);
  }
}
