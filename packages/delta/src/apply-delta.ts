import {
  type ByteSource,
  brokenDelta,
  DELTA_MAGIC,
  DeltaReader,
  DICTIONARY_BYTES_MAX,
  type DifferenceStreams,
  decodeZstd,
  KINDS,
  SEGMENT_BYTES,
  STREAMS,
} from "./delta-format.ts";
import { NumberReader } from "./number-stream.ts";
import { STRETCH_BYTES, Work } from "./work.ts";

/**
 * Applies a delta: gives `write` the result, piece by piece in order; the pieces are valid until it returns. Holds what one
 * segment of the delta decodes to in memory: a few megabytes where that is differences, else all that the segment makes,
 * whatever the sizes of the files. Throws DELTA_INVALID for anything that a broken or hostile delta can say; what was
 * written by then is worth nothing. Whether the result is the right one, its hash says, not this. A result above
 * `resultBytesMax`, or one that costs far more work than its size is worth, is refused.
 */
export function applyDelta(
  base: ByteSource,
  delta: ByteSource,
  write: (bytes: Uint8Array) => void,
  resultBytesMax: number = Number.MAX_SAFE_INTEGER,
): void {
  applyCounted(() => base, delta, write, resultBytesMax);
}

/** As applyDelta, where reading the base is work as well. */
export function applyCounted(
  base: (work: Work) => ByteSource,
  delta: ByteSource,
  write: (bytes: Uint8Array) => void,
  resultBytesMax: number,
): void {
  const reader = new DeltaReader(delta);
  reader.magic(DELTA_MAGIC);
  const size = reader.number("the size of the result", resultBytesMax);
  const work = new Work(size);
  applySegments(reader, size, base(work), write, work);
}

function applySegments(
  reader: DeltaReader,
  size: number,
  base: ByteSource,
  write: (bytes: Uint8Array) => void,
  work: Work,
): void {
  let left = size;
  const result = new ResultPieces(write);
  for (;;) {
    const length = reader.number("the length of a segment", Math.min(left, SEGMENT_BYTES));
    if (length === 0) break;
    applySegment(reader, length, base, work, result);
    left -= length;
  }
  result.flush();
  if (left !== 0) throw brokenDelta(`${left} bytes of the result are missing`);
  reader.end();
}

function applySegment(
  reader: DeltaReader,
  length: number,
  base: ByteSource,
  work: Work,
  result: ResultPieces,
): void {
  const kind = reader.number("the kind of a segment", KINDS.separate);
  switch (kind) {
    case KINDS.plain:
      result.add(exactly(length, reader.coded("a segment", length)));
      break;
    case KINDS.dictionary:
      result.add(exactly(length, applyDictionary(reader, length, base, work)));
      break;
    case KINDS.joined:
      applyDifferences(readJoined(reader, length), length, base, work, result);
      break;
    case KINDS.separate:
      applyDifferences(readSeparate(reader, length), length, base, work, result);
      break;
    default:
      throw brokenDelta(`a segment is of kind ${kind}`);
  }
}

const PIECE_BYTES = 256 * 1024;

/** Gathers what is made of many small parts, in memory that is used again for each piece. */
export class ResultPieces {
  readonly #write: (bytes: Uint8Array) => void;
  readonly #piece = new Uint8Array(PIECE_BYTES);
  #length = 0;

  constructor(write: (bytes: Uint8Array) => void) {
    this.#write = write;
  }

