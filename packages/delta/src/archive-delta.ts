import { applyCounted, ResultPieces } from "./apply-delta.ts";
import { findDescents } from "./archive-descent.ts";
import { type DeflatedEntry, findDeflated } from "./archive-entries.ts";
import { type Deflater, Deflaters, SettingSearch, settingCode, settingOf } from "./deflate-setting.ts";
import { type ByteSource, brokenDelta, DeltaReader } from "./delta-format.ts";
import { type WritePiece, writeCompressed, writeDelta } from "./make-delta.ts";
import { NumberReader, NumberWriter } from "./number-stream.ts";
import { inflateEntry, type Piece, UnfoldedSource } from "./unfolded.ts";
import { UNFOLDED_FACTOR, UNFOLDED_FREE_BYTES } from "./work.ts";

/**
 * Deltas between archives: of what is in them, not of what a compressor made of it.
 *
 * One changed byte in an entry changes all compressed bytes after it, so no two versions of a jar have much in common as
 * files. Unfolded they do. The base is taken as the file itself followed by what each of its entries holds; the new archive
 * as the file, with the content of an entry in place of its compressed bytes wherever three things hold: it is not there
 * in the base in the very same compressed form, it can be inflated, and compressing it anew gives the same bytes. The recipe
 * says where those entries lie and how they were compressed; whoever applies the delta compresses them again.
 *
 *   archive  := "LSA1" coded(recipe) delta
 *   recipe   := (raw inflated setting)*     bytes as they are; bytes to be compressed, and how (deflate-setting.ts)
 *
 * What follows the last entry is as it is. `delta` and `coded` are those of delta-format.ts.
 */
export const ARCHIVE_MAGIC = "LSA1";
const RECIPE_BYTES_MAX = 4 * 1024 * 1024;

/**
 * Writes the delta between two archives. False when neither is one, nothing would be gained by unfolding, or it would not
 * be shorter than `bytesMax`: what has been written by then is of no use. Memory as for writeDelta and some 100 MB more; time:
 * a second for each 10 MB that changed.
 */
export function writeArchiveDelta(
  base: ByteSource,
  content: ByteSource,
  bytesMax: number,
  write: WritePiece,
): boolean {
  const unfolded = unfold(base, content);
  if (unfolded === null) return false;
  const head: Uint8Array[] = [new TextEncoder().encode(ARCHIVE_MAGIC)];
  writeCompressed(unfolded.recipe, head);
  for (const piece of head) write(piece);
  const left = bytesMax - head.reduce((sum, piece) => sum + piece.length, 0);
  const descents = findDescents(base, unfolded.pieces);
  const result = new UnfoldedSource(content, unfolded.pieces);
  return writeDelta(unfoldBase(base), result, left, write, { unfolded: { descents } });
}

/** The same, in memory: the pieces, or null. */
export function makeArchiveDelta(
  base: ByteSource,
  content: ByteSource,
  bytesMax: number,
): Uint8Array[] | null {
  const pieces: Uint8Array[] = [];
  return writeArchiveDelta(base, content, bytesMax, (piece) => pieces.push(Uint8Array.from(piece)))
    ? pieces
    : null;
}

/** The file, and behind it what each entry holds. */
function unfoldBase(base: ByteSource, spend?: (bytes: number) => void): ByteSource {
  const entries = findDeflated(base);
  if (entries.length === 0) return base;
  const inflated = entries.map((entry) => ({ kind: "inflated", entry }) as const);
  return new UnfoldedSource(base, [{ kind: "raw", at: 0, length: base.size }, ...inflated], spend);
}

function unfold(base: ByteSource, content: ByteSource): { pieces: Piece[]; recipe: Uint8Array } | null {
  const known = knownForms(base);
  const pieces: Piece[] = [];
  const recipe = new NumberWriter();
  const settings = new SettingSearch();
  let at = 0;
  for (const entry of findDeflated(content)) {
    if (entry.at + entry.length > content.size) continue;
    if (entry.inflatedLength > UNFOLDED_FACTOR * entry.length) continue;
    const deflated = Uint8Array.from(content.read(entry.at, entry.length));
    if (isKnown(known, base, entry, deflated)) continue;
    const inflated = inflateEntry(content, entry);
    const found = inflated === null ? null : settings.find(inflated, deflated);
    if (found === null) continue;
    for (const number of [entry.at - at, entry.inflatedLength, settingCode(found)]) recipe.add(number);
    pieces.push({ kind: "raw", at, length: entry.at - at }, { kind: "inflated", entry });
    at = entry.at + entry.length;
  }
  if (pieces.length === 0) return null;
  return {
    pieces: [...pieces, { kind: "raw", at, length: content.size - at }],
    recipe: Uint8Array.from(recipe.bytes()),
  };
}

