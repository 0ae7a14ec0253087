import assert from "node:assert/strict";
import test from "node:test";
import { isLockstepError } from "@lockstep/protocol/wire";
import { assertSameBytes, makeZip, numberedLines } from "@lockstep/testing";
import fc from "fast-check";
import pako from "pako";
import { findDeflated } from "./archive-entries.ts";
import { applyArchiveDelta, makeArchiveDelta, sourceOf } from "./index.ts";

interface Entry {
  readonly name: string;
  readonly content: Buffer;
  readonly level: 1 | 6 | 9;
  /** Compressed by somebody whom no setting of ours reproduces: stored blocks. */
  readonly isForeign?: boolean;
}

/** Compressed data that no compressor writes: one stored block, which still is deflate. */
function storedBlock(content: Buffer): Buffer {
  const head = Buffer.from([1, 0, 0, 0, 0]);
  head.writeUInt16LE(content.length, 1);
  head.writeUInt16LE(~content.length & 0xffff, 3);
  return Buffer.concat([head, content]);
}

function zip(entries: readonly Entry[]): Buffer {
  return makeZip(
    entries.map(({ name, content, level, isForeign }) => ({
      ...{ name, content },
      deflated: isForeign ? storedBlock(content) : Buffer.from(pako.deflateRaw(content, { level })),
    })),
  );
}

function gzip(content: Buffer): Buffer {
  return Buffer.from(pako.gzip(content, { level: 6 }));
}

function make(base: Buffer, content: Buffer): Buffer | null {
  const pieces = makeArchiveDelta(sourceOf(base), sourceOf(content), Number.POSITIVE_INFINITY);
  return pieces === null ? null : Buffer.concat(pieces);
}

function apply(base: Buffer, delta: Uint8Array): Buffer {
  const pieces: Uint8Array[] = [];
  applyArchiveDelta(sourceOf(base), sourceOf(delta), (bytes) => pieces.push(Uint8Array.from(bytes)));
  return Buffer.concat(pieces);
}

const before: Entry[] = [
  { name: "a.txt", content: numberedLines(4_000, 1), level: 6 },
  { name: "b/c.class", content: numberedLines(2_000, 2), level: 9 },
  { name: "same", content: numberedLines(500, 3), level: 6 },
];
const edited = Buffer.concat([
  before[0]?.content.subarray(0, 9_000) ?? Buffer.alloc(0),
  Buffer.from("A new line\n"),
  before[0]?.content.subarray(9_000) ?? Buffer.alloc(0),
]);

test("a changed line in an archive costs a line, not the archive", () => {
  const base = zip(before);
  const content = zip(before.map((entry, i) => (i === 0 ? { ...entry, content: edited } : entry)));
  const delta = make(base, content);
  assert.ok(delta !== null);
  assertSameBytes(apply(base, delta), content);
  assert.ok(delta.length < 300, `${delta.length} bytes`);
});

test("the same for a gzip file, and for an entry that moved to another name and another level", () => {
  const packed = make(gzip(before[0]?.content ?? Buffer.alloc(0)), gzip(edited));
  assert.ok(packed !== null && packed.length < 200);
  assertSameBytes(apply(gzip(before[0]?.content ?? Buffer.alloc(0)), packed), gzip(edited));
  const content = zip([{ name: "elsewhere/a-2.0.txt", content: edited, level: 1 }]);
  const delta = make(zip(before), content);
  assert.ok(delta !== null && delta.length < 300);
  assertSameBytes(apply(zip(before), delta), content);
});

test("an entry that nobody can compress the same way again travels as it is", () => {
  const foreign = { name: "f", content: numberedLines(400, 9), level: 6, isForeign: true } as const;
  const content = zip([{ name: "a.txt", content: edited, level: 6 }, foreign]);
  const delta = make(zip(before), content);
  assert.ok(delta !== null);
  assertSameBytes(apply(zip(before), delta), content);
  assert.equal(make(zip(before), zip([foreign])), null);
});

test("what is no archive, or says that it is one and is not, has no such delta", () => {
  assert.equal(make(zip(before), numberedLines(100, 4)), null);
  assert.deepEqual(findDeflated(sourceOf(Buffer.from("PK\x03\x04"))), []);
  assert.deepEqual(findDeflated(sourceOf(Buffer.from([0x1f, 0x8b, 8, 255, 0, 0, 0, 0, 0, 0, 1]))), []);
  const lying = zip(before);
  // The directory says that it begins behind the end.
  lying.writeUInt32LE(lying.length, lying.length - 6);
  assert.deepEqual(findDeflated(sourceOf(lying)), []);
});

