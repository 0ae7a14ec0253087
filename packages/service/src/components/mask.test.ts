import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { HIDDEN, Mask } from "./mask.ts";

function maskOf(...values: unknown[]): Mask {
  const mask = new Mask();
  mask.hide(...values);
  return mask;
}

/** What a program could do to a value on its way into a text. */
const FORMS: readonly ((text: string) => string)[] = [
  (text) => text,
  (text) => JSON.stringify({ text }),
  (text) => `https://h/?q=${encodeURIComponent(text)}`,
  (text) => new URLSearchParams({ text }).toString(),
  (text) => encodeURIComponent(text).replaceAll(/%[0-9A-F]{2}/g, (triple) => triple.toLowerCase()),
  (text) => Buffer.from(text).toString("hex"),
  (text) => Buffer.from(text).toString("base64"),
  (text) => Buffer.from(text).toString("base64url"),
];
const secret = fc
  .string({ minLength: 8, maxLength: 60, unit: "grapheme" })
  .filter((text) => text.trim().length >= 8);

test("no form of a hidden value stays in a text", () => {
  fc.assert(
    fc.property(secret, fc.string(), fc.string(), (value, before, after) => {
      const mask = maskOf(value);
      for (const form of FORMS) {
        const masked = mask.text(`${before} ${form(value)} ${after}`);
        assert.ok(masked.includes(HIDDEN), `${form} of ${JSON.stringify(value)}: ${masked}`);
        assert.ok(!masked.includes(form(value)));
      }
    }),
    { numRuns: 200 },
  );
});

test("base64 hides a value also in the middle of a longer one", () => {
  fc.assert(
    fc.property(
      secret,
      fc.string({ unit: "binary-ascii" }),
      fc.string({ unit: "binary-ascii" }),
      (value, before, after) => {
        const text = Buffer.from(`${before}${value}${after}`).toString("base64");
        const masked = maskOf(value).text(text);
        // What is left beside the mask decodes to nothing of the value but a byte at either end.
        const [left = "", right = ""] = masked.split(HIDDEN);
        assert.ok(masked.includes(HIDDEN));
        assert.ok(left.length <= Math.ceil((Buffer.byteLength(before) * 4) / 3) + 2);
        assert.ok(right.length <= Math.ceil((Buffer.byteLength(after) * 4) / 3) + 6);
      },
    ),
    { numRuns: 200 },
  );
});

test("each line of a long secret is hidden, and texts without one are left alone", () => {
  const pem = "-----BEGIN KEY-----\nMIIEabcdefgh\nIJKLmnopqrst\n-----END KEY-----";
  const mask = maskOf(pem);
  assert.equal(mask.text("a\nIJKLmnopqrst\nb"), `a\n${HIDDEN}\nb`);
  fc.assert(fc.property(fc.string(), (text) => assert.equal(maskOf().text(text), text)));
  assert.equal(mask.text("nothing of it"), "nothing of it");
});

test("short values are hidden as words, so that texts stay readable", () => {
  const mask = maskOf("12", true, null, "", " ", 7);
  assert.equal(mask.text("12 of 123 in 7 s, a12b"), `${HIDDEN} of 123 in ${HIDDEN} s, a12b`);
});

test("values inside lists and objects are hidden, in texts, names and numbers of a result", () => {
  const mask = maskOf({ a: ["password-1"], n: 123456 });
  assert.deepEqual(mask.value({ "password-1": ["x password-1"], n: 123456, m: 5, ok: true, nothing: null }), {
    [HIDDEN]: [`x ${HIDDEN}`],
    n: HIDDEN,
    m: 5,
    ok: true,
    nothing: null,
  });
});

test("a text that is cut shows no part of a value that the cut goes through", () => {
  fc.assert(
    fc.property(
      fc.stringMatching(/^[A-Z]{8,20}$/),
      fc.nat(60),
      fc.nat(60),
      fc.nat(120),
      (value, before, after, at) => {
        const text = `${"-".repeat(before)}${value}${"-".repeat(after)}`;
        const mask = maskOf(value);
        for (const part of [mask.start(text, at), mask.end(text, at)])
          assert.match(part.replaceAll(HIDDEN, ""), /^-*$/);
      },
    ),
  );
});