const formOf = ({ length, inflatedLength }: DeflatedEntry) => `${length} ${inflatedLength}`;

/** Entries of the base by their two lengths. */
function knownForms(base: ByteSource): ReadonlyMap<string, readonly DeflatedEntry[]> {
  return Map.groupBy(findDeflated(base), formOf);
}

function isKnown(
  known: ReadonlyMap<string, readonly DeflatedEntry[]>,
  base: ByteSource,
  entry: DeflatedEntry,
  deflated: Uint8Array,
): boolean {
  const candidates = known.get(formOf(entry)) ?? [];
  return candidates.some(
    ({ at, length }) => at + length <= base.size && Buffer.compare(base.read(at, length), deflated) === 0,
  );
}

/**
 * Applies what makeArchiveDelta made; as applyDelta otherwise. Refuses to unfold what is many times larger than
 * `resultBytesMax`.
 */
export function applyArchiveDelta(
  base: ByteSource,
  delta: ByteSource,
  write: (bytes: Uint8Array) => void,
  resultBytesMax: number = Number.MAX_SAFE_INTEGER,
): void {
  const reader = new DeltaReader(delta);
  reader.magic(ARCHIVE_MAGIC);
  const fold = new Folding(new NumberReader(reader.coded("the recipe", RECIPE_BYTES_MAX)), write);
  const rest = reader.at;
  const inner = {
    size: delta.size - rest,
    read: (position: number, length: number) => delta.read(rest + position, length),
  };
  const unfoldedMax = Math.min(
    UNFOLDED_FREE_BYTES + UNFOLDED_FACTOR * resultBytesMax,
    Number.MAX_SAFE_INTEGER,
  );
  const push = (bytes: Uint8Array) => fold.push(bytes);
  applyCounted((work) => unfoldBase(base, (bytes) => work.spend(bytes)), inner, push, unfoldedMax);
  fold.end();
}

/** Takes the unfolded archive as it comes, and gives the archive. */
class Folding {
  readonly #recipe: NumberReader;
  /** An archive has a header of some sixty bytes before each entry, and most entries are small. */
  readonly #result: ResultPieces;
  readonly #add = (bytes: Uint8Array): void => this.#result.add(bytes);
  /** Bytes until the next entry; beyond the last one: any number. */
  #raw = 0;
  #inflated = 0;
  readonly #deflaters = new Deflaters();
  #deflater: Deflater | null = null;

  constructor(recipe: NumberReader, write: (bytes: Uint8Array) => void) {
    this.#recipe = recipe;
    this.#result = new ResultPieces(write);
    this.#next();
  }

  push(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; ) {
      const isRaw = this.#raw > 0;
      const count = Math.min(bytes.length - at, isRaw ? this.#raw : this.#inflated);
      const part = bytes.subarray(at, at + count);
      if (isRaw) {
        this.#result.add(part);
        this.#raw -= count;
      } else {
        this.#inflated -= count;
        this.#deflater?.push(part, this.#inflated === 0);
        if (this.#inflated === 0) this.#next();
      }
      at += count;
    }
  }

  end(): void {
    this.#result.flush();
    if (this.#raw !== Number.POSITIVE_INFINITY)
      throw brokenDelta("it ends before the last entry of its recipe");
  }

  #next(): void {
    this.#deflater = null;
    if (this.#recipe.isAtEnd) {
      this.#raw = Number.POSITIVE_INFINITY;
      return;
    }
    const raw = this.#recipe.next();
    const inflated = this.#recipe.next();
    const setting = settingOf(this.#recipe.next() ?? 0);
    if (raw === null || inflated === null || inflated === 0 || setting === null)
      throw brokenDelta("its recipe says something impossible");
    this.#raw = raw;
    this.#inflated = inflated;
    this.#deflater = this.#deflaters.of(setting);
    this.#deflater.begin(this.#add);
  }
}
