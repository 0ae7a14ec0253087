import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { GrowingBytes } from "./growing-bytes.ts";

test("pieces come out as one, in their order, and what was taken stays as it is", () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 700 })), (pieces) => {
      const growing = new GrowingBytes();
      for (const piece of pieces) growing.add(piece);
      assert.equal(
        growing.length,
        pieces.reduce((sum, piece) => sum + piece.length, 0),
      );
      const taken = growing.take();
      const expected = pieces.flatMap((piece) => [...piece]);
      assert.deepEqual([...taken], expected);
      growing.add(new Uint8Array(10).fill(255));
      assert.equal(growing.length, 10);
      assert.deepEqual([...taken], expected);
    }),
  );
});
