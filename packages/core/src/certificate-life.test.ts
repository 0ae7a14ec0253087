import assert from "node:assert/strict";
import { test } from "node:test";
import { judgeCertificate } from "./certificate-life.ts";

const HOUR = 3_600_000;
const DAY = 24 * HOUR;

test("a certificate is told of a fifth of its life before its end, and seven days at most", () => {
  const judge = (lifeMs: number, leftMs: number) =>
    judgeCertificate({ notBefore: 1_000, expiresAt: 1_000 + lifeMs }, 1_000 + lifeMs - leftMs);
  for (const [life, left, said] of [
    [365 * DAY, 7 * DAY, "good"],
    [365 * DAY, 7 * DAY - 1, "soon"],
    [90 * DAY, 1, "soon"],
    // Of one that lives for six days, and of one for two.
    [6 * DAY, 29 * HOUR, "good"],
    [6 * DAY, 28 * HOUR, "soon"],
    [2 * DAY, 2 * DAY, "good"],
    [2 * DAY, 9 * HOUR, "soon"],
    [365 * DAY, 0, "expired"],
    [365 * DAY, -400 * DAY, "expired"],
    [365 * DAY, 365 * DAY + 1, "not-yet"],
  ] as const)
    assert.equal(judge(life, left), said, `${life / DAY} days, ${left / HOUR} hours left`);
});
