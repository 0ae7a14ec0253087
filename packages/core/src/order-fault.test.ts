import assert from "node:assert/strict";
import { test } from "node:test";
import { faultOfExclusion, joinRefusals, splitFault, withFault } from "./order-fault.ts";

test("a code goes to the end of the words, once, and comes off again", () => {
  const text = withFault("given up: gamma takes nothing", faultOfExclusion("paused"));
  assert.equal(text, "given up: gamma takes nothing (NODE_PAUSED)");
  assert.equal(withFault(text, "NODE_NOT_READY"), text, "the first one knew best");
  assert.deepEqual(splitFault(text), { text: "given up: gamma takes nothing", fault: "NODE_PAUSED" });
  for (const none of ["", "ended (status 1)", "(NODE_PAUSED) at the beginning", "no (SUCH_CODE)"])
    assert.deepEqual(splitFault(none), { text: none, fault: null });
});

test("several refusals are one text with one code", () => {
  const [paused, silent] = [withFault("a takes nothing", "NODE_PAUSED"), withFault("b", "NODE_ANSWER_LATE")];
  assert.equal(joinRefusals([silent]), silent);
  assert.equal(joinRefusals([paused, silent]), "a takes nothing; b (NO_CANDIDATE)");
});
