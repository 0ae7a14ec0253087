import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { formatSignedMark, judgeMark, readSignedMark } from "./signed-mark.ts";

const digest = fc.stringMatching(/^[0-9a-f]{64}$/);
const count = fc.nat();

test("a mark is read as it was written, and nothing else is one", () => {
  fc.assert(
    fc.property(count, count, digest, (root, revision, whole) => {
      const text = formatSignedMark({ root, revision, digest: whole });
      assert.deepEqual(readSignedMark(text), { root, revision, digest: whole.slice(0, 16) });
      for (const other of [
        ` ${text}`,
        `${text}0`,
        `-${text}`,
        text.slice(1).replace(/^\d*/, ""),
        [text],
        undefined,
      ])
        assert.equal(readSignedMark(other), null);
    }),
  );
});

test("another root, and another content of the own number, are to be looked at; nothing else is", () => {
  const known = { root: 2, revision: 7, digest: "ab".repeat(32) };
  const mark = { root: 2, revision: 7, digest: "ab".repeat(8) };
  assert.equal(judgeMark(mark, known), "as-known");
  assert.equal(judgeMark({ ...mark, digest: "cd".repeat(8) }, known), "revision-differs");
  assert.equal(judgeMark({ ...mark, root: 3, digest: "cd".repeat(8) }, known), "revision-differs");
  assert.equal(judgeMark({ ...mark, root: 3 }, known), "root-differs");
  assert.equal(judgeMark({ ...mark, root: 1 }, known), "root-differs");
  // Another number is an update, or an order that keeps this installation where it is.
  assert.equal(judgeMark({ ...mark, revision: 8, digest: "cd".repeat(8) }, known), "as-known");
  // A hub of an older version says nothing, and an installation may not know.
  assert.equal(judgeMark(null, known), "as-known");
  assert.equal(judgeMark({ ...mark, root: 9 }, { root: null, revision: 7, digest: null }), "as-known");
});
