import assert from "node:assert/strict";
import { test } from "node:test";
import { isLockstepError } from "@lockstep/protocol";
import fc from "fast-check";
import { packChanges, readChanges } from "./changes.ts";

test("changes come back as they were, also documents that are not there", async () => {
  const document = fc.option(
    fc.string({ unit: "grapheme" }).map((text) => Buffer.from(text)),
    { nil: null },
  );
  const entry = fc.record(
    { index: fc.nat(), revision: fc.nat(), digest: fc.string() },
    { noNullPrototype: true },
  );
  await fc.assert(
    fc.asyncProperty(
      fc.uniqueArray(fc.tuple(fc.string(), document), { selector: ([name]) => name }),
      fc.array(entry),
      async (documents, entries) => {
        const changes = { documents: new Map(documents), entries };
        assert.deepEqual(readChanges(await packChanges(changes)), changes);
      },
    ),
  );
});

test("whatever is damaged is refused by one code", async () => {
  const good = await packChanges({
    documents: new Map([["timestamp.json", Buffer.from('{"signed":1}')]]),
    entries: [],
  });
  const judge = (bytes: Uint8Array) => {
    try {
      readChanges(bytes);
    } catch (error) {
      assert.ok(isLockstepError(error, "HUB_ANSWER_INVALID"), String(error));
    }
  };
  fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), judge));
  fc.assert(
    fc.property(fc.nat(good.length - 1), fc.integer({ min: 1, max: 255 }), (at, change) => {
      const bytes = Buffer.from(good);
      bytes[at] = (bytes[at] ?? 0) ^ change;
      judge(bytes);
    }),
  );
  assert.throws(() => readChanges(good.subarray(0, good.length - 1)), { code: "HUB_ANSWER_INVALID" });
});
