import assert from "node:assert/strict";
import test from "node:test";
import { deflateRawSync } from "node:zlib";
import { numberedLines } from "@lockstep/testing";
import { sourceOf } from "./index.ts";
import { inflateEntry, UnfoldedSource } from "./unfolded.ts";

const MEBIBYTE = 1024 * 1024;
const content = numberedLines(20_000, 1);
const deflated = deflateRawSync(content);
/** As in an archive: something else before and behind. */
const file = sourceOf(Buffer.concat([Buffer.alloc(7, 1), deflated, Buffer.alloc(9, 2)]));
const entry = { name: "", at: 7, length: deflated.length, inflatedLength: content.length };

test("an entry is inflated into memory of its own length, once", () => {
  for (const length of [1, 2, 62, 63, 64, 65, 16_383, 16_384, 16_385, 100_000, content.length]) {
    const part = content.subarray(0, length);
    const packed = deflateRawSync(part);
    const found = inflateEntry(sourceOf(packed), {
      ...entry,
      at: 0,
      length: packed.length,
      inflatedLength: length,
    });
    assert.deepEqual(found, part);
    // Short ones come out of a pool.
    if (length >= 100_000) assert.equal(found?.buffer.byteLength, length + 1);
  }
});

test("an entry that lies about a length holds nothing, and reads as zeros", () => {
  const lies = [
    ...[
      1,
      content.length >> 1,
      content.length - 1,
      content.length + 1,
      2 * content.length,
      32 * MEBIBYTE,
    ].map((inflatedLength) => ({ ...entry, inflatedLength })),
    ...[1, entry.length - 1, entry.length + 1].map((length) => ({ ...entry, length })),
    { ...entry, at: entry.at + 1 },
  ];
  for (const lie of lies) {
    assert.equal(inflateEntry(file, lie), null, JSON.stringify(lie));
    const source = new UnfoldedSource(file, [{ kind: "inflated", entry: lie }]);
    assert.equal(source.size, lie.inflatedLength);
    assert.ok(source.read(0, Math.min(source.size, 1_000)).every((byte) => byte === 0));
  }
});

test("what is inflated is counted before it is, however often it is read", () => {
  const large = { ...entry, inflatedLength: 32 * MEBIBYTE };
  let left = 100 * MEBIBYTE;
  const spend = (bytes: number) => {
    left -= bytes;
    if (left < 0) throw new Error("enough");
  };
  const pieces = Array.from({ length: 8 }, () => ({ kind: "inflated", entry: large }) as const);
  const source = new UnfoldedSource(file, pieces, spend);
  const readAll = () => pieces.map((_, i) => source.read(i * large.inflatedLength, 10));
  assert.throws(readAll, /enough/);
  assert.equal(left, 100 * MEBIBYTE - 4 * large.inflatedLength);
});

test("what is kept no longer is given back at once, and read again where it is wanted again", () => {
  const large = { ...entry, inflatedLength: 20 * MEBIBYTE };
  const pieces = [large, entry, large].map((each) => ({ kind: "inflated", entry: each }) as const);
  const source = new UnfoldedSource(file, pieces);
  const starts = [0, large.inflatedLength, large.inflatedLength + content.length] as const;
  const first = source.read(starts[0], 10);
  const second = source.read(starts[1], 10);
  assert.equal(first.buffer.byteLength, large.inflatedLength);
  source.read(starts[2], 10);
  assert.equal(first.buffer.byteLength, 0);
  assert.deepEqual(second, content.subarray(0, 10), "there is room for this one");
  assert.deepEqual(source.read(starts[0], 10), new Uint8Array(10));
});
