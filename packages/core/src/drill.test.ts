import assert from "node:assert/strict";
import { suite, test } from "node:test";
import fc from "fast-check";
import type { HistoryEntry } from "./cluster-types.ts";
import { DRILL_LOSSES, DRILL_ORDER, type DrillProbe, drillLastsMs, measureDrillOutage } from "./drill.ts";
import { type DrillFacts, type DrillMoment, judgeDrill } from "./drill-verdict.ts";

const moment: DrillMoment = {
  owner: "a",
  token: 3,
  online: { address: true, service: true },
  configHashes: { a: "1", b: "1" },
  settings: 7,
  paused: [],
  keptOut: [],
  wanted: "online",
};
const taken: DrillMoment = { ...moment, owner: "b", token: 4 };
const entry = (node: string, token: number, what: string): HistoryEntry => ({
  ...{ node, token, what, number: 1, at: 0, server: "S", detail: "" },
});
const well: DrillFacts = {
  loss: "node",
  victim: "a",
  before: moment,
  recovered: taken,
  after: { ...moment, token: 5 },
  sights: [
    { at: 0, owner: "a", token: 3 },
    { at: 10, owner: "b", token: 4 },
    { at: 20, owner: null, token: 4 },
    { at: 21, owner: "a", token: 5 },
  ],
  claims: [],
  history: [entry("b", 4, "took"), entry("a", 5, "took")],
  predicted: "b",
  failsafe: false,
  outage: measureDrillOutage([], 0),
  answersAgain: true,
};
const failed = (changed: Partial<DrillFacts>) =>
  judgeDrill({ ...well, ...changed })
    .filter(({ ok }) => !ok)
    .map(({ name }) => name);

suite("the verdicts of a drill", () => {
  test("nothing is found where all is as it should be", () => {
    assert.deepEqual(failed({}), []);
    assert.deepEqual(failed({ outage: null }), []);
    assert.deepEqual(failed({ loss: "service", recovered: moment }), [], "restarted in place");
    assert.deepEqual(failed({ loss: "store", failsafe: true, recovered: moment }), [], "it may stay");
  });

  test("each fault is found by the verdict that is about it, and by no other", () => {
    const faults: readonly (readonly [Partial<DrillFacts>, string])[] = [
      [{ answersAgain: false }, "clients reach it again"],
      [{ history: [entry("b", 4, "took"), entry("c", 4, "took")] }, "one owner at a time"],
      [
        { history: [entry("b", 4, "resource-online"), entry("a", 4, "resource-online")] },
        "one owner at a time",
      ],
      [{ history: [entry("b", 4, "foreign owner of the address")] }, "one owner at a time"],
      [{ claims: ["a said with token 3 that it owns"] }, "one owner at a time"],
      [{ sights: [...well.sights, { at: 30, owner: "a", token: 2 }] }, "tokens only grew"],
      [{ predicted: "c" }, "went where it was predicted"],
      [{ recovered: moment }, "went where it was predicted"],
      [{ recovered: { ...taken, online: { address: true, service: false } } }, "all resources on one node"],
      [{ recovered: { ...taken, configHashes: { a: "1", b: "2" } } }, "settings and configuration equal"],
      [{ recovered: { ...taken, settings: 6 } }, "settings and configuration equal"],
      [{ after: taken }, "left as it was found"],
      [{ after: { ...moment, paused: ["b"] } }, "left as it was found"],
      [{ after: { ...moment, keptOut: ["a"] } }, "left as it was found"],
      [{ after: { ...moment, wanted: "offline" } }, "left as it was found"],
    ];
    for (const [changed, name] of faults) assert.deepEqual(failed(changed), [name]);
    assert.ok(failed({ recovered: null }).includes("came back by itself"));
  });

  test("an owner that changes under one token is two faults", () => {
    const sights = [...well.sights.slice(0, 2), { at: 11, owner: "c", token: 4 }];
    assert.deepEqual(failed({ sights }), ["one owner at a time", "tokens only grew"]);
  });
});

suite("what a client sees", () => {
  const ask = (sentAt: number, isAnswered: boolean, lastsMs = 1): DrillProbe => ({
    ...{ sentAt, doneAt: sentAt + lastsMs, isAnswered },
  });

  test("the outage is the longest time between two answers with a failure between them", () => {
    const probes = [0, 20, 40].map((at) => ask(at, true));
    const gone = [60, 80, 100].map((at) => ask(at, false, 500));
    const back = [120, 140].map((at) => ask(at, true, 2));
    const outage = measureDrillOutage([...back, ...gone, ...probes], 50);
    assert.deepEqual([outage.ms, outage.from, outage.to], [81, 41, 122]);
    assert.deepEqual([outage.asked, outage.failed, outage.isOpen], [8, 3, false]);
    assert.equal(outage.floorMs, 20, "what it does without a loss");
    assert.equal(measureDrillOutage([...probes, ...gone], 50).isOpen, true);
  });

  test("a pause of the client itself is no outage", () => {
    assert.equal(measureDrillOutage([ask(0, true), ask(9_000, true)], 0).ms, 0);
  });

  test("an outage is never longer than the whole, and never there without a failure", () => {
    const probe = fc.record({ sentAt: fc.nat(10_000), lasts: fc.nat(500), isAnswered: fc.boolean() });
    fc.assert(
      fc.property(fc.array(probe, { maxLength: 60 }), fc.nat(10_000), (given, lostAt) => {
        const probes = given.map(({ sentAt, lasts, isAnswered }) => ask(sentAt, isAnswered, lasts));
        const { ms, from, to, failed: count } = measureDrillOutage(probes, lostAt);
        assert.equal(count, probes.filter(({ isAnswered }) => !isAnswered).length);
        if (count === 0) assert.equal(ms, 0);
        if (from !== null && to !== null) assert.equal(to - from, ms);
        assert.ok(ms >= 0 && ms <= 10_500);
      }),
    );
  });
});

test("the order of a drill is read as it was written, and lasts longer than a takeover takes", () => {
  for (const loss of DRILL_LOSSES) {
    const lastsMs = drillLastsMs(loss, { waitMs: 3_000 });
    if (loss !== "service" && loss !== "daemon") assert.ok(lastsMs > 2 * 3_000);
    const order = {
      ...{ server: "S", loss, node: "a", instance: "a-1", token: 3, lastsMs, by: "me", at: 1 },
      ...{ state: "ordered" as const, problem: null },
    };
    const parsed = DRILL_ORDER.parse(DRILL_ORDER.format(order));
    assert.deepEqual(parsed.ok && parsed.value, order);
  }
});
