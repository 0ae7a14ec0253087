import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { constants, zstdCompressSync, zstdDecompressSync } from "node:zlib";
import fc from "fast-check";
import { measureFrame } from "./zstd-frame.ts";

const content = fc.oneof(
  fc.uint8Array({ maxLength: 2_000 }),
  // Long runs and repetitions, so that all kinds of blocks and all sizes of headers occur.
  fc
    .tuple(fc.uint8Array({ minLength: 1, maxLength: 50 }), fc.integer({ min: 1, max: 20_000 }))
    .map(([piece, times]) => Buffer.concat(Array.from({ length: times }, () => piece))),
  fc.integer({ min: 0, max: 300_000 }).map((length) => randomBytes(length)),
);

test("a frame is measured to its end, whatever follows it, and says how much it decodes to", () => {
  fc.assert(
    fc.property(
      content,
      fc.integer({ min: 1, max: 19 }),
      fc.boolean(),
      fc.uint8Array({ maxLength: 40 }),
      (bytes, level, checksum, tail) => {
        const frame = zstdCompressSync(bytes, {
          params: {
            [constants.ZSTD_c_compressionLevel]: level,
            [constants.ZSTD_c_checksumFlag]: checksum ? 1 : 0,
          },
        });
        const measured = measureFrame(Buffer.concat([frame, tail]));
        assert.equal(measured?.length, frame.length);
        assert.ok(measured.contentBytes === null || measured.contentBytes === bytes.length);
        for (let cut = 0; cut < frame.length; cut += Math.ceil(frame.length / 50))
          assert.equal(measureFrame(frame.subarray(0, cut)), null, `cut at ${cut} of ${frame.length}`);
      },
    ),
    { numRuns: 100 },
  );
});

test("the window that a frame demands is told", () => {
  const stream = zstdCompressSync(randomBytes(3 * 2 ** 20), {
    params: { [constants.ZSTD_c_windowLog]: 20, [constants.ZSTD_c_contentSizeFlag]: 0 },
  });
  assert.equal(measureFrame(stream)?.windowBytes, 2 ** 20);
});

test("anything else than a frame is none", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 100 }), (bytes) => {
      const measured = measureFrame(Buffer.from(bytes));
      // What looks like a frame by chance must at least not reach beyond the bytes.
      assert.ok(measured === null || measured.length <= bytes.length);
    }),
  );
  const skippable = Buffer.from([0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4]);
  assert.equal(measureFrame(skippable), null);
});

test("frames one behind the other decode in one call to their contents one behind the other", () => {
  // The batches of the content intake rest on this.
  const contents = Array.from({ length: 200 }, (_, index) => Buffer.from(`content ${index}\n`.repeat(index)));
  const frames = contents.map((bytes) => zstdCompressSync(bytes));
  assert.deepEqual(zstdDecompressSync(Buffer.concat(frames)), Buffer.concat(contents));
});
