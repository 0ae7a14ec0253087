import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { Coordination } from "./coordination/coordination.ts";
import { LeaseDriver } from "./lease-driver.ts";

const nothing = () => {};

test("a guard that cannot be started does not take the whole daemon", async (t) => {
  const { execPath } = process;
  t.after(() => {
    process.execPath = execPath;
  });
  process.execPath = "/nonexistent/node";
  let guards = 0;
  const driver = new LeaseDriver({
    lease: {
      ...{ node: "alpha", instance: "alpha-1", members: [], automatic: true, failsafe: false },
      ...{ trustMs: 1800, waitMs: 3000, renewMs: 400, callMs: 600, pollMs: 1500, lockDelayMs: 0 },
    },
    guard: { virtualServer: "APP", instance: "alpha-1", coordination: null, watchdog: null, priority: null },
    coordination: { watch: async () => {} } as unknown as Coordination,
    hooks: {
      ...{ start: nothing, leave: nothing, heard: nothing, changed: nothing, note: nothing },
      ...{ measured: nothing, stop: async () => {} },
      guarded: () => {
        guards += 1;
        // Without a turn for timers no test would end.
        if (guards > 100) process.execPath = execPath;
      },
    },
  });
  await sleep(200);
  assert.equal(guards, 1);
  process.execPath = execPath;
  while (guards < 2) await sleep(10);
  await driver.close();
});
