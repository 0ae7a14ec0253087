import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { collectSecrets, HIDDEN, maskParameters, maskText } from "./job-template-hidden.ts";

test("a hidden value is found wherever it stands, in any wording of JSON", () => {
  const parameters = { login: { user: "svc", password: 'pa"ss\\word' }, pin: 48_213, shown: "open" };
  const secrets = collectSecrets([{ parameters, hidden: ["login", "pin", "no such"] }]);
  assert.equal(maskText('said {"p":"pa\\"ss\\\\word"} and pa"ss\\word', secrets).includes("word"), false);
  assert.equal(maskText("pin 48213.", secrets), `pin ${HIDDEN}.`);
  assert.equal(maskText("open", secrets), "open");
  assert.deepEqual(maskParameters({ ...parameters, copy: [{ 'pa"ss\\word': 48_213 }] }, ["login"], secrets), {
    login: HIDDEN,
    pin: HIDDEN,
    shown: "open",
    copy: [{ [HIDDEN]: HIDDEN }],
  });
});

test("of two secrets of which one holds the other, both vanish", () => {
  const secrets = collectSecrets([{ parameters: { a: "token", b: "token-long" }, hidden: ["a", "b"] }]);
  assert.equal(maskText("token-long token", secrets), `${HIDDEN} ${HIDDEN}`);
});

test("no secret of four characters or more survives in a masked text", () => {
  const secret = fc.string({ minLength: 4, maxLength: 20 }).filter((text) => !HIDDEN.includes(text));
  fc.assert(
    fc.property(secret, fc.array(fc.string()), (text, around) => {
      const secrets = collectSecrets([{ parameters: { text }, hidden: ["text"] }]);
      const masked = maskText(around.join(text), secrets);
      const apart = masked.split(HIDDEN);
      assert.ok(apart.every((piece) => !piece.includes(text)));
    }),
  );
});
