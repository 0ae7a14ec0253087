import { BlockIndex, NEAR, NEAR_BYTES_MAX } from "./block-index.ts";
import type { ReadBase } from "./differences.ts";
import { findStretches } from "./match.ts";

/**
 * Where each byte of a segment comes from, looked for first where it most likely lies.
 *
 * An entry of an archive was nearly always made of the one that had its name before. In there so little has to be looked
 * through that every position can be in the index, and a match of eight bytes is worth its address, which is a short one; in the
 * whole base it would be found by accident. What is not found there is looked for in the whole, as is whatever has no
 * predecessor. Besides, a table of a few kilobytes is in the processor's cache, and one of the whole base is not.
 */
export interface Part {
  /** In bytes. */
  readonly at: number;
  readonly length: number;
}

/** A part of a content, and the part of the base that it was most likely made of. */
export interface Descent {
  readonly part: Part;
  readonly origin: Part;
}

/** A base, or the piece of it that is looked at, from `start` on. */
export interface BaseView {
  readonly start: number;
  readonly bytes: Uint8Array;
  readonly index: () => BlockIndex;
  /** Also outside of what is looked at. */
  readonly read: ReadBase;
}

/**
 * What is shorter, between two parts or within one, is not looked for in the whole base: to go there and back costs about as much
 * as it holds. The header of an entry is such a thing, whose name and sizes compress well beside those of the others.
 */
const GAP_BYTES_MIN = 160;

/**
 * The stretches of a segment, as findStretches gives them, with positions in the whole base. `start`: where the segment begins
 * in the content that `descents` tell of, in the order of the content.
 */
export function matchSegment(
  base: BaseView,
  segment: Uint8Array,
  start: number,
  descents: readonly Descent[],
): number[] {
  const found = new FoundRuns();
  let at = 0;
  for (const { part, origin } of descents) {
    const from = Math.max(part.at - start, at);
    const to = Math.min(part.at + part.length - start, segment.length);
    if (to <= from || origin.length > NEAR_BYTES_MAX) continue;
    matchGap(base, segment, at, from, found);
    matchNear(base, segment, from, to, origin, found);
    at = to;
  }
  if (at === 0) matchWhole(base, segment, 0, segment.length, found);
  else matchGap(base, segment, at, segment.length, found);
  return found.stretches(segment.length);
}

function matchWhole(base: BaseView, segment: Uint8Array, from: number, to: number, found: FoundRuns): void {
  const { numbers } = findStretches(base.bytes, segment.subarray(from, to), base.index());
  for (const { at, length, position } of runsOf(numbers)) found.add(from + at, length, base.start + position);
}

function matchGap(base: BaseView, segment: Uint8Array, from: number, to: number, found: FoundRuns): void {
  if (to - from >= GAP_BYTES_MIN) matchWhole(base, segment, from, to, found);
}

function matchNear(
  base: BaseView,
  segment: Uint8Array,
  from: number,
  to: number,
  origin: Part,
  found: FoundRuns,
): void {
  const near = Uint8Array.from(base.read(origin.at, origin.length));
  const { numbers } = findStretches(near, segment.subarray(from, to), new BlockIndex(near, null, NEAR));
  let end = from;
  for (const { at, length, position } of runsOf(numbers)) {
    matchGap(base, segment, end, from + at, found);
    found.add(from + at, length, origin.at + position);
    end = from + at + length;
  }
  matchGap(base, segment, end, to, found);
}

interface Run {
  readonly at: number;
  readonly length: number;
  readonly position: number;
}

/** What of the content comes from the base. */
function* runsOf(stretches: readonly number[]): Generator<Run, void> {
  let at = 0;
  for (let i = 0; i < stretches.length; i += 3) {
    const [length = 0, fresh = 0, position = 0] = stretches.slice(i, i + 3);
    if (length > 0) yield { at, length, position };
    at += length + fresh;
  }
}

/** Runs in the order of the content, from wherever they came. */
class FoundRuns {
  /** Three numbers each: where it stands in the content, its length, where it stands in the base. */
  readonly #numbers: number[] = [];

  add(at: number, length: number, position: number): void {
    const last = this.#numbers.length - 3;
    const [lastAt = 0, lastLength = 0, lastPosition = 0] = last < 0 ? [] : this.#numbers.slice(last);
    const goesOn = last >= 0 && at === lastAt + lastLength && position === lastPosition + lastLength;
    if (goesOn) this.#numbers[last + 1] = lastLength + length;
    else this.#numbers.push(at, length, position);
  }

  /** As findStretches gives them, of a content of `length` bytes. */
  stretches(length: number): number[] {
    const numbers = this.#numbers;
    const first = numbers[0] ?? length;
    const stretches = first > 0 ? [0, first, 0] : [];
    for (let i = 0; i < numbers.length; i += 3) {
      const [at = 0, taken = 0, position = 0, next = length] = numbers.slice(i, i + 4);
      stretches.push(taken, next - (at + taken), position);
    }
    return stretches;
  }
}
