import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { FAST_LEASE_TIMES, type HistoryEntry } from "@lockstep/core";
import type { NemesisHistory, NemesisRound, TruthSpan } from "./nemesis-history.ts";
import { judge } from "./nemesis-judge.ts";

const note = (number: number, node: string, token: number, what: string, detail = ""): HistoryEntry => ({
  ...{ number, node, token, what, detail },
  at: 1_000_000 + number * 10,
  server: "APP",
});

const span = (from: number, to: number, owners: readonly string[], listeners = owners): TruthSpan => ({
  ...{ from, to, owners, listeners },
});

const round: NemesisRound = {
  ...{ what: "kill the daemon", node: "alpha", faultAt: 1000, healedAt: 1200, servedAt: 1300 },
  ...{ neighbour: "beta", absent: [], configHashes: [null, null] },
  settings: { owner: "abc", store: "abc" },
};

/** Alpha loses it at 1000, beta has it from 1200 on. */
const SOUND: NemesisHistory = {
  ...{ nemesis: "daemon-kill", seed: 1, nodes: ["alpha", "beta"], lease: FAST_LEASE_TIMES },
  wallLessMonotonicMs: 999_000,
  rounds: [round],
  truth: [span(0, 1000, ["alpha"]), span(1020, 1180, []), span(1200, 3000, ["beta"])],
  client: [],
  notes: [
    note(1, "alpha", 1, "took"),
    note(2, "alpha", 1, "resource-online", "address"),
    note(3, "alpha", 1, "resource-online", "service"),
    note(15, "beta", 2, "took"),
    note(16, "beta", 2, "resource-online", "address"),
    note(17, "beta", 2, "resource-online", "service"),
  ],
  arrived: [
    { at: 500, token: 1, node: "alpha", writer: "alpha.1", number: 0, isAccepted: true },
    { at: 1300, token: 2, node: "beta", writer: "beta.1", number: 0, isAccepted: true },
    { at: 1400, token: 1, node: "alpha", writer: "alpha.1", number: 1, isAccepted: false },
  ],
  acknowledged: ["alpha.1 0", "beta.1 0"],
};

const brokenBy = (changed: Partial<NemesisHistory>): string[] => [
  ...new Set(
    judge({ ...SOUND, ...changed }, { servedWithinMs: 10_000 }).broken.map(({ invariant }) => invariant),
  ),
];

const inRound = (changed: Partial<NemesisRound>) => ({ rounds: [{ ...round, ...changed }] });

suite("the judge of recorded histories", () => {
  test("finds nothing in a sound one, and has looked at each invariant that it speaks of", () => {
    const { broken, looked, twoOwnersMs } = judge(SOUND, { servedWithinMs: 10_000 });
    assert.deepEqual(broken, []);
    assert.equal(twoOwnersMs, 0);
    assert.deepEqual(Object.keys(looked).sort(), ["I1", "I2", "I3", "I4", "I5", "I6", "I7", "I8"]);
  });

  const both = span(1300, 1360, ["alpha", "beta"]);
  for (const [what, changed, invariants] of [
    ["two owners", { truth: [...SOUND.truth, both] }, ["I1", "I5", "I4"]],
    ["one token twice", { notes: [...SOUND.notes, note(20, "alpha", 2, "took")] }, ["I2"]],
    ["a token that falls", { notes: [note(0, "beta", 9, "took"), ...SOUND.notes] }, ["I2"]],
    [
      "a late write that is accepted",
      { arrived: SOUND.arrived.map((write) => ({ ...write, isAccepted: true })) },
      ["I3"],
    ],
    ["an acknowledged write that is lost", { acknowledged: ["alpha.1 7"] }, ["I3"]],
    ["a service that goes on", { truth: [...SOUND.truth, span(2000, 2100, [], ["alpha"])] }, ["I4"]],
    ["a service away from its address", { truth: [span(0, 900, ["alpha"], ["alpha", "beta"])] }, ["I5"]],
    ["nobody who serves again", inRound({ servedAt: null }), ["I6"]],
    ["somebody who serves too late", inRound({ servedAt: 20_000 }), ["I6"]],
    ["clients that look elsewhere", inRound({ neighbour: null }), ["I6"]],
    ["settings that did not reach the store", inRound({ settings: { owner: "new", store: "old" } }), ["I7"]],
    ["configurations that differ", inRound({ configHashes: ["a", "b"] }), ["I7"]],
    ["a service before its address", { notes: [note(1, "alpha", 1, "resource-online", "service")] }, ["I8"]],
    [
      "an address that goes first",
      { notes: [...SOUND.notes, note(18, "beta", 2, "resource-offline", "address")] },
      ["I8"],
    ],
    [
      "a move that is given up and costs the source what it had",
      {
        notes: [
          ...SOUND.notes,
          note(20, "beta", 2, "offline-begins"),
          note(21, "beta", 2, "order", "order 1 (move): given up: alpha takes nothing"),
        ],
      },
      ["I9"],
    ],
  ] as const satisfies readonly (readonly [string, Partial<NemesisHistory>, readonly string[]])[])
    test(`finds ${what}`, () => {
      const found = brokenBy(changed);
      assert.ok(
        found.length > 0 && found.every((each) => invariants.some((one) => one === each)),
        found.join(),
      );
      assert.ok(found.includes(invariants[0]), found.join());
    });

  test("believes nothing that is said of a host without power, or of one that stood still and has just woken", () => {
    const absent = [{ node: "alpha", from: 1290, to: 1320 }];
    const notes = SOUND.notes;
    assert.deepEqual(brokenBy({ truth: [...SOUND.truth, both], notes, ...inRound({ absent }) }), []);
    const later = span(2000, 2100, ["alpha", "beta"]);
    assert.ok(brokenBy({ truth: [...SOUND.truth, later], ...inRound({ absent }) }).includes("I1"));
  });
});
