import assert from "node:assert/strict";
import { test } from "node:test";
import { systemClock } from "@lockstep/platform";
import { isLockstepError } from "@lockstep/protocol";
import { Gate } from "./gate.ts";

const PATIENT = { waitMs: 600_000, clock: systemClock };

test("so many are inside at once, the others wait in order, and beyond the line they are sent away", async () => {
  const gate = new Gate(2, 3, PATIENT);
  const order: number[] = [];
  let inside = 0;
  let most = 0;
  const releases: (() => void)[] = [];
  const visit = (number: number) =>
    gate.through(async () => {
      inside++;
      most = Math.max(most, inside);
      order.push(number);
      await new Promise<void>((resolve) => releases.push(resolve));
      inside--;
    });
  const visits = [1, 2, 3, 4, 5].map(visit);
  await assert.rejects(
    visit(6),
    (error) => isLockstepError(error, "HUB_BUSY") && (error.retryAfterSeconds ?? 0) > 0,
  );
  while (order.length < 5 || inside > 0) {
    releases.shift()?.();
    await new Promise((resolve) => setImmediate(resolve));
  }
  await Promise.all(visits);
  assert.deepEqual(order, [1, 2, 3, 4, 5]);
  assert.equal(most, 2);
});

test("a place is given back once, also by work that fails", async () => {
  const gate = new Gate(1, 0, PATIENT);
  await assert.rejects(
    gate.through(() => Promise.reject(new Error("fails"))),
    /fails/,
  );
  const leave = await gate.enter();
  leave();
  leave();
  const again = await gate.enter();
  await assert.rejects(gate.enter(), (error) => isLockstepError(error, "HUB_BUSY"));
  again();
});

test("whoever has stood in line for too long is sent away, and does not take a place later", async () => {
  const waits: (() => void)[] = [];
  const clock = {
    ...systemClock,
    sleep: (_ms: number, signal?: AbortSignal) =>
      new Promise<void>((resolve) => {
        waits.push(resolve);
        signal?.addEventListener("abort", () => resolve());
      }),
  };
  const gate = new Gate(1, 5, { waitMs: 1, clock });
  const leave = await gate.enter();
  const impatient = gate.enter();
  const patient = gate.enter();
  waits[0]?.();
  await assert.rejects(impatient, (error) => isLockstepError(error, "HUB_BUSY"));
  leave();
  const next = await patient;
  next();
  (await gate.enter())();
});
