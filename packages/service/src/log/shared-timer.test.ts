import assert from "node:assert/strict";
import { test } from "node:test";
import { SharedTimer } from "./shared-timer.ts";

test("each member that stays is called once when its time is over, and none that has gone", (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  let now = 0;
  const called: [string, number][] = [];
  const timer = new SharedTimer<string>(100, { monotonic: () => now }, (member) =>
    called.push([member, now]),
  );
  const pass = (ms: number) => {
    now += ms;
    t.mock.timers.tick(ms);
  };
  timer.add("first");
  pass(30);
  timer.add("gone");
  timer.add("second");
  pass(30);
  timer.delete("gone");
  pass(39);
  assert.deepEqual(called, []);
  pass(1);
  assert.deepEqual(called, [["first", 100]]);
  pass(30);
  assert.deepEqual(called, [
    ["first", 100],
    ["second", 130],
  ]);
  pass(500);
  timer.add("later");
  pass(100);
  assert.deepEqual(called.at(-1), ["later", 730]);
  assert.equal(called.length, 3);
});
