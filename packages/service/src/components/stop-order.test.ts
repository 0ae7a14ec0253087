import assert from "node:assert/strict";
import { test } from "node:test";
import { LockstepError } from "@lockstep/protocol/wire";
import { StopOrder } from "./stop-order.ts";

const reason = () => new LockstepError("INTERRUPTED", "the service ends");

test("whoever asked before and whoever asks after an order hears of it, with the first reason alone", () => {
  const order = new StopOrder();
  const early = order.signal;
  const heard: unknown[] = [];
  order.whenGiven((why) => heard.push(why));
  assert.deepEqual([order.reason, early.aborted], [null, false]);
  const first = reason();
  order.give(first);
  order.give(reason());
  order.whenGiven((why) => heard.push(why));
  assert.equal(order.reason, first);
  assert.deepEqual([early.aborted, early.reason], [true, first]);
  assert.equal(order.signal, early);
  assert.deepEqual(heard, [first, first]);
});

test("a signal that is asked for after the order has aborted", () => {
  const order = new StopOrder();
  const why = reason();
  order.give(why);
  assert.deepEqual([order.signal.aborted, order.signal.reason], [true, why]);
});
