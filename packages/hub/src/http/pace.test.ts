import assert from "node:assert/strict";
import { Readable } from "node:stream";
import { test } from "node:test";
import { isTooSlow, needsPace } from "./pace.ts";

const PACE = { windowMs: 1_000, bytesMin: 100 };

test("who takes fewer bytes than it must, while more wait, is too slow", () => {
  // 1,000 bytes were handed over, 400 of them still wait: 600 were taken.
  const connection = { bytesWritten: 1_000, writableLength: 400, destroyed: false };
  assert.equal(isTooSlow(500, connection, PACE), false);
  assert.equal(isTooSlow(501, connection, PACE), true);
  assert.equal(isTooSlow(600, connection, PACE), true);
});

test("nobody is too slow for whom nothing waits: then the hub is the slow one", () => {
  assert.equal(isTooSlow(1_000, { bytesWritten: 1_000, writableLength: 0, destroyed: false }, PACE), false);
});

test("streams and long texts are looked at, what fits into the buffers is not", () => {
  assert.equal(needsPace(Readable.from([])), true);
  assert.equal(needsPace("x".repeat(300_000)), true);
  assert.equal(needsPace(Buffer.alloc(300_000)), true);
  assert.equal(needsPace("short"), false);
  assert.equal(needsPace(null), false);
});
