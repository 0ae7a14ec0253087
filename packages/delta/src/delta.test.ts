import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import test from "node:test";
import { isLockstepError } from "@lockstep/protocol/wire";
import { assertSameBytes } from "@lockstep/testing";
import fc from "fast-check";
import { DELTA_MAGIC, KINDS } from "./delta-format.ts";
import { applyDelta, makeDelta, sourceOf } from "./index.ts";
import { NumberReader } from "./number-stream.ts";

const NO_LIMIT = Number.POSITIVE_INFINITY;

function delta(base: Uint8Array, content: Uint8Array): Uint8Array {
  const pieces = makeDelta(sourceOf(base), sourceOf(content), NO_LIMIT);
  assert.ok(pieces !== null);
  return Buffer.concat(pieces);
}

function result(base: Uint8Array, made: Uint8Array): Buffer {
  const pieces: Uint8Array[] = [];
  applyDelta(sourceOf(base), sourceOf(made), (bytes) => pieces.push(Uint8Array.from(bytes)));
  return Buffer.concat(pieces);
}

/** Bytes that look alike, so that there is something to match. */
const words = fc.array(
  fc.constantFrom("alpha ", "beta\n", "0123456789abcdef", "\0\0\0\0\0\0\0\0", "gamma", "x"),
  {
    maxLength: 200,
  },
);
const text = words.map((list) => Buffer.from(list.join("")));
const noise = fc.uint8Array({ maxLength: 400 });

/** An edit: bytes are cut out at a place and others put there. */
const edits = fc.array(fc.record({ at: fc.nat(3000), cut: fc.nat(40), put: noise }), { maxLength: 6 });

function edit(base: Uint8Array, list: readonly { at: number; cut: number; put: Uint8Array }[]): Buffer {
  let bytes = Buffer.from(base);
  for (const { at, cut, put } of list)
    bytes = Buffer.concat([bytes.subarray(0, at), put, bytes.subarray(at + cut)]);
  return bytes;
}

test("any content comes back from any base", () => {
  const any = fc.oneof(text, noise);
  fc.assert(
    fc.property(any, any, (base, content) => {
      assertSameBytes(result(base, delta(base, content)), Buffer.from(content));
    }),
    { numRuns: 300 },
  );
});

test("an edited content comes back, and costs about what was edited", () => {
  fc.assert(
    fc.property(text, edits, (base, list) => {
      const content = edit(base, list);
      const made = delta(base, content);
      assertSameBytes(result(base, made), content);
      const put = list.reduce((sum, each) => sum + each.put.length, 0);
      assert.ok(made.length <= put + 16 * list.length + 64, `${made.length} bytes for ${put} put in`);
    }),
    { numRuns: 300 },
  );
});

/** Bytes that do not compress, the same each time. */
function noiseOf(length: number, seed: number): Buffer {
  const bytes = Buffer.alloc(length);
  let state = seed;
  for (let i = 0; i < length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    bytes[i] = state >>> 24;
  }
  return bytes;
}

test("code that moved costs the addresses that changed, not the code", () => {
  const base = noiseOf(300_000, 7);
  const content = Buffer.concat([noiseOf(100, 8), base]);
  // Every 40th byte is an address that moved along.
  for (let at = 140; at < content.length; at += 40) content[at] = (content[at] as number) + 100;
  const made = delta(base, content);
  assertSameBytes(result(base, made), content);
  assert.ok(made.length < 1_000, `${made.length} bytes`);
});

/** The way in which the first segment was made. */
function kindOf(made: Uint8Array): number | null {
  const reader = new NumberReader(made, DELTA_MAGIC.length);
  reader.next();
  reader.next();
  return reader.next();
}

test("text that was put in another order is made by the compressor that knows the base, moved code by differences", () => {
  const lines = Array.from({ length: 12_000 }, (_, i) => noiseOf(6, i).toString("hex"));
  // Each line by itself is too short for the index, and every line has another neighbour.
  const text = Buffer.from(lines.join("\n"));
  const sorted = Buffer.from(lines.toSorted().join("\n"));
  const ofText = delta(text, sorted);
  assert.equal(kindOf(ofText), KINDS.dictionary);
  assertSameBytes(result(text, ofText), sorted);
  const code = noiseOf(300_000, 9);
  const moved = Buffer.concat([noiseOf(5_000, 10), code]);
  const ofCode = delta(code, moved);
  assert.ok(kindOf(ofCode) === KINDS.separate || kindOf(ofCode) === KINDS.joined);
  assertSameBytes(result(code, ofCode), moved);
});

