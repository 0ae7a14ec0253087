import { brotliCompressSync, constants, zstdCompressSync } from "node:zlib";
import { BlockIndex } from "./block-index.ts";
import {
  type ByteSource,
  CODINGS,
  type Coded,
  DELTA_MAGIC,
  DICTIONARY_BYTES_MAX,
  type DifferenceStreams,
  KINDS,
  SEGMENT_BYTES,
  STREAMS,
  WINDOW_LOG_MAX,
  writeCoded,
} from "./delta-format.ts";
import { codeDifferences } from "./differences.ts";
import { NumberWriter } from "./number-stream.ts";
import { type BaseView, type Descent, matchSegment } from "./segment-match.ts";

/**
 * Makes a delta, segment by segment, each in the way that gives the fewest bytes.
 *
 * Differences win wherever most of a file stays: executables whose addresses moved, libraries, anything edited in places.
 * Text that was sorted or written anew has many short matches, and there a compressor that knows the base wins; it costs
 * more, so it is tried only where differences leave much.
 */

/**
 * A base up to this size is looked at as a whole, a larger one through a window around the same place. With its index it is most
 * of what a maker has of its own: 300 MiB, and 308 with a window of 128 MiB, which makes the step of a file of 1 GB 63 bytes
 * shorter (of 145,885).
 */
const BASE_WINDOW_BYTES = 120 * 1024 * 1024;
/** What sources read into memory that they use again. */
const READ_BYTES = 1024 * 1024;
/** The compressor with the base as its dictionary is tried where differences need more than this share of the content. */
const DICTIONARY_SHARE = 0.01;
/** Below this every way is tried: it costs nothing. */
const SMALL_BYTES = 128 * 1024;
const WINDOW_LOG_MIN = 10;
const BROTLI_BEST_BYTES = 1024 * 1024;
const BROTLI_GOOD_BYTES = 8 * 1024 * 1024;
/**
 * Between unfolded archives, above this length. Their streams are long and many: compressed as an executable's, they took 12 of
 * the 18 s of a jar's step. Brotli 10 makes at most 2 % more than 11 in a third of the time. Runs and changes, which repeat
 * themselves all over, cost it up to 4 µs a byte, and zstd 19 a tenth of that for 1 to 4 % more. All in all the steps of
 * two jars became 0.4 and 0.8 % longer and cost a third and a tenth less.
 */
const UNFOLDED_BEST_BYTES = 128 * 1024;
const REPETITIVE: readonly string[] = ["runs", "changes"] satisfies (keyof DifferenceStreams)[];
/** For a guess which way is the shorter one. */
const BROTLI_QUICK = 5;
const ZSTD_QUICK = 12;
const ZSTD_BEST = 19;
/** A guess that differs by this factor decides; both quick compressors leave about a sixth more than the best. */
const CLEARLY = 1.3;

/** Takes the pieces of a delta, one behind the other. They are good until it returns. */
export type WritePiece = (piece: Uint8Array) => void;

export interface DeltaOptions {
  /** How much of the base is looked at, in bytes. */
  readonly windowBytes?: number;
  /** Not null: both are unfolded archives. `descents`: what is known of where parts of the content come from, in its order. */
  readonly unfolded?: { readonly descents: readonly Descent[] } | null;
}

/**
 * Writes the delta from base to content. False when it would not be shorter than `bytesMax`: what has been written of it by
 * then is of no use. Memory: some 400 MB at most, whatever the sizes; processor time: about 0.1 s for each MB of an
 * executable, 0.5 s where much of it is new. Throws what the sources and `write` throw.
 */
export function writeDelta(
  base: ByteSource,
  content: ByteSource,
  bytesMax: number,
  write: WritePiece,
  { windowBytes = BASE_WINDOW_BYTES, unfolded = null }: DeltaOptions = {},
): boolean {
  const head = new NumberWriter();
  head.add(content.size);
  let total = 1;
  const add = (pieces: readonly Uint8Array[]) => {
    for (const piece of pieces) write(piece);
    total += lengthOf(pieces);
  };
  add([new TextEncoder().encode(DELTA_MAGIC), head.bytes()]);
  const window = new BaseWindow(base, windowBytes);
  const compressStream = unfolded === null ? compress : compressUnfolded;
  const memory = new Uint8Array(Math.min(SEGMENT_BYTES, content.size));
  for (let start = 0; start < content.size; start += SEGMENT_BYTES) {
    const segment = memory.subarray(0, Math.min(SEGMENT_BYTES, content.size - start));
    readInto(segment, content, start);
    window.moveTo(content.size === 0 ? 0 : start / content.size);
    const stretches = matchSegment(window, segment, start, unfolded?.descents ?? []);
    add(makeSegment(window, segment, stretches, compressStream));
    if (total >= bytesMax) return false;
  }
  write(Uint8Array.of(0));
  return true;
}

