import { inflateRawSync } from "node:zlib";
import type { DeflatedEntry } from "./archive-entries.ts";
import { type ByteSource, outputOf } from "./delta-format.ts";

/** A stretch of an unfolded archive: bytes of the file as they are, or what an entry holds. */
export type Piece =
  | { readonly kind: "raw"; readonly at: number; readonly length: number }
  | { readonly kind: "inflated"; readonly entry: DeflatedEntry };

export const lengthOf = (piece: Piece) => (piece.kind === "raw" ? piece.length : piece.entry.inflatedLength);

/** What was inflated last is kept: stretches of one entry are read one after the other. */
const KEPT_BYTES = 32 * 1024 * 1024;

/**
 * Pieces one after the other as one content, inflated when they are read: an archive may be many times larger inside than
 * outside. An entry that does not hold what it says reads as zeros, on either side.
 */
export class UnfoldedSource implements ByteSource {
  readonly size: number;
  readonly #file: ByteSource;
  readonly #pieces: readonly Piece[];
  /** Where each piece begins. */
  readonly #starts: Float64Array;
  readonly #kept = new Map<number, Uint8Array>();
  #keptBytes = 0;
  readonly #spend: (bytes: number) => void;

  /** `spend` is told the bytes that are inflated, each time, and may refuse. */
  constructor(file: ByteSource, pieces: readonly Piece[], spend: (bytes: number) => void = () => {}) {
    this.#file = file;
    this.#pieces = pieces;
    this.#spend = spend;
    this.#starts = new Float64Array(pieces.length + 1);
    for (const [i, piece] of pieces.entries())
      this.#starts[i + 1] = (this.#starts[i] as number) + lengthOf(piece);
    this.size = this.#starts[pieces.length] as number;
  }

  read(position: number, length: number): Uint8Array {
    const first = this.#pieceAt(position);
    const piece = this.#pieces[first];
    const start = this.#starts[first] as number;
    // Most stretches are a few bytes of one piece: a copy of each takes longer than what is done with them.
    if (piece !== undefined && position + length <= start + lengthOf(piece))
      return this.#readPiece(first, piece, position - start, length);
    const bytes = new Uint8Array(length);
    for (let at = position, i = first; at < position + length; i++) {
      const piece = this.#pieces[i];
      if (piece === undefined) throw new RangeError(`read ${length} bytes at ${position} of ${this.size}`);
      const within = at - (this.#starts[i] as number);
      const count = Math.min(lengthOf(piece) - within, position + length - at);
      bytes.set(this.#readPiece(i, piece, within, count), at - position);
      at += count;
    }
    return bytes;
  }

  /** The last piece that begins at or before a position. */
  #pieceAt(position: number): number {
    let low = 0;
    let high = this.#pieces.length;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if ((this.#starts[middle] as number) <= position) low = middle;
      else high = middle;
    }
    return low;
  }

  #readPiece(i: number, piece: Piece, within: number, count: number): Uint8Array {
    if (piece.kind === "raw") return this.#file.read(piece.at + within, count);
    let inflated = this.#kept.get(i);
    if (inflated === undefined) {
      this.#spend(piece.entry.inflatedLength);
      inflated = inflateEntry(this.#file, piece.entry) ?? new Uint8Array(piece.entry.inflatedLength);
      this.#keep(i, inflated);
    }
    return inflated.subarray(within, within + count);
  }

  #keep(i: number, inflated: Uint8Array): void {
    this.#kept.set(i, inflated);
    this.#keptBytes += inflated.length;
    for (const [oldest, bytes] of this.#kept) {
      if (this.#keptBytes <= KEPT_BYTES || oldest === i) return;
      this.#kept.delete(oldest);
      this.#keptBytes -= bytes.length;
      giveBack(bytes);
    }
  }
}

/**
 * Gives memory back at once, where it is no part of Node's pool: what a read gave is valid until the next one, and the
 * collector, which has its own threads, comes for it late on a busy machine.
 */
function giveBack({ buffer, length }: Uint8Array): void {
  if (length >= Buffer.poolSize && buffer instanceof ArrayBuffer) buffer.transfer(0);
}

/**
 * What an entry holds, or null when it does not hold exactly what it says. The memory that it is inflated into is made at
 * once, as long as the directory says, which is 32 MiB at most (archive-entries.ts), and grows by nothing where that is a lie.
 */
export function inflateEntry(
  file: ByteSource,
  { at, length, inflatedLength }: DeflatedEntry,
): Uint8Array | null {
  try {
    const options = { ...outputOf(inflatedLength), info: true };
    // With `info` the answer has two parts, which the types do not know.
    const answer: unknown = inflateRawSync(file.read(at, length), options);
    const { buffer, engine } = answer as { buffer: Buffer; engine: { bytesWritten: number } };
    return buffer.length === inflatedLength && engine.bytesWritten === length ? buffer : null;
  } catch {
    return null;
  }
}