test("an alignment is left where another one agrees, though the bytes around still do", () => {
  const base = noiseOf(200_000, 11);
  // Bytes come and go every few thousand bytes: each is a new alignment, in front of the base and behind it.
  const pieces: Buffer[] = [];
  for (let at = 0; at < base.length; at += 4_000)
    pieces.push(base.subarray(at + (at % 3), at + 4_000), noiseOf(at % 7, at));
  const content = Buffer.concat(pieces);
  const made = delta(base, content);
  assertSameBytes(result(base, made), content);
  assert.ok(made.length < 1_000, `${made.length} bytes`);
  assertSameBytes(delta(base, content), made);
});

test("many fresh bytes stand where they belong, behind the few before them", () => {
  const base = noiseOf(100_000, 21);
  const content = Buffer.concat([base, noiseOf(300_000, 22), base.subarray(50_000)]);
  assert.ok(result(base, delta(base, content)).equals(content));
});

test("a content of several segments comes back, also where base and content are of other lengths", () => {
  const base = noiseOf(2 * 1024 * 1024, 3);
  const content = Buffer.concat([...Array.from({ length: 17 }, () => base), noiseOf(500, 5)]);
  const made = delta(base, content);
  assert.equal(createHash("sha256").update(result(base, made)).digest("hex"), sha256(content));
  assert.ok(made.length < 2_000, `${made.length} bytes`);
});

const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");

test("a delta that would not be shorter than the limit is none", () => {
  const content = noiseOf(10_000, 1);
  assert.equal(makeDelta(sourceOf(Buffer.alloc(0)), sourceOf(content), 10_000), null);
  assert.notEqual(makeDelta(sourceOf(content), sourceOf(content), 100), null);
});

test("a broken delta is refused by its code, whatever it says, and nothing of an impossible size is made", () => {
  const base = Buffer.from("the quick brown fox jumps over the lazy dog, ".repeat(50));
  const made = delta(base, edit(base, [{ at: 100, cut: 10, put: noiseOf(50, 2) }]));
  const changes = fc.array(fc.record({ at: fc.nat(made.length), byte: fc.nat(255) }), {
    minLength: 1,
    maxLength: 4,
  });
  fc.assert(
    fc.property(changes, fc.nat(made.length), fc.boolean(), (list, length, isCut) => {
      const broken = Uint8Array.from(made);
      for (const { at, byte } of list) broken[at] = byte;
      try {
        result(base, isCut ? broken.subarray(0, length) : broken);
      } catch (error) {
        assert.ok(isLockstepError(error, "DELTA_INVALID"), String(error));
      }
    }),
    { numRuns: 2_000 },
  );
});

/** The test vectors of docs/reference/delta-format.md: they are applied for as long as the format is. */
const VECTOR_BASE = "Lockstep keeps every installation in step.\n";
const VECTORS: readonly (readonly [hex: string, text: string])[] = [
  ["4c5344310606010006066f746865720a00", "other\n"],
  ["4c5344311717010117141b1600f88d946edeaa0c0339ab34b790270eb01900", "again again again again"],
  [
    "4c534431373702002b1428b52ffd00005d0000182c202e0200c0c6b7671000",
    "every installation in step, every installation in step.",
  ],
  [
    "4c5344312525030303030202070014140d070a0007000002180b000b046d616368696e6500",
    "Lockstep kept every machine in step.\n",
  ],
  [
    "4c5344312525040003030d070a0003030007000003030002180002020b000002020b040007076d616368696e6500",
    "Lockstep kept every machine in step.\n",
  ],
];

test("the test vectors of the format are applied, and refused when cut anywhere", () => {
  for (const [hex, text] of VECTORS) {
    const base = Buffer.from(VECTOR_BASE);
    const made = Buffer.from(hex, "hex");
    assert.equal(result(base, made).toString(), text);
    for (let length = 0; length < made.length; length++)
      assert.throws(
        () => result(base, made.subarray(0, length)),
        (error) => isLockstepError(error, "DELTA_INVALID"),
      );
  }
});

test("a base larger than what is looked at is read at whole places, around where the content is", () => {
  const base = Buffer.alloc(3 * 2 ** 20);
  for (let at = 0; at + 32 <= base.length; at += 32)
    createHash("sha256").update(`${at}`).digest().copy(base, at);
  const inner = sourceOf(base);
  const strict = {
    size: inner.size,
    read: (position: number, length: number) => {
      assert.ok(Number.isSafeInteger(position) && position >= 0 && position + length <= base.length);
      return inner.read(position, length);
    },
  };
  // Two segments: the second one has the end of the base.
  const content = Buffer.concat([Buffer.alloc(32 * 2 ** 20), base.subarray(2.5 * 2 ** 20)]);
  const pieces = makeDelta(strict, sourceOf(content), NO_LIMIT, 2 ** 20);
  assert.ok(pieces !== null);
  const made = Buffer.concat(pieces);
  assert.ok(made.length < 10_000, `${made.length} bytes`);
  assert.ok(result(base, made).equals(content));
});