/** Piece by piece: read at once it would be in memory twice. */
function readInto(bytes: Uint8Array, source: ByteSource, start: number): void {
  for (let at = 0; at < bytes.length; at += READ_BYTES)
    bytes.set(source.read(start + at, Math.min(READ_BYTES, bytes.length - at)), at);
}

/** The same, in memory: the pieces, or null. */
export function makeDelta(
  base: ByteSource,
  content: ByteSource,
  bytesMax: number,
  windowBytes = BASE_WINDOW_BYTES,
): Uint8Array[] | null {
  const pieces: Uint8Array[] = [];
  const write = (piece: Uint8Array) => pieces.push(Uint8Array.from(piece));
  return writeDelta(base, content, bytesMax, write, { windowBytes }) ? pieces : null;
}

const lengthOf = (pieces: readonly Uint8Array[]) => pieces.reduce((sum, piece) => sum + piece.length, 0);

/** The part of the base that is looked at, and its index. */
class BaseWindow implements BaseView {
  start = 0;
  bytes: Uint8Array;
  #index: BlockIndex | null = null;
  /** Of the part before. */
  #former: BlockIndex | null = null;
  readonly #base: ByteSource;

  constructor(base: ByteSource, bytesMax: number) {
    this.#base = base;
    this.bytes = new Uint8Array(Math.min(base.size, bytesMax));
    readInto(this.bytes, base, 0);
  }

  read(position: number, length: number): Uint8Array {
    const at = position - this.start;
    if (at >= 0 && at + length <= this.bytes.length) return this.bytes.subarray(at, at + length);
    return this.#base.read(position, length);
  }

  index(): BlockIndex {
    this.#index ??= new BlockIndex(this.bytes, this.#former);
    return this.#index;
  }

