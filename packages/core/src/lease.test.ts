import assert from "node:assert/strict";
import test from "node:test";
import { leaseToken, mayServe, nextLeaseWake, startLease, stepLease } from "./lease.ts";
import type { LeaseEffect, LeaseEvent, LeaseOptions, LeaseRecord, LeaseState } from "./lease-types.ts";

const OPTIONS: LeaseOptions = {
  node: "a",
  instance: "a#1",
  members: ["b", "c"],
  trustMs: 1800,
  waitMs: 3000,
  renewMs: 400,
  callMs: 600,
  pollMs: 1500,
  lockDelayMs: 0,
  automatic: true,
  failsafe: false,
};

/** A node in a story: what happens to it when, and what it answered. */
class Story {
  state: LeaseState = startLease();
  readonly options: LeaseOptions;
  constructor(changed: Partial<LeaseOptions> = {}) {
    this.options = { ...OPTIONS, ...changed };
  }

  at(now: number, event: LeaseEvent = { kind: "tick" }): LeaseEffect[] {
    const { state, effects } = stepLease(this.state, event, now, this.options);
    this.state = state;
    return effects.filter(({ kind }) => kind !== "note");
  }

  /** The number of the call that is open. */
  get call(): number {
    assert.notEqual(this.state.open, null);
    return this.state.open?.call ?? 0;
  }

  observes(now: number, record: LeaseRecord | null, revision: number): LeaseEffect[] {
    return this.at(now, { kind: "read", call: this.call, observation: { record, revision } });
  }

  /** Begins at 0 and wants to own; the first look is open. */
  begin(delayMs = 0): this {
    this.at(0, { kind: "wish", wish: { kind: "take", delayMs, force: false } });
    this.at(0, { kind: "cleaned" });
    return this;
  }

  /** Owns since 100 under token 1, as revision 1, by a swap sent at 10. */
  own(): this {
    this.begin();
    this.observes(10, null, 0);
    this.at(90, { kind: "swapped", call: this.call, revision: 1 });
    this.at(95, { kind: "armed", token: 1 });
    this.at(100, { kind: "started", token: 1 });
    return this;
  }
}

const others = (revision: number, changed: Partial<LeaseRecord> = {}) =>
  [{ node: "b", instance: "b#1", token: 7, write: revision, next: null, ...changed }, revision] as const;

const kinds = (effects: readonly LeaseEffect[]) => effects.map(({ kind }) => kind);

test("a deadline counts from before the request was sent, and nothing is touched before the guard is armed", () => {
  const a = new Story().begin();
  const [swap] = a.observes(10, null, 0);
  assert.deepEqual(swap, {
    kind: "swap",
    call: 2,
    expected: 0,
    record: { node: "a", instance: "a#1", token: 1, write: 1, next: null },
    takes: true,
  });
  assert.deepEqual(a.at(500, { kind: "swapped", call: 2, revision: 1 }), [
    { kind: "arm", token: 1, deadline: 1810 },
  ]);
  assert.equal(mayServe(a.state, 501), false);
  assert.deepEqual(a.at(510, { kind: "armed", token: 1 }), [
    { kind: "start", token: 1 },
    // The renewal was due 400 after the swap was sent.
    {
      kind: "swap",
      call: 3,
      expected: 1,
      record: { node: "a", instance: "a#1", token: 1, write: 2, next: null },
      takes: false,
    },
  ]);
  assert.equal(leaseToken(a.state, 1809), 1);
  assert.equal(mayServe(a.state, 1810), false);
});

test("an answer that arrives after the deadline revives nothing", () => {
  const a = new Story().own();
  a.at(410);
  const late = a.at(1810, { kind: "swapped", call: a.call, revision: 2 });
  assert.deepEqual(late, [{ kind: "stop", token: 1, reason: "deadline" }]);
  assert.equal(a.state.role.kind, "fenced");
  assert.equal(nextLeaseWake(a.state, a.options), null);
});

