import assert from "node:assert/strict";
import { test } from "node:test";
import { assertSameBytes } from "./same-bytes.ts";

test("bytes that differ are told by the first one, whichever is longer", () => {
  const bytes = Buffer.from("abcdef");
  assertSameBytes(bytes, Buffer.from("abcdef"));
  assertSameBytes(Buffer.alloc(0), Buffer.alloc(0));
  const refused = (found: Uint8Array, place: number) =>
    assert.throws(
      () => assertSameBytes(found, bytes),
      new RegExp(`differ from byte ${place} on: ${found.length} bytes, not 6`),
    );
  refused(Buffer.from("abXdef"), 2);
  refused(Buffer.from("abc"), 3);
  refused(Buffer.from("abcdefg"), 6);
});
