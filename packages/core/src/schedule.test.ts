import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import {
  countFailure,
  firstPollMs,
  INITIAL_POLL,
  isQuarantined,
  nextPoll,
  type PollOutcome,
} from "./index.ts";

const failed = (retryAfterSeconds: number | null = null): PollOutcome => ({
  kind: "failed",
  retryAfterSeconds,
});

test("polls are spread by a tenth around the interval that the hub asked for", () => {
  const wait = (random: number) =>
    nextPoll(INITIAL_POLL, { kind: "answered", pollSeconds: 60 }, random).waitMs;
  assert.deepEqual([wait(0), wait(0.5), wait(1)], [54_000, 60_000, 66_000]);
});

test("an answer without an interval keeps the one before", () => {
  const first = nextPoll(INITIAL_POLL, { kind: "answered", pollSeconds: 20 }, 0.5);
  assert.equal(nextPoll(first.state, { kind: "answered", pollSeconds: null }, 0.5).waitMs, 20_000);
});

test("pauses double after errors, up to a quarter of an hour, and end with the first answer", () => {
  let state = INITIAL_POLL;
  const waits: number[] = [];
  for (let i = 0; i < 12; i++) {
    const next = nextPoll(state, failed(), 1);
    waits.push(next.waitMs / 1000);
    state = next.state;
  }
  assert.deepEqual(waits, [5, 10, 20, 40, 80, 160, 320, 640, 900, 900, 900, 900]);
  const answered = nextPoll(state, { kind: "answered", pollSeconds: null }, 0.5);
  assert.equal(nextPoll(answered.state, failed(), 1).waitMs, 5000);
});

test("Retry-After is never undercut, and no wait is shorter than a moment or longer than some 26 hours", () => {
  const outcome = fc.oneof(
    fc.record({ kind: fc.constant("answered" as const), pollSeconds: fc.option(fc.nat()) }),
    fc.record({ kind: fc.constant("failed" as const), retryAfterSeconds: fc.option(fc.nat()) }),
  );
  fc.assert(
    fc.property(fc.array(fc.tuple(outcome, fc.double({ min: 0, max: 0.999, noNaN: true }))), (steps) => {
      let state = INITIAL_POLL;
      for (const [step, random] of steps) {
        const next = nextPoll(state, step, random);
        assert.ok(next.waitMs >= 900 && next.waitMs <= 96_000_000, `${next.waitMs}`);
        if (step.kind === "failed" && step.retryAfterSeconds !== null)
          assert.ok(next.waitMs >= Math.min(step.retryAfterSeconds, 86_400) * 1000);
        state = next.state;
      }
    }),
  );
});

test("the first question comes within seconds", () => {
  assert.equal(firstPollMs(INITIAL_POLL, 0), 0);
  assert.ok(firstPollMs(INITIAL_POLL, 0.999) <= 5000);
});

test("a revision that failed three times is left alone until there is another one", () => {
  let attempts = countFailure(null, 7);
  assert.equal(isQuarantined(attempts, 7), false);
  attempts = countFailure(countFailure(attempts, 7), 7);
  assert.equal(isQuarantined(attempts, 7), true);
  assert.equal(isQuarantined(attempts, 8), false);
  assert.equal(isQuarantined(countFailure(attempts, 8), 8), false);
});
