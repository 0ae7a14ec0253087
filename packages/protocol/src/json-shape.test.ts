import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { isLockstepError } from "./errors.ts";
import { findJsonExcess, parseBoundedJson } from "./json-shape.ts";

const bytes = (text: string) => new TextEncoder().encode(text);

test("a text that costs more than its length is named as such", () => {
  assert.match(findJsonExcess(bytes("[".repeat(33))) ?? "", /deeper than 32/);
  assert.match(findJsonExcess(bytes(`[${"[],".repeat(100_000)}[]]`)) ?? "", /arrays and objects/);
  assert.match(findJsonExcess(bytes(`[${"1,".repeat(100_000)}1]`)) ?? "", /values/);
  const members = Array.from({ length: 2_000 }, (_, index) => `"member-${index}":1`);
  assert.match(findJsonExcess(bytes(`{${members.join(",")}}`)) ?? "", /members/);
  assert.equal(findJsonExcess(bytes("[".repeat(32))), null);
});

test("what stands in a string counts for nothing", () => {
  const texts = ["[".repeat(5_000), '\\"[[['.repeat(2_000), ",".repeat(9_000), "\\".repeat(5_001), '"'];
  for (const text of texts) assert.equal(findJsonExcess(bytes(JSON.stringify([text, text]))), null);
  assert.equal(findJsonExcess(bytes('["never closed [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[')), null);
});

test("any value of modest size comes out as it went in", () => {
  fc.assert(
    fc.property(fc.jsonValue({ maxDepth: 8 }), (value) => {
      const text = JSON.stringify(value);
      assert.deepEqual(parseBoundedJson(bytes(text), "it"), JSON.parse(text));
    }),
  );
});

test("no load that a loader sends is too much, however short its names", () => {
  const files = Array.from({ length: 20_000 }, (_, index) => ({
    path: index.toString(36),
    size: 0,
    sha256: "0".repeat(64),
    mode: 420,
    version: null,
    backup: false,
    targets: ["role:A", "role:B", "package:A/B"],
  }));
  const packages = Array.from({ length: 5_000 }, (_, index) => ({ package: `${index}`, subdirectory: "" }));
  const roles = [{ path: "A", description: "", selectable: true, packages }];
  assert.equal(findJsonExcess(bytes(JSON.stringify({ declared: { roles }, files }))), null);
});

test("what is no JSON, or no UTF-8, is refused by its code", () => {
  for (const text of [bytes(""), bytes("{"), bytes('{"a":}'), new Uint8Array([0x22, 0xff, 0x22])])
    assert.throws(
      () => parseBoundedJson(text, "it"),
      (error) => isLockstepError(error, "REQUEST_INVALID"),
    );
});