test("an owner that was lost does nothing until its service is gone, and then looks afresh", () => {
  const a = new Story().own();
  a.at(5000);
  assert.deepEqual(a.at(9000), []);
  assert.deepEqual(kinds(a.at(9100, { kind: "stopped", token: 1 })), ["read"]);
  // The record still names this life, nobody serves under it, so nobody need be waited for.
  const own: LeaseRecord = { node: "a", instance: "a#1", token: 1, write: 2, next: null };
  const [swap] = a.observes(9110, own, 2);
  assert.equal(swap?.kind === "swap" && swap.record.token, 2);
});

test("a renewal whose answer was lost counts from when it was sent", () => {
  const a = new Story().own();
  a.at(410);
  assert.deepEqual(kinds(a.at(1010)), ["swap"]); // No answer within the call time: tried again.
  const happened: LeaseRecord = { node: "a", instance: "a#1", token: 1, write: 2, next: null };
  const effects = a.at(1050, {
    kind: "refused",
    call: a.call,
    observation: { record: happened, revision: 2 },
  });
  assert.deepEqual(effects[0], { kind: "extend", token: 1, deadline: 410 + 1800 });
  assert.equal(effects[1]?.kind === "swap" && effects[1].expected, 2);
});

test("an owner that finds another name stops at once", () => {
  for (const kind of ["refused", "seen"] as const) {
    const a = new Story().own();
    a.at(410);
    const observation = { record: others(9)[0], revision: 9 };
    const effects = a.at(420, kind === "seen" ? { kind, observation } : { kind, call: a.call, observation });
    assert.deepEqual(effects, [{ kind: "stop", token: 1, reason: "overtaken" }]);
  }
});

test("others wait from when they saw the last change, and any change begins the wait anew", () => {
  const a = new Story().begin();
  a.observes(50, ...others(4));
  assert.deepEqual(kinds(a.at(1500)), ["read"]);
  a.observes(1600, ...others(4)); // The same as before: the clock goes on.
  a.at(2900, { kind: "seen", observation: { record: others(5)[0], revision: 5 } });
  a.at(3050);
  if (a.state.open !== null) a.observes(3060, ...others(5));
  assert.deepEqual(kinds(a.at(5899)).includes("swap"), false);
  if (a.state.open !== null) a.observes(5899, ...others(5));
  const [swap] = a.at(5900);
  assert.equal(swap?.kind === "swap" && swap.expected, 5);
  assert.equal(swap?.kind === "swap" && swap.record.token, 8);
});

test("a lease that was given back is taken at once, first by the node that it names", () => {
  const free = (next: string | null) => others(6, { node: null, next });
  const named = new Story().begin(200);
  assert.deepEqual(kinds(named.observes(50, ...free("a"))), ["swap"]);
  const anybody = new Story().begin(200);
  assert.deepEqual(anybody.observes(50, ...free(null)), []);
  assert.equal(nextLeaseWake(anybody.state, anybody.options), 250);
  const another = new Story().begin(200);
  another.observes(50, ...free("b"));
  assert.deepEqual(kinds(another.at(3249)), ["read"]);
  another.observes(3250, ...free("b"));
  assert.equal(another.state.open?.kind, "take");
});

test("what was free long before it was wanted goes to the better candidate too", () => {
  for (const record of [null, { node: null, instance: "b#1", token: 3, write: 9, next: null }]) {
    const a = new Story();
    a.at(0, { kind: "cleaned" });
    a.observes(10, record, record === null ? 0 : 5);
    a.at(60_000);
    a.observes(60_010, record, record === null ? 0 : 5);
    const want = (now: number, delayMs: number) =>
      kinds(a.at(now, { kind: "wish", wish: { kind: "take", delayMs, force: false } }));
    assert.deepEqual(want(60_020, 600), []);
    assert.equal(nextLeaseWake(a.state, a.options), 60_620);
    // A rank that changes meanwhile does not begin the wait anew.
    assert.deepEqual(want(60_500, 601), []);
    assert.equal(nextLeaseWake(a.state, a.options), 60_621);
    assert.deepEqual(kinds(a.at(60_621)), ["swap"]);
  }
});

