import assert from "node:assert/strict";
import { test } from "node:test";
import { patientJson } from "./answers.ts";

/** A clock whose sleeps end when the test says so, or when they are no longer needed. */
function clockByHand() {
  const wakes: (() => void)[] = [];
  return {
    wake: () => wakes.shift()?.(),
    sleep: (_ms: number, signal?: AbortSignal) =>
      new Promise<void>((resolve) => {
        wakes.push(resolve);
        signal?.addEventListener("abort", () => resolve());
        if (signal?.aborted === true) resolve();
      }),
  };
}

test("an answer that takes its time shows signs of life, and is JSON all the same", async () => {
  const clock = clockByHand();
  const { promise, resolve } = Promise.withResolvers<unknown>();
  const text = patientJson(promise, clock);
  const pieces: string[] = [];
  for (let blank = 0; blank < 3; blank++) {
    const next = text.next();
    clock.wake();
    pieces.push((await next).value ?? "");
  }
  assert.deepEqual(pieces, [" ", " ", " "]);
  const last = text.next();
  resolve({ steps: ["done"] });
  pieces.push((await last).value ?? "");
  assert.equal((await text.next()).done, true);
  assert.deepEqual(JSON.parse(pieces.join("")), { steps: ["done"] });
});

test("one that is there at once has no blank before it", async () => {
  const pieces: string[] = [];
  for await (const piece of patientJson(Promise.resolve([1]), clockByHand())) pieces.push(piece);
  assert.deepEqual(pieces, ["[1]"]);
});
