import { type BlockIndex, viewOf } from "./block-index.ts";

/**
 * How a new content is made of a base: stretches that lie in the base almost as they are, with fresh bytes in between.
 *
 * "Almost" is what makes executables cheap: when code moves, every address in it changes by a few bytes, and exact matches
 * are short. So once an alignment of base and content is found, it is kept for as long as most bytes agree, and the
 * difference is coded, which is nearly all zero. That is bsdiff's idea (C. Percival, "Naive differences of executable
 * code", 2003); here a sampled index stands in for its suffix array.
 */
export interface Stretches {
  /** Three numbers each: bytes taken from the base with a difference, fresh bytes that follow, position in the base. */
  readonly numbers: readonly number[];
}

/** A new alignment must agree in so many bytes more than the present one. */
const BETTER_BY = 8;
/** From this length on, a match that is not worth a new alignment is left in steps, or repetitive data cost n². */
const LONG = 64;

/** Length of what base and content have in common from these positions on. */
function commonLength(base: Uint8Array, at: number, content: Uint8Array, from: number): number {
  const limit = Math.min(base.length - at, content.length - from);
  let length = 0;
  while (length < limit && base[at + length] === content[from + length]) length++;
  return length;
}

/** The present alignment holds where so many of so many bytes agree; no other is looked for there. */
const HELD_BYTES = 64;
const HELD_AGREE = 48;

/**
 * From where on the present alignment no longer holds. In an executable it holds nearly everywhere, and a look at two
 * bytes side by side costs a hundredth of a look into the index, which is larger than any cache.
 */
function heldUntil(base: Uint8Array, content: Uint8Array, from: number, alignment: number): number {
  if (from + alignment < 0) return from;
  const last = Math.min(content.length, base.length - alignment) - HELD_BYTES;
  let at = from;
  while (at <= last) {
    let agreed = 0;
    for (let i = at; i < at + HELD_BYTES; i++) if (base[i + alignment] === content[i]) agreed++;
    if (agreed < HELD_AGREE) break;
    at += HELD_BYTES;
  }
  return at;
}

/** What is to be looked at while going through the content, once. */
class Search {
  readonly #base: Uint8Array;
  readonly #content: Uint8Array;
  readonly #index: BlockIndex;
  readonly #view: DataView;
  readonly #blockBytes: number;
  /** The run that was measured last, for each of both kinds: offset of base against content, and where it ends. */
  #foundOffset = Number.NaN;
  #foundEnd = 0;
  #keptOffset = Number.NaN;
  #keptEnd = 0;
  length = 0;
  position = 0;

  constructor(base: Uint8Array, content: Uint8Array, index: BlockIndex) {
    this.#base = base;
    this.#content = content;
    this.#index = index;
    this.#view = viewOf(content);
    this.#blockBytes = index.blockBytes;
  }

