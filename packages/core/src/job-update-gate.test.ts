import assert from "node:assert/strict";
import { suite, test } from "node:test";
import fc from "fast-check";
import { decideGate, type GateInput, type GateServer } from "./job-update-gate.ts";

const server = (queue: string, revision: number | null, more: Partial<GateServer> = {}): GateServer => ({
  queue,
  revision,
  alive: true,
  disabled: false,
  noAutoUpdate: false,
  updateServer: false,
  ...more,
});

function gate(own: GateServer, more: Partial<GateInput> = {}) {
  return decideGate({ revision: 7, autoUpdate: true, server: own, machine: [], updateServers: [], ...more });
}

suite("the update gate", () => {
  test("equal or without an installation: everything; different: only what updates it", () => {
    assert.equal(gate(server("A", 7)).deliver, "all");
    assert.equal(gate(server("A", null)).deliver, "all");
    assert.deepEqual(gate(server("A", 6)), {
      deliver: "update-only",
      updating: true,
      reason: "is being updated from revision 6 to 7",
    });
    assert.equal(gate(server("A", 8)).updating, true, "a database that was put back counts as well");
  });

  test("excluded, or switched off everywhere: everything, although its revision differs", () => {
    assert.equal(gate(server("A", 6, { noAutoUpdate: true })).deliver, "all");
    assert.equal(gate(server("A", 6), { autoUpdate: false }).deliver, "all");
  });

  test("the queues of one machine wait for one another, but not for the silent, switched off or excluded", () => {
    const waits = gate(server("A", 7), { machine: [server("B", 6)] });
    assert.deepEqual([waits.deliver, waits.updating], ["update-only", false]);
    assert.match(waits.reason ?? "", /waits for the update of B/);
    for (const more of [{ alive: false }, { disabled: true }, { noAutoUpdate: true }])
      assert.equal(gate(server("A", 7), { machine: [server("B", 6, more)] }).deliver, "all");
  });

  test("where there are update servers, one of them comes first; who waits works on", () => {
    const first = server("U", 6, { updateServer: true });
    assert.equal(gate(first, { updateServers: [first] }).updating, true);
    const waiting = gate(server("A", 6), { updateServers: [first] });
    assert.deepEqual([waiting.deliver, waiting.updating], ["all", false]);
    assert.match(waiting.reason ?? "", /waits until an update server/);
    const done = server("U", 7, { updateServer: true });
    assert.equal(gate(server("A", 6), { updateServers: [done] }).updating, true);
    const dead = gate(server("A", 6), {
      updateServers: [server("U", 7, { updateServer: true, alive: false })],
    });
    assert.deepEqual([dead.deliver, dead.updating], ["all", false]);
    assert.match(dead.reason ?? "", /none of them serves/);
  });

  test("the queues of a machine never keep each other from both working and updating", () => {
    const any = fc.record({
      queue: fc.constantFrom("A", "B", "C"),
      revision: fc.option(fc.constantFrom(6, 7)),
      alive: fc.boolean(),
      disabled: fc.boolean(),
      noAutoUpdate: fc.boolean(),
      updateServer: fc.boolean(),
    });
    fc.assert(
      fc.property(
        fc.uniqueArray(any, { selector: ({ queue }) => queue, minLength: 1 }),
        fc.boolean(),
        (all, autoUpdate) => {
          const living = all.filter(({ alive, disabled }) => alive && !disabled);
          const decisions = living.map((own) =>
            decideGate({
              revision: 7,
              autoUpdate,
              server: own,
              machine: all.filter(({ queue }) => queue !== own.queue),
              updateServers: all.filter(({ updateServer }) => updateServer),
            }),
          );
          // Somebody who gets only updates waits for somebody who is being updated.
          if (decisions.some(({ deliver }) => deliver !== "all"))
            assert.ok(decisions.some(({ updating }) => updating));
          if (decisions.some(({ updating }) => updating))
            assert.ok(decisions.every(({ deliver }) => deliver === "update-only"));
        },
      ),
    );
  });
});
