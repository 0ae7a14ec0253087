import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { BlockIndex, viewOf } from "./block-index.ts";

/** What an index finds for every position of a content. */
function found(index: BlockIndex, content: Uint8Array): number[] {
  const view = viewOf(content);
  return Array.from({ length: content.length - index.blockBytes }, (_, at) => {
    const bucket = index.bucket(index.hash(view, at));
    return Array.from({ length: index.ways }, (_, way) => index.at(bucket + way));
  }).flat();
}

test("an index in the memory of a former one knows nothing of what that one knew", () => {
  const former = randomBytes(20_000);
  for (const base of [randomBytes(20_000), randomBytes(19_990), randomBytes(400), randomBytes(3)]) {
    const index = new BlockIndex(base, new BlockIndex(former));
    const content = Buffer.concat([former, base]);
    // Not deepEqual: it would compare for minutes what differs in ten thousand places.
    assert.ok(found(index, content).join() === found(new BlockIndex(base), content).join());
  }
});
