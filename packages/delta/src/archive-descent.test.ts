import assert from "node:assert/strict";
import test from "node:test";
import { makeZip, numberedLines } from "@lockstep/testing";
import pako from "pako";
import { findDescents } from "./archive-descent.ts";
import { findDeflated } from "./archive-entries.ts";
import { makeArchiveDelta, sourceOf } from "./index.ts";
import type { Piece } from "./unfolded.ts";

const zip = (entries: Readonly<Record<string, Buffer>>) =>
  makeZip(
    Object.entries(entries).map(([name, content]) => ({
      ...{ name, content },
      deflated: Buffer.from(pako.deflateRaw(content, { level: 6 })),
    })),
  );

const piecesOf = (archive: Buffer): Piece[] =>
  findDeflated(sourceOf(archive)).map((entry) => ({ kind: "inflated", entry }));

test("an entry is made of the one of its name, else of one whose name differs in numbers alone", () => {
  const [a, b, c] = [numberedLines(10, 1), numberedLines(20, 2), numberedLines(30, 3)];
  const base = zip({ "lib-1.4/a": a, "lib-1.4/b": b, c });
  const content = zip({ c: b, new: a, "lib-1.10/b": c });
  const behind = base.length;
  assert.deepEqual(findDescents(sourceOf(base), piecesOf(content)), [
    {
      part: { at: 0, length: b.length },
      origin: { at: behind + a.length + b.length, length: c.length },
    },
    {
      part: { at: b.length + a.length, length: c.length },
      origin: { at: behind + a.length, length: b.length },
    },
  ]);
});

/** Words of a few letters, in an order of their own: what two entries have in common by accident is short. */
function shuffled(seed: number): Buffer {
  const words = Array.from({ length: 700 }, (_, i) => `w${(i * 7919 * (seed + 1) + seed * 31) % 4_093}`);
  return Buffer.from(words.join(" "));
}

test("entries that are alike are told apart by their names, which saves bytes", () => {
  const names = Array.from({ length: 12 }, (_, i) => `${String.fromCharCode(97 + i)}.txt`);
  const before = names.map((name, i) => [name, shuffled(i)] as const);
  /** Every third word is another one: matches are shorter than what the whole base is searched by. */
  const after = before.map(([name, text], i) => {
    const words = text.toString().split(" ");
    return [
      name,
      Buffer.from(words.map((word, k) => (k % 3 === 0 ? `x${(k * i) % 997}` : word)).join(" ")),
    ] as const;
  });
  const base = zip(Object.fromEntries(before));
  const bytesOf = (named: readonly (readonly [string, Buffer])[]) =>
    makeArchiveDelta(
      sourceOf(base),
      sourceOf(zip(Object.fromEntries(named))),
      Number.POSITIVE_INFINITY,
    )?.reduce((sum, piece) => sum + piece.length, 0) ?? Number.NaN;
  const named = bytesOf(after);
  const renamed = bytesOf(after.map(([name, text]) => [`renamed ${name}`, text]));
  assert.ok(named < 0.9 * renamed, `${named} bytes with names, ${renamed} without`);
});