test("leaving goes on renewing until everything is offline, then gives back and names the next", () => {
  const a = new Story().own();
  assert.deepEqual(a.at(300, { kind: "wish", wish: { kind: "leave", next: "c" } }), [
    { kind: "leave", token: 1 },
  ]);
  assert.deepEqual(kinds(a.at(410)), ["swap"]);
  a.at(420, { kind: "swapped", call: a.call, revision: 2 });
  const [given] = a.at(700, { kind: "stopped", token: 1 });
  assert.deepEqual(
    given?.kind === "swap" && [given.expected, given.takes, given.record.node, given.record.next],
    [2, false, null, "c"],
  );
  assert.equal(given?.kind === "swap" && given.record.token, 1);
  assert.equal(mayServe(a.state, 700), false);
});

test("without automatic failover a lost owner is replaced on demand, and after the wait even then", () => {
  const a = new Story({ automatic: false }).begin();
  a.observes(50, ...others(4));
  assert.deepEqual(kinds(a.at(60_000)), ["read"]);
  a.observes(60_001, ...others(4));
  a.at(60_002, { kind: "wish", wish: { kind: "take", delayMs: 0, force: true } });
  assert.equal(a.state.open?.kind, "take");
});

test("where something cannot check tokens, an owner that was lost is waited for longer; one that gave back is not", () => {
  const a = new Story({ lockDelayMs: 5000, pollMs: 100_000 }).begin();
  a.observes(50, ...others(4));
  assert.equal(nextLeaseWake(a.state, a.options), 8050);
  const b = new Story({ lockDelayMs: 5000 }).begin();
  assert.deepEqual(kinds(b.observes(50, ...others(4, { node: null }))), ["swap"]);
});

test("maintenance: an owner goes on, and nobody takes what is free", () => {
  const a = new Story().own();
  a.at(200, { kind: "wish", wish: { kind: "keep" } });
  assert.deepEqual(kinds(a.at(410)), ["swap"]);
  assert.equal(mayServe(a.state, 410), true);
  const b = new Story().begin();
  b.at(10, { kind: "wish", wish: { kind: "keep" } });
  assert.deepEqual(b.observes(50, ...others(4, { node: null })), []);
});

test("an owner whose guard does not answer lets its lease end", () => {
  const a = new Story().begin();
  a.observes(10, null, 0);
  a.at(90, { kind: "swapped", call: a.call, revision: 1 });
  assert.deepEqual(a.at(1000), []);
  assert.deepEqual(a.at(1810), [{ kind: "stop", token: 1, reason: "deadline" }]);
});

test("a guard that is lost, or has ended the service, ends the ownership", () => {
  const a = new Story().own();
  assert.deepEqual(a.at(200, { kind: "guard-lost" }), [{ kind: "stop", token: 1, reason: "guard" }]);
  const b = new Story().own();
  assert.deepEqual(kinds(b.at(200, { kind: "stopped", token: 1 })), ["stop", "read"]);
});

test("failsafe: an owner without a store stays as long as all members agree, from when it asked", () => {
  const a = new Story({ failsafe: true }).own();
  a.at(410);
  assert.deepEqual(a.at(1010), [
    { kind: "ask", round: 1, token: 1 },
    {
      kind: "swap",
      call: 4,
      expected: 1,
      record: { node: "a", instance: "a#1", token: 1, write: 3, next: null },
      takes: false,
    },
  ]);
  const agreed = (member: string, round = 1) => a.at(1020, { kind: "agreed", member, token: 1, round });
  assert.deepEqual(agreed("b"), []);
  assert.deepEqual(agreed("b"), []);
  assert.deepEqual(agreed("c", 9), []);
  assert.deepEqual(agreed("c"), [{ kind: "extend", token: 1, deadline: 1010 + 1800 }]);
});

