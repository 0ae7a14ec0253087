import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { Measurements } from "./measurements.ts";

function directory(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), "lockstep-measurements-"));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

test("one moment in which the guards stood still does not count, a second one does, and both fade", (t) => {
  const measured = new Measurements(directory(t));
  const beats = (count: number, delayMs: number) => {
    for (let beat = 0; beat < count; beat++) {
      measured.add("guardDelayMs", delayMs);
      measured.beat();
    }
  };
  beats(10, 12);
  // Three guards of one machine in one beat are one moment.
  for (const late of [900, 950, 1000]) measured.add("guardDelayMs", late);
  beats(30, 12);
  assert.ok(measured.values.guardDelayMs < 13, String(measured.values.guardDelayMs));
  beats(1, 800);
  assert.ok(measured.values.guardDelayMs > 600, String(measured.values.guardDelayMs));
  beats(600, 12);
  assert.ok(measured.values.guardDelayMs < 13, String(measured.values.guardDelayMs));
});

test("the worst stop of the last twenty is kept, also by the next life", (t) => {
  const path = directory(t);
  const first = new Measurements(path);
  assert.equal(first.values.stopMs, 0);
  first.add("stopMs", 700);
  for (let beat = 0; beat < 1_000; beat++) first.beat();
  assert.equal(first.values.stopMs, 700);
  const next = new Measurements(path);
  assert.equal(next.values.stopMs, 700);
  for (let stop = 0; stop < 20; stop++) next.add("stopMs", 40);
  assert.equal(next.values.stopMs, 40);
  writeFileSync(join(path, "stop-times.json"), '{"no":"list"}');
  assert.equal(new Measurements(path).values.stopMs, 0);
});
