/**
 * Where the blocks of a base lie, by a hash of their bytes: a sample of all positions, in one flat table of numbers.
 *
 * A suffix array would find every match, at eight bytes and a microsecond for each byte of the base. A block of sixteen
 * bytes at every fourth position finds every match of nineteen, and shorter ones are found by going on from those
 * (match.ts). A bucket holds two positions: the first that came, and the newest, so that neither a run of zeros nor a
 * table that repeats hides everything else.
 */
const WAYS = 2;
/** Entries at most; a larger base is sampled more thinly. */
const ENTRIES_MAX = 1 << 24;

/** What of a base stands in its index. */
interface Sampling {
  readonly blockBytes: 8 | 16;
  /** From one block to the next, in bytes, as long as there are not too many. */
  readonly stride: number;
}

const WHOLE: Sampling = { blockBytes: 16, stride: 4 };
/** For a small piece of a base in which nearly all is expected to be found. */
export const NEAR: Sampling = { blockBytes: 8, stride: 1 };
/** What is small in this sense. In more, the buckets of short blocks are full of what every text repeats. */
export const NEAR_BYTES_MAX = 256 * 1024;

const FACTORS = [0x9e3779b1 | 0, 0x85ebca6b | 0, 0xc2b2ae35 | 0, 0x27d4eb2f | 0] as const;
const MIX = 0x2c1b3c6d | 0;

/** Of two words. */
function hashShort(bytes: DataView, at: number): number {
  return (
    (Math.imul(bytes.getInt32(at, true), FACTORS[0]) + Math.imul(bytes.getInt32(at + 4, true), FACTORS[1])) |
    0
  );
}

/** Of four words, which the processor multiplies side by side. */
function hashLong(bytes: DataView, at: number): number {
  const hash =
    Math.imul(bytes.getInt32(at, true), FACTORS[0]) +
    Math.imul(bytes.getInt32(at + 4, true), FACTORS[1]) +
    Math.imul(bytes.getInt32(at + 8, true), FACTORS[2]) +
    Math.imul(bytes.getInt32(at + 12, true), FACTORS[3]);
  return hash | 0;
}

export const viewOf = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

export class BlockIndex {
  readonly ways = WAYS;
  readonly blockBytes: number;
  readonly #slots: Int32Array;
  readonly #shift: number;

  /**
   * Bytes of memory: four for each sampled position, rounded up to a power of two and doubled at most. `former`: an index that is
   * used no more, whose memory is taken where it has the right size; left to the collector it would be there a while beside ours.
   */
  constructor(base: Uint8Array, former: BlockIndex | null = null, sampling: Sampling = WHOLE) {
    this.blockBytes = sampling.blockBytes;
    const last = base.length - this.blockBytes;
    const stride = Math.max(sampling.stride, 2 ** Math.ceil(Math.log2(base.length / ENTRIES_MAX)));
    const entries = last < 0 ? 0 : Math.floor(last / stride) + 1;
    const bits = Math.max(4, Math.ceil(Math.log2(entries * 1.25 + 1)));
    this.#slots =
      former !== null && former.#slots.length === 2 ** bits ? former.#slots : new Int32Array(2 ** bits);
    this.#slots.fill(-1);
    this.#shift = 32 - bits;
    if (last < 0) return;
    const view = viewOf(base);
    for (let at = 0; at <= last; at += stride) this.#put(this.hash(view, at), at);
  }

  /** Hash of the block that begins at `at`. */
  hash(bytes: DataView, at: number): number {
    return this.blockBytes === 8 ? hashShort(bytes, at) : hashLong(bytes, at);
  }

  /** The first slot of the bucket. */
  bucket(hash: number): number {
    return (Math.imul(hash ^ (hash >>> 15), MIX) >>> this.#shift) & ~(WAYS - 1);
  }

  /** The position of the base that a slot holds, or -1. */
  at(slot: number): number {
    return this.#slots[slot] as number;
  }

  #put(hash: number, position: number): void {
    const bucket = this.bucket(hash);
    const slots = this.#slots;
    // No branch: whether it is the first is a toss-up, and the processor would wait for the memory each time it guessed wrong.
    slots[bucket + 1 + ((slots[bucket] as number) >> 31)] = position;
  }
}