  add(bytes: Uint8Array): void {
    if (bytes.length >= PIECE_BYTES) {
      this.flush();
      this.#write(bytes);
      return;
    }
    for (let at = 0; at < bytes.length; ) {
      const part = bytes.subarray(at, at + PIECE_BYTES - this.#length);
      this.#piece.set(part, this.#length);
      this.#advance(part.length);
      at += part.length;
    }
  }

  /** Bytes of the base, and what is added to them. */
  take(base: ByteSource, position: number, length: number, changes: Changes): void {
    for (let at = 0; at < length; ) {
      const count = Math.min(length - at, PIECE_BYTES - this.#length);
      this.#piece.set(base.read(position + at, count), this.#length);
      changes.apply(this.#piece, this.#length, this.#length + count);
      this.#advance(count);
      at += count;
    }
  }

  flush(): void {
    if (this.#length > 0) this.#write(this.#piece.subarray(0, this.#length));
    this.#length = 0;
  }

  #advance(count: number): void {
    this.#length += count;
    if (this.#length === PIECE_BYTES) this.flush();
  }
}

function exactly(length: number, bytes: Uint8Array): Uint8Array {
  if (bytes.length !== length) throw brokenDelta(`a segment has ${bytes.length} bytes, not ${length}`);
  return bytes;
}

function applyDictionary(reader: DeltaReader, length: number, base: ByteSource, work: Work): Uint8Array {
  const start = reader.number("the start of the dictionary", base.size);
  const size = reader.number(
    "the length of the dictionary",
    Math.min(DICTIONARY_BYTES_MAX, base.size - start),
  );
  const frame = reader.bytes(reader.number("the size of a frame", SEGMENT_BYTES * 2));
  work.spend(size);
  const dictionary = base.read(start, size);
  try {
    return decodeZstd(frame, length, dictionary);
  } catch {
    throw brokenDelta("a segment cannot be decoded with the base");
  }
}

/** A stretch covers eight bytes and more, a change one byte: no stream is longer than what it tells of. */
const streamMax = (length: number) => length + 64;
/** Nor are all together, by far: each byte is fresh, or taken with a change at most. */
const streamsMax = (length: number) => 4 * length + 512;

function readSeparate(reader: DeltaReader, length: number): DifferenceStreams {
  let left = streamsMax(length);
  const read = (name: string) => {
    const stream = reader.coded(`stream ${name}`, Math.min(left, streamMax(length)));
    left -= stream.length;
    return stream;
  };
  return Object.fromEntries(STREAMS.map((name) => [name, read(name)])) as unknown as DifferenceStreams;
}

function readJoined(reader: DeltaReader, length: number): DifferenceStreams {
  const lengths = STREAMS.map((name) => reader.number(`the length of stream ${name}`, streamMax(length)));
  const all = reader.coded("the streams", streamsMax(length));
  let at = 0;
  const streams = STREAMS.map((name, i) => {
    const end = at + (lengths[i] ?? 0);
    if (end > all.length) throw brokenDelta(`stream ${name} is cut off`);
    const stream = all.subarray(at, end);
    at = end;
    return [name, stream];
  });
  if (at !== all.length) throw brokenDelta("more follows the last stream");
  return Object.fromEntries(streams) as unknown as DifferenceStreams;
}

function applyDifferences(
  streams: DifferenceStreams,
  length: number,
  base: ByteSource,
  work: Work,
  result: ResultPieces,
): void {
  const taken = new NumberReader(streams.taken);
  const fresh = new NumberReader(streams.fresh);
  const seeks = new NumberReader(streams.seeks);
  const changes = new Changes(streams);
  let at = 0;
  let inBase = 0;
  let inExtra = 0;
  while (!taken.isAtEnd) {
    work.spend(STRETCH_BYTES);
    const take = numberOf(taken, "taken", length - at);
    inBase += signedOf(seeks);
    if (inBase < 0 || inBase > base.size || take > base.size - inBase)
      throw brokenDelta(`it takes ${take} bytes at ${inBase} of a base of ${base.size}`);
    result.take(base, inBase, take, changes);
    inBase += take;
    at += take;
    const add = numberOf(fresh, "fresh", Math.min(length - at, streams.extra.length - inExtra));
    result.add(streams.extra.subarray(inExtra, inExtra + add));
    inExtra += add;
    at += add;
  }
  const isWhole = at === length && inExtra === streams.extra.length && changes.isAtEnd;
  if (!isWhole || !fresh.isAtEnd || !seeks.isAtEnd) throw brokenDelta("its streams do not fit together");
}

function numberOf(reader: NumberReader, stream: string, max: number): number {
  const value = reader.next();
  if (value === null || value > max)
    throw brokenDelta(`stream ${stream} says ${value ?? "nothing"}, not ${max} at most`);
  return value;
}

function signedOf(reader: NumberReader): number {
  const value = reader.nextSigned();
  if (value === null) throw brokenDelta("stream seeks ends too early");
  return value;
}

/** Goes on from stretch to stretch: a run counts the bytes taken from the base, and does not see the fresh ones. */
class Changes {
  readonly #runs: NumberReader;
  readonly #changes: Uint8Array;
  #at = 0;
  /** Bytes that are right before the next change; null: there is none any more. */
  #run: number | null;

  constructor({ runs, changes }: DifferenceStreams) {
    this.#runs = new NumberReader(runs);
    this.#changes = changes;
    this.#run = this.#nextRun();
  }

  get isAtEnd(): boolean {
    return this.#run === null && this.#at === this.#changes.length;
  }

  apply(result: Uint8Array, from: number, to: number): void {
    let at = from;
    while (this.#run !== null && this.#run < to - at) {
      at += this.#run;
      result[at] = (result[at] as number) + (this.#changes[this.#at++] as number);
      at++;
      this.#run = this.#nextRun();
    }
    if (this.#run !== null) this.#run -= to - at;
  }

  #nextRun(): number | null {
    if (this.#runs.isAtEnd) return null;
    const run = this.#runs.next();
    if (run === null || this.#at >= this.#changes.length)
      throw brokenDelta("stream runs does not fit the changes");
    return run;
  }
}
