import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import test from "node:test";
import { assertSameBytes, numberedLines } from "@lockstep/testing";
import fc from "fast-check";
import { BlockIndex } from "./block-index.ts";
import { applyDelta, sourceOf } from "./index.ts";
import { writeDelta } from "./make-delta.ts";
import { type BaseView, type Descent, matchSegment } from "./segment-match.ts";

function viewOf(base: Uint8Array, start = 0, end = base.length): BaseView {
  const bytes = base.subarray(start, end);
  const index = new BlockIndex(bytes);
  return { start, bytes, index: () => index, read: (at, length) => base.subarray(at, at + length) };
}

/** The stretches cover the content, and where nothing is between them they lie within the base. */
function assertCovers(stretches: readonly number[], length: number, baseLength: number): void {
  let covered = 0;
  for (let i = 0; i < stretches.length; i += 3) {
    const [taken = 0, fresh = 0, position = 0] = stretches.slice(i, i + 3);
    assert.ok(taken >= 0 && fresh >= 0 && position >= 0 && position + taken <= baseLength);
    covered += taken + fresh;
  }
  assert.equal(covered, length);
}

const twice = Buffer.concat([numberedLines(300, 1), numberedLines(300, 2), numberedLines(300, 1)]);
const length = numberedLines(300, 1).length;
const last = { at: twice.length - length, length };

test("what lies in the base twice is taken from where it is said to come from", () => {
  const content = numberedLines(300, 1);
  const part = { at: 0, length };
  assert.deepEqual(matchSegment(viewOf(twice), content, 0, []), [length, 0, 0]);
  assert.deepEqual(matchSegment(viewOf(twice), content, 0, [{ part, origin: last }]), [length, 0, last.at]);
});

test("an origin outside of the piece of the base that is looked at is found, too", () => {
  const content = numberedLines(300, 1);
  const view = viewOf(twice, length, last.at);
  const descent = { part: { at: 5_000, length }, origin: last };
  assert.deepEqual(matchSegment(view, content, 5_000, [descent]), [length, 0, last.at]);
});

test("what is not where it is said to come from is found elsewhere", () => {
  const noise = randomBytes(9_000);
  const base = Buffer.concat([noise, numberedLines(300, 1)]);
  const content = Buffer.concat([noise.subarray(3_000, 5_000), base.subarray(9_000, 12_000)]);
  const descent = { part: { at: 0, length: content.length }, origin: { at: 9_000, length } };
  const stretches = matchSegment(viewOf(base), content, 0, [descent]);
  assertCovers(stretches, content.length, base.length);
  const fresh = stretches.reduce((sum, number, i) => sum + (i % 3 === 1 ? number : 0), 0);
  assert.ok(fresh < 100, `${fresh} fresh bytes`);
});

test("whatever is said about origins, true or not, the content comes back", () => {
  const base = numberedLines(400, 5);
  const edits = fc.array(fc.tuple(fc.nat(base.length - 1), fc.nat(255)), { maxLength: 20 });
  const parts = fc.array(fc.tuple(fc.nat(400), fc.nat(900), fc.nat(base.length - 1), fc.nat(2_000)), {
    maxLength: 12,
  });
  fc.assert(
    fc.property(edits, parts, fc.nat(3_000), (changes, drawn, moved) => {
      const content = Buffer.concat([base.subarray(moved), base.subarray(0, moved)]);
      for (const [at, byte] of changes) content[at] = byte;
      const descents: Descent[] = [];
      let at = 0;
      for (const [gap, size, from, many] of drawn) {
        const origin = { at: from, length: Math.min(many, base.length - from) };
        descents.push({ part: { at: at + gap, length: size }, origin });
        at += gap + size;
      }
      // The last may reach beyond the content.
      assertCovers(matchSegment(viewOf(base), content, 0, descents), content.length, base.length);
      const pieces: Uint8Array[] = [];
      const keep = (piece: Uint8Array) => pieces.push(Uint8Array.from(piece));
      writeDelta(sourceOf(base), sourceOf(content), Number.POSITIVE_INFINITY, keep, {
        windowBytes: 2_000,
        unfolded: { descents },
      });
      const made: Uint8Array[] = [];
      applyDelta(sourceOf(base), sourceOf(Buffer.concat(pieces)), (bytes) =>
        made.push(Uint8Array.from(bytes)),
      );
      assertSameBytes(Buffer.concat(made), content);
    }),
    { numRuns: 25 },
  );
});
