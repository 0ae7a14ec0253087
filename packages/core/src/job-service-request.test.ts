import assert from "node:assert/strict";
import { test } from "node:test";
import { startServiceQueue, stepServiceQueue } from "./job-service.ts";
import type {
  ServiceAnswer,
  ServiceEvent,
  ServiceQueueOptions,
  ServiceRequest,
  ServiceStep,
} from "./job-service-types.ts";

const options = {
  slots: { internal: 3, external: 0 },
  requestQueueLimit: 100,
  resultQueueLimit: 100,
  requestIntervalMs: 90_000,
  journalDelayMs: 200,
};

const stepOf = (claim: number, onCrash: ServiceStep["onCrash"] = "rerun"): ServiceStep => ({
  id: claim,
  claim,
  component: "Command",
  execution: "internal",
  priority: 5,
  onCrash,
});

const answerOf = (more: Partial<ServiceAnswer>): ServiceAnswer => ({
  leaseMs: 30_000,
  updating: false,
  results: [],
  confirmed: [],
  lost: [],
  steps: [],
  ...more,
});

/** A queue that has been answered; what it sends is kept. */
function serve(limits: ServiceQueueOptions = options) {
  let state = startServiceQueue([]);
  const sent: ServiceRequest[] = [];
  const take = (event: ServiceEvent, now: number) => {
    const next = stepServiceQueue(state, event, now, limits);
    state = next.state;
    for (const effect of next.effects) if (effect.kind === "send") sent.push(effect.request);
    return sent.at(-1);
  };
  const answer = (more: Partial<ServiceAnswer>, now: number, sequence = sent.at(-1)?.sequence ?? 0) =>
    take({ kind: "answer", sequence, answer: answerOf(more) }, now);
  const end = (claim: number, now: number) =>
    take({ kind: "ended", claim, result: { step: claim, claim, outcome: "success" }, bytes: 50 }, now);
  take({ kind: "tick" }, 0);
  answer({}, 1);
  return { answer, end };
}

test("a start is told by the request that waits, not by one with results that leaves a moment later", () => {
  const { answer, end } = serve();
  const first = answer({ steps: [stepOf(1), stepOf(2), stepOf(3), stepOf(4)] }, 1000);
  assert.deepEqual([first?.waitMs === 0, first?.started], [false, [1, 2, 3]]);
  // 4 begins in the place of 1.
  const telling = end(1, 1010);
  assert.deepEqual([telling?.waitMs, telling?.started, telling?.results.length], [0, [], 1]);
  answer({ results: [{ claim: 1, verdict: "recorded" }] }, 1020);
  const next = answer({ confirmed: [1, 2, 3] }, 1021, first?.sequence);
  assert.deepEqual([next?.waitMs === 0, next?.results.length, next?.started], [false, 0, [4]]);
});

test("a request with results tells the starts of steps that have been going on for a while", () => {
  const { answer, end } = serve();
  answer({ steps: [stepOf(1), stepOf(2), stepOf(3), stepOf(4), stepOf(5)] }, 1000);
  assert.deepEqual(end(1, 1010)?.started, []);
  // The next one waits for the answer to the former, and by then 4 has been going on for long.
  end(2, 1100);
  const next = answer({ results: [{ claim: 1, verdict: "recorded" }] }, 1110);
  assert.deepEqual(next?.started, [4]);
});

test("a step that may not run twice is told at once, because it waits for the word", () => {
  const { answer, end } = serve();
  answer({ steps: [stepOf(1), stepOf(2), stepOf(3), stepOf(4, "freeze")] }, 1000);
  assert.deepEqual(end(1, 1010)?.started, [4]);
});

test("results pile up while a request with results is open, and a second one leaves only with many", () => {
  const count = 252;
  const { answer, end } = serve({
    ...options,
    slots: { internal: count, external: 0 },
    resultQueueLimit: 1000,
  });
  answer({ steps: Array.from({ length: count }, (_, at) => stepOf(at + 1)) }, 1000);
  const first = end(1, 1001);
  assert.equal(first?.results.length, 1);
  for (let claim = 2; claim < 251; claim++) assert.equal(end(claim, 1002), first);
  assert.equal(end(251, 1003)?.results.length, 250);
  const second = end(252, 1004);
  assert.equal(second?.results.length, 250);
  // What is left waits until nothing that tells is open.
  assert.equal(answer({ results: [{ claim: 1, verdict: "recorded" }] }, 1005, first?.sequence), second);
  assert.deepEqual(answer({}, 1006, second?.sequence)?.results.length, 251);
});