  /** `place`: how far into the content we are, from 0 to 1. */
  moveTo(place: number): void {
    if (this.#base.size === this.bytes.length) return;
    // In steps, so that the index is not made anew for each segment.
    const step = Math.floor(this.bytes.length / 3);
    const wanted = Math.floor((place * this.#base.size) / step) * step - step;
    const start = Math.max(0, Math.min(wanted, this.#base.size - this.bytes.length));
    if (start === this.start) return;
    this.start = start;
    this.#former = this.#index ?? this.#former;
    this.#index = null;
    readInto(this.bytes, this.#base, start);
  }
}

function makeSegment(
  window: BaseWindow,
  content: Uint8Array,
  stretches: readonly number[],
  compressStream: CompressStream,
): Uint8Array[] {
  const streams = codeDifferences((position, length) => window.read(position, length), content, stretches);
  if (content.length <= SMALL_BYTES) {
    const plain = makePlain(content);
    const dictionary = makeWithDictionary(window, content);
    return shortest([
      writeDifferences(content, streams, compressStream),
      plain,
      ...(dictionary === null ? [] : [dictionary]),
    ]);
  }
  const ways = promisingWays(window, content, streams);
  const made: Uint8Array[][] = [];
  if (ways !== "dictionary") made.push(writeDifferences(content, streams, compressStream));
  const dictionary = ways === "differences" ? null : makeWithDictionary(window, content);
  if (dictionary !== null) made.push(dictionary);
  return shortest(made);
}

/** The first of the shortest. */
function shortest(ways: readonly Uint8Array[][]): Uint8Array[] {
  return ways.reduce((best, way) => (lengthOf(way) < lengthOf(best) ? way : best));
}

/** Guessed by quick compressors, which take a twentieth of the time of those that are used; both where it is close. */
function promisingWays(
  window: BaseWindow,
  content: Uint8Array,
  streams: DifferenceStreams,
): "differences" | "dictionary" | "both" {
  if (!canBeDictionary(window)) return "differences";
  const differences = STREAMS.reduce(
    (sum, name) => sum + compressBrotli(streams[name], BROTLI_QUICK).length,
    0,
  );
  if (differences < DICTIONARY_SHARE * content.length) return "differences";
  const dictionary = compressZstd(content, ZSTD_QUICK, window.bytes).length;
  if (dictionary > CLEARLY * differences) return "differences";
  return differences > CLEARLY * dictionary ? "dictionary" : "both";
}

function beginSegment(content: Uint8Array, kind: number): NumberWriter {
  const writer = new NumberWriter();
  writer.add(content.length);
  writer.add(kind);
  return writer;
}

function makePlain(content: Uint8Array): Uint8Array[] {
  const pieces: Uint8Array[] = [];
  writeCoded(beginSegment(content, KINDS.plain), compress(content), pieces);
  return pieces;
}

function writeDifferences(
  content: Uint8Array,
  streams: DifferenceStreams,
  compressStream: CompressStream,
): Uint8Array[] {
  const separate = writeSeparate(content, streams, compressStream);
  if (lengthOf(separate) > SMALL_BYTES) return separate;
  const joined = writeJoined(content, streams);
  return lengthOf(joined) < lengthOf(separate) ? joined : separate;
}

function writeSeparate(
  content: Uint8Array,
  streams: DifferenceStreams,
  compressStream: CompressStream,
): Uint8Array[] {
  const pieces: Uint8Array[] = [beginSegment(content, KINDS.separate).bytes()];
  for (const name of STREAMS) writeCoded(new NumberWriter(), compressStream(streams[name], name), pieces);
  return pieces;
}

function writeJoined(content: Uint8Array, streams: DifferenceStreams): Uint8Array[] {
  const writer = beginSegment(content, KINDS.joined);
  for (const name of STREAMS) writer.add(streams[name].length);
  const pieces: Uint8Array[] = [];
  writeCoded(writer, compress(Buffer.concat(STREAMS.map((name) => streams[name]))), pieces);
  return pieces;
}

const canBeDictionary = ({ bytes }: BaseWindow) => bytes.length > 0 && bytes.length <= DICTIONARY_BYTES_MAX;

function makeWithDictionary(window: BaseWindow, content: Uint8Array): Uint8Array[] | null {
  if (!canBeDictionary(window)) return null;
  const { start, bytes } = window;
  const frame = compressZstd(content, ZSTD_BEST, bytes);
  const writer = beginSegment(content, KINDS.dictionary);
  for (const number of [start, bytes.length, frame.length]) writer.add(number);
  return [writer.bytes(), frame];
}

/** Adds bytes to `pieces` in a form that a reader decodes by itself. */
export function writeCompressed(bytes: Uint8Array, pieces: Uint8Array[]): void {
  writeCoded(new NumberWriter(), compress(bytes), pieces);
}

/** Compresses a stream of differences, of which it is told the name. */
type CompressStream = (bytes: Uint8Array, name: keyof DifferenceStreams) => Coded;

/** In the way that is shortest within the time that its size deserves. */
function compress(bytes: Uint8Array): Coded {
  const quality = bytes.length <= BROTLI_BEST_BYTES ? 11 : qualityOfLong(bytes);
  return coded(bytes, CODINGS.brotli, () => compressBrotli(bytes, quality));
}

/** The same for a stream of an unfolded archive. New bytes are compressed as everywhere: those of a text gain 3 % by it. */
function compressUnfolded(bytes: Uint8Array, name: keyof DifferenceStreams): Coded {
  if (bytes.length <= UNFOLDED_BEST_BYTES || name === "extra") return compress(bytes);
  if (REPETITIVE.includes(name)) return coded(bytes, CODINGS.zstd, () => compressZstd(bytes, ZSTD_BEST));
  return coded(bytes, CODINGS.brotli, () => compressBrotli(bytes, qualityOfLong(bytes)));
}

const qualityOfLong = ({ length }: Uint8Array) => (length <= BROTLI_GOOD_BYTES ? 10 : 9);

/** As they are where that is not longer. */
function coded(bytes: Uint8Array, coding: number, pack: () => Uint8Array): Coded {
  const { length } = bytes;
  const packed = length === 0 ? bytes : pack();
  return packed.length < length
    ? { coding, length, bytes: packed }
    : { coding: CODINGS.identity, length, bytes };
}

function compressBrotli(bytes: Uint8Array, quality: number): Uint8Array {
  return brotliCompressSync(bytes, {
    params: {
      [constants.BROTLI_PARAM_QUALITY]: quality,
      [constants.BROTLI_PARAM_LGWIN]: constants.BROTLI_MAX_WINDOW_BITS,
      [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length,
    },
  });
}

function compressZstd(bytes: Uint8Array, level: number, dictionary?: Uint8Array): Uint8Array {
  return zstdCompressSync(bytes, {
    ...(dictionary === undefined ? {} : { dictionary }),
    pledgedSrcSize: bytes.length,
    params: {
      [constants.ZSTD_c_compressionLevel]: level,
      // No larger than what there is to look back at: the window is memory that is made for each call.
      [constants.ZSTD_c_windowLog]: Math.min(
        WINDOW_LOG_MAX,
        Math.max(WINDOW_LOG_MIN, Math.ceil(Math.log2(bytes.length + (dictionary?.length ?? 0)))),
      ),
      [constants.ZSTD_c_contentSizeFlag]: 0,
    },
  });
}