  /** The longest match at `from` that the index knows or the present alignment gives; length 0: none of a block. */
  find(from: number, alignment: number): void {
    this.length = 0;
    if (from + this.#blockBytes > this.#content.length) return;
    this.#findKept(from, alignment);
    const base = this.#base;
    const content = this.#content;
    const index = this.#index;
    const bucket = index.bucket(index.hash(this.#view, from));
    for (let slot = bucket; slot < bucket + index.ways; slot++) {
      const at = index.at(slot);
      if (at < 0) return;
      // It must be longer than the best so far, so it must agree where that one ends.
      if (at + this.length >= base.length || base[at + this.length] !== content[from + this.length]) continue;
      const isKnown = at - from === this.#foundOffset && this.#foundEnd > from;
      const length = isKnown ? this.#foundEnd - from : commonLength(base, at, content, from);
      if (length < this.#blockBytes || length <= this.length) continue;
      this.length = length;
      this.position = at;
      this.#foundOffset = at - from;
      this.#foundEnd = from + length;
    }
  }

  #findKept(from: number, alignment: number): void {
    const at = from + alignment;
    if (at < 0 || at >= this.#base.length || this.#base[at] !== this.#content[from]) return;
    if (alignment !== this.#keptOffset || this.#keptEnd <= from) {
      this.#keptOffset = alignment;
      this.#keptEnd = from + commonLength(this.#base, at, this.#content, from);
    }
    if (this.#keptEnd - from < this.#blockBytes) return;
    this.length = this.#keptEnd - from;
    this.position = at;
  }
}

/** All of `content` in stretches of `base`, in the order of the content. `index`: of this base. */
export function findStretches(base: Uint8Array, content: Uint8Array, index: BlockIndex): Stretches {
  const numbers: number[] = [];
  const search = new Search(base, content, index);
  const agrees = (at: number, alignment: number) => {
    const inBase = at + alignment;
    return inBase >= 0 && inBase < base.length && base[inBase] === content[at];
  };
  let scan = 0;
  let lastScan = 0;
  let lastPosition = 0;
  while (scan < content.length) {
    const alignment = lastPosition - lastScan;
    /** How many bytes from `scan` to `scored` agree under the present alignment. */
    let score = 0;
    scan = heldUntil(base, content, scan + search.length, alignment);
    for (let scored = scan; scan < content.length; scan++) {
      search.find(scan, alignment);
      const { length } = search;
      for (const end = scan + length; scored < end; scored++) if (agrees(scored, alignment)) score++;
      if ((length === score && length !== 0) || length > score + BETTER_BY) break;
      const next = length < LONG ? scan : scan + (length >> 2);
      for (; scan < next; scan++) if (score > 0 && agrees(scan, alignment)) score--;
      if (score > 0 && agrees(scan, alignment)) score--;
    }
    // The present alignment goes on.
    if (scan < content.length && search.length === score) continue;
    const isEnd = scan >= content.length;
    const { taken, given } = divide(
      base,
      content,
      lastScan,
      lastPosition,
      scan,
      isEnd ? null : search.position,
    );
    numbers.push(taken, scan - given - (lastScan + taken), lastPosition);
    lastScan = scan - given;
    lastPosition = search.position - given;
  }
  return { numbers };
}

/**
 * Where the old alignment ends and the new one begins: each is carried on towards the other for as long as more bytes
 * agree than do not, and where both want the same bytes, the cut lies where most agree.
 */
function divide(
  base: Uint8Array,
  content: Uint8Array,
  lastScan: number,
  lastPosition: number,
  scan: number,
  position: number | null,
): { taken: number; given: number } {
  let taken = extendForward(base, content, lastPosition, lastScan, scan);
  let given = position === null ? 0 : extendBackward(base, content, position, scan, lastScan);
  const overlap = lastScan + taken - (scan - given);
  if (position === null || overlap <= 0) return { taken, given };
  let score = 0;
  let best = 0;
  let cut = 0;
  for (let i = 0; i < overlap; i++) {
    const at = lastScan + taken - overlap + i;
    if (content[at] === base[lastPosition + taken - overlap + i]) score++;
    if (content[at] === base[position - given + i]) score--;
    if (score <= best) continue;
    best = score;
    cut = i + 1;
  }
  taken += cut - overlap;
  given -= cut;
  return { taken, given };
}

function extendForward(base: Uint8Array, content: Uint8Array, at: number, from: number, to: number): number {
  const limit = Math.min(to - from, base.length - at);
  let agreed = 0;
  let best = 0;
  let length = 0;
  for (let i = 0; i < limit; i++) {
    if (base[at + i] === content[from + i]) agreed++;
    const worth = 2 * agreed - (i + 1);
    if (worth <= best) continue;
    best = worth;
    length = i + 1;
  }
  return length;
}

function extendBackward(base: Uint8Array, content: Uint8Array, at: number, from: number, to: number): number {
  const limit = Math.min(from - to, at);
  let agreed = 0;
  let best = 0;
  let length = 0;
  for (let i = 1; i <= limit; i++) {
    if (base[at - i] === content[from - i]) agreed++;
    const worth = 2 * agreed - i;
    if (worth <= best) continue;
    best = worth;
    length = i;
  }
  return length;
}
