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
const TOUCHED = [5, { kind: "touch", token: 3, resource: "ip" }] as const;
const LAUNCHED = [10, { kind: "launch", token: 3, service: "s" }] as const;

test("kills at the deadline unless told of a renewal", () => {
  const renewed = drive(
    ARMED,
    LAUNCHED,
    [90, { kind: "extend", token: 3, deadline: 200 }],
    [100, { kind: "tick" }],
  );
  assert.deepEqual(renewed.effects, [
    { kind: "armed", token: 3 },
    { kind: "spawn", token: 3, service: "s" },
  ]);
  assert.equal(nextGuardWake(renewed.state), 200);
  const { effects } = drive(ARMED, LAUNCHED, [100, { kind: "tick" }], [130, { kind: "gone", isClean: true }]);
  assert.deepEqual(effects.slice(2), [
    { kind: "kill", token: 3, why: "deadline", touched: [] },
    { kind: "stopped", token: 3, why: "deadline", isClean: true },
  ]);
});

test("a renewal read late counts when its deadline lies ahead, and not when it has passed too", () => {
  const ahead = drive(ARMED, LAUNCHED, [120, { kind: "extend", token: 3, deadline: 200 }]);
  assert.equal(ahead.state.kind, "armed");
  const passed = drive(ARMED, LAUNCHED, [120, { kind: "extend", token: 3, deadline: 110 }]);
  assert.equal(passed.state.kind, "killing");
});

test("a daemon that is gone: kills, then gives the lease back, then ends", () => {
  const { effects } = drive(
    ARMED,
    TOUCHED,
    LAUNCHED,
    [20, { kind: "closed" }],
    [30, { kind: "gone", isClean: true }],
  );
  assert.deepEqual(effects.slice(3), [
    { kind: "kill", token: 3, why: "daemon-gone", touched: ["ip"] },
    { kind: "stopped", token: 3, why: "daemon-gone", isClean: true },
    { kind: "give-back", token: 3 },
    { kind: "exit" },
  ]);
});

test("what could not be undone invites nobody: the lease is waited out", () => {
  const { effects } = drive(ARMED, TOUCHED, [20, { kind: "closed" }], [30, { kind: "gone", isClean: false }]);
  assert.deepEqual(effects.slice(2), [
    { kind: "kill", token: 3, why: "daemon-gone", touched: ["ip"] },
    { kind: "stopped", token: 3, why: "daemon-gone", isClean: false },
    { kind: "exit" },
  ]);
});

test("a service that was told to start when the order to leave came is killed, not forgotten", () => {
  const { effects } = drive(
    ARMED,
    LAUNCHED,
    [11, { kind: "disarm", token: 3 }],
    [20, { kind: "gone", isClean: true }],
  );
  assert.deepEqual(kindsOf(effects), ["armed", "spawn", "kill", "stopped"]);
  const ended = drive(
    ARMED,
    LAUNCHED,
    [11, { kind: "exited", service: "s" }],
    [12, { kind: "disarm", token: 3 }],
  );
  assert.deepEqual(kindsOf(ended.effects), ["armed", "spawn", "exited", "stopped"]);
});

test("what was touched and not taken offline in order is undone, also when everybody believes that all is over", () => {
  const left = drive(ARMED, TOUCHED, [11, { kind: "disarm", token: 3 }]);
  assert.deepEqual(left.effects.slice(2), [{ kind: "kill", token: 3, why: "told", touched: ["ip"] }]);
  const inOrder = drive(
    ARMED,
    TOUCHED,
    [10, { kind: "release", token: 3, resource: "ip" }],
    [11, { kind: "disarm", token: 3 }],
  );
  assert.deepEqual(kindsOf(inOrder.effects), ["armed", "touched", "stopped"]);
});

test("nobody is told that he may touch anything at or after the deadline, or under another token", () => {
  const late = drive(ARMED, [100, { kind: "touch", token: 3, resource: "ip" }]);
  assert.deepEqual(kindsOf(late.effects), ["armed", "kill"]);
  const other = drive(ARMED, [10, { kind: "touch", token: 2, resource: "ip" }]);
  assert.deepEqual(kindsOf(other.effects), ["armed"]);
});

test("who asks for the end of what never began is answered", () => {
  assert.deepEqual(drive([0, { kind: "kill", token: 5 }]).effects, [
    { kind: "stopped", token: 5, why: "told", isClean: true },
  ]);
});

const kindsOf = (effects: readonly GuardEffect[]) => effects.map(({ kind }) => kind);

const token = fc.integer({ min: 1, max: 4 });
const event: fc.Arbitrary<GuardEvent> = fc.oneof(
  fc.constant<GuardEvent>({ kind: "tick" }),
  fc.record({ kind: fc.constantFrom("arm", "extend"), token, deadline: fc.integer({ min: 0, max: 120 }) }),
  fc.record({ kind: fc.constantFrom("kill", "disarm"), token }),
  fc.record({ kind: fc.constant("launch"), token, service: fc.constantFrom("s", "t") }),
  fc.record({ kind: fc.constantFrom("touch", "release"), token, resource: fc.constantFrom("ip", "mount") }),
  fc.record({ kind: fc.constant("exited"), service: fc.constantFrom("s", "t") }),
  fc.constantFrom<GuardEvent>({ kind: "gone", isClean: true }, { kind: "closed" }),
);

test("whatever it is told: launches only in time, a killed token never again, and never leaves anything behind", () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.integer({ min: 0, max: 10 }), event), { maxLength: 40 }), (told) => {
      let state = startGuard();
      let now = 0;
      const killed = new Set<number>();
      // What truly is: services that run, resources that the daemon may have changed.
      const running = new Set<string>();
      const touched = new Set<string>();
      let undoing: readonly string[] = [];
      for (const [ms, each] of told) {
        now += ms;
        if (each.kind === "exited") running.delete(each.service);
        if (each.kind === "release" && state.kind === "armed" && state.tokenMax === each.token)
          touched.delete(each.resource);
        if (each.kind === "gone" && state.kind === "killing") {
          running.clear();
          for (const resource of undoing) touched.delete(resource);
        }
        const result = stepGuard(state, each, now);
        state = result.state;
        for (const effect of result.effects) {
          if (effect.kind === "kill") {
            killed.add(effect.token);
            undoing = effect.touched;
          }
          if (effect.kind === "touched") {
            assert.ok(!killed.has(effect.token));
            touched.add(effect.resource);
          }
          if (effect.kind === "spawn") {
            assert.ok(!killed.has(effect.token));
            assert.ok(!running.has(effect.service));
            running.add(effect.service);
          }
          if (effect.kind === "stopped" && each.kind !== "kill")
            assert.deepEqual([...running, ...touched], [], "told gone while something is left");
          if (effect.kind === "give-back") assert.deepEqual([...running, ...touched], []);
        }
        if (state.kind === "armed") assert.ok(now < state.deadline);
        if (state.kind === "idle") assert.deepEqual([...running, ...touched], []);
      }
    }),
    { numRuns: 2000 },
  );
});
