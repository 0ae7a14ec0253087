import assert from "node:assert/strict";

/**
 * That both hold the same bytes; else it says how long they are and where they first differ. What `assert.deepEqual` tells
 * of large buffers takes it minutes.
 */
export function assertSameBytes(found: Uint8Array, expected: Uint8Array, what = "the bytes"): void {
  if (Buffer.compare(found, expected) === 0) return;
  const at = found.findIndex((byte, index) => byte !== expected[index]);
  const place = at < 0 ? Math.min(found.length, expected.length) : at;
  assert.fail(`${what} differ from byte ${place} on: ${found.length} bytes, not ${expected.length}`);
}
