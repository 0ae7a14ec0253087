import assert from "node:assert/strict";
import { test } from "node:test";
import type { StepRun } from "@lockstep/protocol/wire";
import { executionOf, isBuiltIn } from "./catalog.ts";
import { waitedMs } from "./wait.ts";

const ran = (claim: number, claimedAt: number, outcome: StepRun["outcome"]): StepRun => ({
  claim,
  attempt: 1,
  queue: "q",
  machine: "m",
  claimedAt,
  startedAt: null,
  endedAt: null,
  outcome,
  message: "",
});

test("a delay counts from the first run in a row, by the hub's clock, and anew after a decision", () => {
  assert.equal(waitedMs([ran(5, 1000, null)], 5), 0);
  assert.equal(waitedMs([ran(9, 9000, null), ran(5, 1000, "deferred"), ran(7, 4000, "lost")], 9), 8000);
  const again = [
    ran(5, 1000, "deferred"),
    ran(6, 3000, "success"),
    ran(7, 9000, "deferred"),
    ran(8, 9500, null),
  ];
  assert.equal(waitedMs(again, 8), 500);
  assert.equal(waitedMs([ran(5, 1000, "deferred")], 99), 0);
});

test("what asks the hub runs inside, what a plug-in brings outside, the rest as its step says", () => {
  const place = (component: string, execution: "internal" | "external") =>
    executionOf({ component, execution }, [{ name: "Inner", tasks: {} }]);
  assert.equal(place("Wait", "external"), "internal");
  assert.equal(place("JobCheck", "external"), "internal");
  assert.deepEqual([place("File", "internal"), place("File", "external")], ["internal", "external"]);
  assert.equal(place("Stranger", "internal"), "external");
  assert.deepEqual([place("Inner", "internal"), place("Inner", "external")], ["internal", "external"]);
  assert.equal(isBuiltIn("toString"), false);
});
