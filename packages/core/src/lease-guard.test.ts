import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { type GuardEffect, type GuardEvent, nextGuardWake, startGuard, stepGuard } from "./lease-guard.ts";

function drive(...told: readonly (readonly [number, GuardEvent])[]) {
  let state = startGuard();
  const effects: GuardEffect[] = [];
  for (const [now, event] of told) {
    const result = stepGuard(state, event, now);
    state = result.state;
    effects.push(...result.effects);
  }
  return { state, effects };
}

const ARMED = [0, { kind: "arm", token: 3, deadline: 100 }] as const;
const LAUNCHED = [10, { kind: "launch", token: 3 }] as const;

test("kills at the deadline unless told of a renewal", () => {
  const renewed = drive(
    ARMED,
    LAUNCHED,
    [90, { kind: "extend", token: 3, deadline: 200 }],
    [100, { kind: "tick" }],
  );
  assert.deepEqual(renewed.effects, [
    { kind: "armed", token: 3 },
    { kind: "spawn", token: 3 },
  ]);
  assert.equal(nextGuardWake(renewed.state), 200);
  const { effects } = drive(ARMED, LAUNCHED, [100, { kind: "tick" }], [130, { kind: "gone" }]);
  assert.deepEqual(effects.slice(2), [
    { kind: "kill", token: 3, why: "deadline" },
    { kind: "stopped", token: 3, why: "deadline" },
  ]);
});

test("a renewal read late counts when its deadline lies ahead, and not when it has passed too", () => {
  const ahead = drive(ARMED, LAUNCHED, [120, { kind: "extend", token: 3, deadline: 200 }]);
  assert.equal(ahead.state.kind, "armed");
  const passed = drive(ARMED, LAUNCHED, [120, { kind: "extend", token: 3, deadline: 110 }]);
  assert.equal(passed.state.kind, "killing");
});

test("a daemon that is gone: kills, then gives the lease back, then ends", () => {
  const { effects } = drive(ARMED, LAUNCHED, [20, { kind: "closed" }], [30, { kind: "gone" }]);
  assert.deepEqual(effects.slice(2), [
    { kind: "kill", token: 3, why: "daemon-gone" },
    { kind: "stopped", token: 3, why: "daemon-gone" },
    { kind: "give-back", token: 3 },
    { kind: "exit" },
  ]);
});

test("a service that was told to start when the order to leave came is killed, not forgotten", () => {
  const { effects } = drive(ARMED, LAUNCHED, [11, { kind: "disarm", token: 3 }], [20, { kind: "gone" }]);
  assert.deepEqual(kindsOf(effects), ["armed", "spawn", "kill", "stopped"]);
  const ended = drive(ARMED, LAUNCHED, [11, { kind: "gone" }], [12, { kind: "disarm", token: 3 }]);
  assert.deepEqual(kindsOf(ended.effects), ["armed", "spawn", "stopped", "stopped"]);
});

test("who asks for the end of what never began is answered", () => {
  assert.deepEqual(drive([0, { kind: "kill", token: 5 }]).effects, [
    { kind: "stopped", token: 5, why: "told" },
  ]);
});

const kindsOf = (effects: readonly GuardEffect[]) => effects.map(({ kind }) => kind);

const token = fc.integer({ min: 1, max: 4 });
const event: fc.Arbitrary<GuardEvent> = fc.oneof(
  fc.constant<GuardEvent>({ kind: "tick" }),
  fc.record({ kind: fc.constantFrom("arm", "extend"), token, deadline: fc.integer({ min: 0, max: 120 }) }),
  fc.record({ kind: fc.constantFrom("launch", "kill", "disarm"), token }),
  fc.constantFrom<GuardEvent>({ kind: "gone" }, { kind: "closed" }),
);

test("whatever it is told: launches only in time, a killed token never again, and never leaves one running", () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.integer({ min: 0, max: 10 }), event), { maxLength: 40 }), (told) => {
      let state = startGuard();
      let now = 0;
      const killed = new Set<number>();
      let running: number | null = null;
      for (const [ms, each] of told) {
        now += ms;
        if (each.kind === "gone") running = null;
        const result = stepGuard(state, each, now);
        state = result.state;
        for (const effect of result.effects) {
          if (effect.kind === "kill") killed.add(effect.token);
          if (effect.kind === "spawn") {
            assert.ok(!killed.has(effect.token));
            assert.equal(running, null);
            running = effect.token;
          }
          if (effect.kind === "stopped" || effect.kind === "give-back")
            assert.ok(running === null || running !== effect.token, "told gone while it runs");
        }
        if (state.kind === "armed") assert.ok(now < state.deadline);
        if (state.kind === "idle") assert.equal(running, null);
      }
    }),
  );
});
