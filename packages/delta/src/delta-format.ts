import { brotliDecompressSync, constants, zstdDecompressSync } from "node:zlib";
import { LockstepError } from "@lockstep/protocol/wire";
import { NumberReader, type NumberWriter } from "./number-stream.ts";

/**
 * A delta: how one content is made of another, as it travels.
 *
 *   delta    := "LSD1" resultSize segment* 0
 *   segment  := length kind body                    makes the next `length` bytes of the result, at most SEGMENT_BYTES
 *   kind 1   := coded                               the bytes themselves
 *   kind 2   := baseStart baseLength size zstd[size]     a zstd frame whose dictionary is that piece of the base
 *   kind 3   := lengths[6] coded                    differences; the six streams one after the other, `lengths` each
 *   kind 4   := coded[6]                            differences; each stream coded by itself
 *   coded    := coding length size byte[size]       coding 0 as they are, 1 brotli, 2 zstd; `length` when decoded
 *
 * Numbers are those of number-stream.ts. Lengths are in bytes. The six streams of differences:
 *
 *   taken    bytes of the result that come from the base, for each stretch
 *   fresh    bytes that follow it and are new
 *   seeks    from where the stretch before ended in the base to where this one begins, of either sign
 *   runs     how many bytes of the base are right before the next that is not
 *   changes  what is added to each that is not, modulo 256
 *   extra    the new bytes
 *
 * Neither hash stands in it: a delta is asked for, kept and carried under the pair of hashes, and whoever applies it checks
 * the base before and the result after. What is read here is only kept within its bounds.
 */
export const DELTA_MAGIC = "LSD1";
/** Result bytes of one segment at most: what an applier holds at once, twice or three times. */
export const SEGMENT_BYTES = 32 * 1024 * 1024;
/** Base bytes that serve as a dictionary at most. */
export const DICTIONARY_BYTES_MAX = 16 * 1024 * 1024;
/** The window that an encoder may use and a decoder must have. */
export const WINDOW_LOG_MAX = 26;

export const STREAMS = ["taken", "fresh", "seeks", "runs", "changes", "extra"] as const;
export type StreamName = (typeof STREAMS)[number];
export type DifferenceStreams = Readonly<Record<StreamName, Uint8Array>>;

export const KINDS = { plain: 1, dictionary: 2, joined: 3, separate: 4 } as const;
export const CODINGS = { identity: 0, brotli: 1, zstd: 2 } as const;

export interface Coded {
  readonly coding: number;
  /** Decoded, in bytes. */
  readonly length: number;
  readonly bytes: Uint8Array;
}

/** Content of a base, a delta or a file, by position; synchronous, because whoever works on it does nothing else. */
export interface ByteSource {
  readonly size: number;
  /** Exactly `length` bytes from `position`; valid until the next call. Throws what the disk says. */
  read(position: number, length: number): Uint8Array;
}

export function sourceOf(bytes: Uint8Array): ByteSource {
  return { size: bytes.length, read: (position, length) => bytes.subarray(position, position + length) };
}

export function brokenDelta(problem: string): LockstepError {
  return new LockstepError("DELTA_INVALID", `The delta cannot be applied: ${problem}.`, {
    hint: "The whole content is fetched instead; if it happens again, look at the hub's log.",
  });
}

export function writeCoded(writer: NumberWriter, coded: Coded, pieces: Uint8Array[]): void {
  writer.add(coded.coding);
  writer.add(coded.length);
  writer.add(coded.bytes.length);
  pieces.push(Uint8Array.from(writer.bytes()), coded.bytes);
}

/** Goes through a delta from front to back; every length is checked before anything of that size is made. */
export class DeltaReader {
  readonly #source: ByteSource;
  #at = 0;

  constructor(source: ByteSource) {
    this.#source = source;
  }

  get at(): number {
    return this.#at;
  }

  magic(wanted: string): void {
    const found = Buffer.from(this.bytes(wanted.length)).toString("latin1");
    if (found !== wanted) throw brokenDelta(`it begins with ${JSON.stringify(found)}, not ${wanted}`);
  }

  number(what: string, max: number): number {
    const head = this.#source.read(this.#at, Math.min(8, this.#source.size - this.#at));
    const reader = new NumberReader(head);
    const value = reader.next();
    if (value === null) throw brokenDelta(`it ends within ${what}`);
    if (value > max) throw brokenDelta(`${what} is ${value}, more than ${max}`);
    this.#at += reader.at;
    return value;
  }

  bytes(length: number): Uint8Array {
    if (length > this.#source.size - this.#at) throw brokenDelta("it ends too early");
    const bytes = this.#source.read(this.#at, length);
    this.#at += length;
    return bytes;
  }

  coded(what: string, lengthMax: number): Uint8Array {
    const coding = this.number(`the coding of ${what}`, CODINGS.zstd);
    const length = this.number(`the length of ${what}`, lengthMax);
    const size = this.number(`the size of ${what}`, SEGMENT_BYTES * 2);
    return decode(what, coding, length, this.bytes(size));
  }

  end(): void {
    if (this.#at !== this.#source.size)
      throw brokenDelta(`${this.#source.size - this.#at} bytes follow its end`);
  }
}

function decode(what: string, coding: number, length: number, bytes: Uint8Array): Uint8Array {
  if (length === 0 && bytes.length === 0) return bytes;
  let decoded: Uint8Array;
  try {
    if (coding === CODINGS.identity) decoded = Uint8Array.from(bytes);
    else if (coding === CODINGS.brotli) decoded = brotliDecompressSync(bytes, outputOf(length));
    else decoded = decodeZstd(bytes, length);
  } catch {
    throw brokenDelta(`${what} cannot be decoded`);
  }
  if (decoded.length !== length) throw brokenDelta(`${what} has ${decoded.length} bytes, not ${length}`);
  return decoded;
}

const CHUNK_BYTES_MIN = 64;

/** All in one chunk, with a byte to spare, by which the decoder sees that it has ended: chunks that are joined are there twice. */
export const outputOf = (length: number) => ({
  maxOutputLength: length,
  chunkSize: Math.max(CHUNK_BYTES_MIN, length + 1),
});

/** Throws what zlib throws. */
export function decodeZstd(bytes: Uint8Array, length: number, dictionary?: Uint8Array): Uint8Array {
  return zstdDecompressSync(bytes, {
    ...outputOf(length),
    params: { [constants.ZSTD_d_windowLogMax]: WINDOW_LOG_MAX },
    ...(dictionary === undefined ? {} : { dictionary }),
  });
}