test("failsafe: who agrees takes nothing for a lease time, and whoever knows better does not agree", () => {
  const asked = (token: number) => ({ kind: "asked", member: "b", token, round: 3 }) as const;
  const a = new Story({ failsafe: true, pollMs: 100_000 }).begin();
  a.observes(50, ...others(4));
  assert.deepEqual(a.at(2000, asked(6)), [], "an older token");
  assert.deepEqual(a.at(2900, asked(7)), [{ kind: "agree", member: "b", token: 7, round: 3 }]);
  assert.deepEqual(a.at(3050), [], "it would be free, but it was promised");
  assert.equal(nextLeaseWake(a.state, a.options), 5900);
  assert.deepEqual(kinds(a.at(5900)), ["swap"]);
  assert.deepEqual(a.at(5902, asked(7)), [], "it is about to take");
});

const AFTER_B: LeaseRecord = { node: "b", instance: "b#1", token: 7, write: 3, next: null };
const SET_BACK: readonly (readonly [string, LeaseRecord | null])[] = [
  ["names ourselves", { node: "a", instance: "a#1", token: 5, write: 2, next: null }],
  ["was given back", { node: null, instance: "c#1", token: 6, write: 9, next: null }],
  ["was given back for us", { node: null, instance: "c#1", token: 6, write: 9, next: "a" }],
  ["is not there", null],
];

for (const [what, record] of SET_BACK)
  test(`a store that was set back is waited for though its record ${what}, and no token is given twice`, () => {
    const story = new Story().begin();
    story.observes(10, AFTER_B, 40);
    story.at(1510);
    assert.deepEqual(story.observes(1520, record, record === null ? 0 : 30), []);
    // Until then `b` may serve: it has not heard of it yet.
    story.at(3020);
    assert.deepEqual(story.observes(3030, record, record === null ? 0 : 30), []);
    const [take] = story.at(1520 + 3000);
    assert.ok(take?.kind === "swap" && take.takes);
    assert.equal(take.record.token, 8);
  });

test("a record of our own that a store was set back to is given back when nobody can serve any more", () => {
  const story = new Story();
  story.at(0, { kind: "cleaned" });
  story.observes(10, AFTER_B, 40);
  story.at(1510);
  const own: LeaseRecord = { node: "a", instance: "a#1", token: 5, write: 2, next: null };
  assert.deepEqual(story.observes(1520, own, 30), []);
  story.at(3020);
  assert.deepEqual(story.observes(3030, own, 30), []);
  const [back] = story.at(1520 + 3000);
  assert.ok(back?.kind === "swap" && back.record.node === null);
});

test("a revision that a store gives twice is not taken for silence", () => {
  const story = new Story().begin();
  story.observes(10, AFTER_B, 40);
  story.at(1510);
  story.observes(1520, { ...AFTER_B, instance: "b#2", token: 9 }, 40);
  assert.deepEqual(
    story.at(3010).map(({ kind }) => kind),
    ["read"],
  );
});

test("that it gave back is noted also where the next owner was seen first", () => {
  const a = new Story().own();
  a.at(110, { kind: "wish", wish: { kind: "leave", next: null } });
  a.at(120, { kind: "stopped", token: 1 });
  const call = a.call;
  // The change stream tells of the give-back's successor before the answer arrives.
  const [record, revision] = others(3, { token: 2 });
  a.at(130, { kind: "seen", observation: { record, revision } });
  assert.deepEqual(
    stepLease(a.state, { kind: "swapped", call, revision: 2 }, 140, a.options).effects.filter(
      ({ kind }) => kind === "note",
    ),
    [{ kind: "note", note: { at: 140, what: "gave-back", node: "a", token: 1, revision: 2 } }],
  );
});