test("whatever stands in an archive, its delta gives it back", () => {
  const level = fc.constantFrom<Entry["level"]>(1, 6, 9);
  const entry = fc.record({
    name: fc.constantFrom("a", "b", "c/d"),
    content: fc
      .tuple(fc.integer({ min: 1, max: 300 }), fc.integer({ min: 1, max: 4 }))
      .map(([n, seed]) => numberedLines(n, seed)),
    level,
    isForeign: fc.boolean(),
  });
  const archives = fc.array(entry, { maxLength: 4 }).map(zip);
  const spoiled = fc
    .tuple(archives, fc.array(fc.tuple(fc.nat(5_000), fc.nat(255)), { maxLength: 3 }))
    .map(([archive, changes]) => {
      for (const [at, byte] of changes) if (at < archive.length) archive[at] = byte;
      return archive;
    });
  fc.assert(
    fc.property(fc.oneof(archives, spoiled), fc.oneof(archives, spoiled), (base, content) => {
      const delta = make(base, content);
      if (delta !== null) assertSameBytes(apply(base, delta), content);
    }),
    { numRuns: 150 },
  );
});

test("a broken delta of an archive is refused by its code", () => {
  const base = zip(before);
  const delta = make(base, zip(before.map((entry) => ({ ...entry, content: edited }))));
  assert.ok(delta !== null);
  fc.assert(
    fc.property(
      fc.nat(delta.length - 1),
      fc.nat(255),
      fc.nat(delta.length),
      fc.boolean(),
      (at, byte, length, isCut) => {
        const broken = Uint8Array.from(delta);
        broken[at] = byte;
        try {
          apply(base, isCut ? broken.subarray(0, length) : broken);
        } catch (error) {
          assert.ok(isLockstepError(error, "DELTA_INVALID"), String(error));
        }
      },
    ),
    { numRuns: 150 },
  );
});

/** The test vector of docs/reference/delta-format.md: it is applied for as long as the format is. */
test("the test vector of the format for archives is applied, and refused when cut anywhere", () => {
  const bytes = (hex: string) => Buffer.from(hex, "hex");
  const base = bytes(
    "1f8b0800000000000003f3c94fce2e2e492d50c84e4d2d2856482d4b2daa54c8cc2b2e49ccc9492cc9cccf037214400af4b8003cedfbc42b000000",
  );
  const delta = bytes(
    "4c5341310003030a2a0c4c5344313c3c0200661f28b52ffd0000b50000581f7074864516822a0000000300575dc41a23d5c21500",
  );
  const result = bytes(
    "1f8b0800000000000003f3c94fce2e2e492d50c84e2d2851482d4b2daa54c8cc2b2e49ccc9492cc9cccf03721440f27a5c00864516822a000000",
  );
  assertSameBytes(apply(base, delta), result);
  for (let length = 0; length < delta.length; length++)
    assert.throws(
      () => apply(base, delta.subarray(0, length)),
      (error) => isLockstepError(error, "DELTA_INVALID"),
    );
});

test("long streams of changes between archives come back, whatever coded them", () => {
  const old = noise(700_000, 1);
  // A change in every fifth byte, but for pieces by which it is seen what comes from where.
  const now = Buffer.from(old);
  for (let at = 0; at < now.length; at += 5) if (at % 8_192 > 64) now[at] = (now[at] ?? 0) + 1 + (at % 3);
  const base = gzip(old);
  const content = gzip(now);
  const delta = make(base, content) ?? Buffer.alloc(0);
  assert.ok(delta.includes(ZSTD_MAGIC), "zstd codes the streams that repeat themselves");
  assert.ok(delta.length < 10_000, `${delta.length} bytes`);
  assertSameBytes(apply(base, delta), content);
});

const ZSTD_MAGIC = Buffer.from([0x28, 0xb5, 0x2f, 0xfd]);

/** Bytes that no compressor makes shorter, the same for the same seed. */
function noise(length: number, seed: number): Buffer {
  const bytes = Buffer.alloc(length);
  let state = seed;
  for (let at = 0; at < length; at++) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    bytes[at] = state >>> 24;
  }
  return bytes;
}
