import assert from "node:assert/strict";
import { test } from "node:test";
import {
  DEFAULT_RESOURCE_POLICY,
  DEFAULT_VIRTUAL_SERVER,
  type HistoryEntry,
  type ResourcePhase,
  withFault,
} from "@lockstep/core";
import { ERRORS, type ErrorCode, isLockstepError } from "@lockstep/protocol/wire";
import type { ServerMoment } from "./follow.ts";
import { isCarriedOut, isGivenUp, NEXT_STEP, type PlacedOrder } from "./order-end.ts";

const ORDER: PlacedOrder = { server: "ORDERS", number: 3, kind: "move", to: "beta", from: "alpha" };

let count = 0;
const entry = (node: string, token: number, what: string, detail = ""): HistoryEntry => ({
  ...{ node, number: ++count, at: count, server: "ORDERS", token, what, detail },
});
const moves = entry("alpha", 5, "order", "order 3 (move): moves to beta");
const givenUp = (why: string) => entry("alpha", 5, "order", `order 3 (move): given up: ${why}`);

/** ORDERS as `node` has it under `token`. */
function moment(
  node: string | null,
  token: number,
  phase: ResourcePhase,
  changes: Partial<ServerMoment> = {},
): ServerMoment {
  return {
    definition: {
      ...DEFAULT_VIRTUAL_SERVER,
      name: "ORDERS",
      isEnabled: true,
      wanted: "online",
      resources: [
        { name: "service", type: "generic-service", settings: {}, policy: DEFAULT_RESOURCE_POLICY },
      ],
    },
    record: { node, instance: "i", token, write: 1, next: null },
    report:
      node === null
        ? null
        : { ...{ role: "owner" as const, token }, resources: { service: { phase, problem: null } } },
    lastOrder: 3,
    order: { number: 3, kind: "move", to: "beta", by: "ann@host", at: 0 },
    news: [],
    ...changes,
  };
}

function codeOf(seen: ServerMoment, order: PlacedOrder = ORDER): ErrorCode | boolean {
  try {
    return isCarriedOut(seen, order);
  } catch (error) {
    if (!isLockstepError(error)) throw error;
    assert.notEqual(error.hint, undefined, "each says what to do next");
    return error.code;
  }
}

test("an order is carried out where it was sent, or anywhere else where that will do", () => {
  assert.equal(codeOf(moment("alpha", 5, "online", { news: [moves] })), false);
  assert.equal(codeOf(moment(null, 5, "offline", { news: [moves] })), false);
  assert.equal(codeOf(moment("beta", 6, "online-pending", { news: [moves] })), false);
  assert.equal(codeOf(moment("beta", 6, "online", { news: [moves] })), true);
  assert.equal(codeOf(moment("gamma", 6, "online", { news: [moves] }), { ...ORDER, to: null }), true);
  const anywhere = { ...ORDER, to: null };
  assert.equal(codeOf(moment("gamma", 6, "online", { lastOrder: 2 }), anywhere), false, "not by this order");
  const drained = { ...ORDER, elsewhereWillDo: true };
  assert.equal(codeOf(moment("gamma", 7, "online", { news: [moves] }), drained), true);
});

test("an order that was given up ends with the code that the node wrote down, and with both values", () => {
  for (const code of Object.keys(NEXT_STEP) as (keyof typeof NEXT_STEP)[]) {
    assert.ok(code in ERRORS);
    assert.equal(codeOf(moment("alpha", 5, "online", { news: [givenUp(withFault("beta: x", code))] })), code);
  }
  const [seen, down] = ["online", "failed"].map((phase) =>
    moment("alpha", 5, phase as ResourcePhase, { news: [givenUp("beta takes nothing (NODE_PAUSED)")] }),
  );
  assert.throws(() => isCarriedOut(seen as ServerMoment, ORDER), {
    code: "NODE_PAUSED",
    message: "the order was given up: order 3 (move): given up: beta takes nothing",
    expected: "online on beta",
    found: "on alpha: [service] online",
    hint: "lockstep cluster resume beta lets it take virtual servers again.",
  });
  assert.equal(codeOf(down as ServerMoment), "NODE_PAUSED", "also where nothing had been online");
  const earlier = moment("alpha", 5, "online", { news: [givenUp("beta takes nothing")] });
  assert.equal(codeOf(earlier), "NO_CANDIDATE", "a daemon of an earlier version writes no code");
  const other = entry("alpha", 5, "order", "order 2 (move): given up: x (NODE_DOWN)");
  assert.equal(
    codeOf(moment("alpha", 5, "online", { news: [other] })),
    false,
    "another order's end is not ours",
  );
  const later = entry("alpha", 5, "order", "order 4 (online): is tried again on alpha");
  const news = [givenUp("beta takes nothing (NODE_PAUSED)"), later];
  assert.equal(
    codeOf(moment("alpha", 5, "online", { news })),
    "NODE_PAUSED",
    "a later order does not hide it",
  );
  // What a node said that was asked before the one that takes it is no end, whatever its words.
  const onward =
    "order 3 (move): moves to gamma; beta: connection refused, no candidate, given up (NODE_NOT_READY)";
  const next = entry("alpha", 5, "order", onward);
  assert.ok(!isGivenUp(next, 3));
  assert.equal(codeOf(moment("alpha", 5, "online", { news: [next] }), { ...ORDER, to: null }), false);
  assert.ok(isGivenUp(givenUp("no other node can own it"), 3));
});

test("the next step names the node that refused where the order named none", () => {
  const hintOf = (why: string, to: string | null) => {
    const seen = moment("alpha", 5, "online", { news: [givenUp(why)] });
    try {
      isCarriedOut(seen, { ...ORDER, to });
    } catch (error) {
      if (isLockstepError(error)) return error.hint;
    }
    return assert.fail("it was given up");
  };
  for (const [why, hint] of [
    ["node-2.site: its guard is not there (NODE_NOT_READY)", /^Mend what node-2\.site says, /],
    ["beta has not said within 5 s that it is ready (NODE_ANSWER_LATE)", /lockstep node on beta: it beats/],
    ["beta takes nothing (NODE_PAUSED)", /^lockstep cluster resume beta lets/],
    // As no daemon of ours says it.
    ["(NODE_PAUSED)", /^lockstep cluster resume NODE lets/],
  ] as const)
    assert.match(hintOf(why, null) ?? "", hint);
  assert.match(
    hintOf("beta: x (NODE_NOT_READY)", "gamma") ?? "",
    /^Mend what gamma says/,
    "the one that was named",
  );
});

test("what failed where it was sent is told from what never began, and from what stays down", () => {
  const failed = entry("beta", 6, "resource-failed", "service: exited with 1");
  const earlier = entry("alpha", 5, "resource-failed", "service: exited with 2");
  const news = [earlier, moves, failed];
  for (const owner of ["alpha", "gamma"])
    assert.throws(() => isCarriedOut(moment(owner, 7, "online", { news }), ORDER), {
      code: "MOVE_CAME_BACK",
      expected: "online on beta",
      found: `online on ${owner}`,
      faults: [{ where: "beta", problem: "service: exited with 1" }],
    });
  assert.equal(codeOf(moment("beta", 6, "failed", { news })), false, "it may be restarted");
  const stays = entry("beta", 6, "stays", "[service]: exited with 1; no other node can own it");
  assert.equal(codeOf(moment("beta", 6, "failed", { news: [...news, stays] })), "RESOURCE_FAILED");
  assert.equal(
    codeOf(moment("gamma", 7, "failed", { news: [...news, stays] })),
    false,
    "another owner is at it",
  );
  assert.equal(codeOf(moment("gamma", 7, "online")), "MOVE_CAME_BACK", "whoever claimed the order died");
  // The owner changed before the order was looked at, and the new one is still at it.
  const byGamma = entry("gamma", 6, "order", "order 3 (move): moves to beta");
  assert.equal(codeOf(moment("gamma", 6, "online", { news: [byGamma] })), false);
});

test("what somebody else changed meanwhile is told by its own code", () => {
  const newer = (kind: "move" | "online", to: string | null) =>
    moment("alpha", 5, "online", { order: { number: 4, kind, to, by: "bob@host", at: 0 } });
  assert.equal(codeOf(newer("move", "gamma")), "ORDER_SUPERSEDED");
  assert.equal(codeOf(newer("online", null)), "ORDER_SUPERSEDED");
  assert.equal(codeOf(newer("move", "beta")), false, "the same goal");
  const { definition } = moment("alpha", 5, "online");
  if (definition === null) throw new Error("it has one");
  const changed = (changes: Partial<typeof definition>) =>
    codeOf(moment("alpha", 5, "online", { definition: { ...definition, ...changes } }));
  const held = moment("alpha", 5, "online", { definition: { ...definition, inMaintenance: true } });
  assert.throws(() => isCarriedOut(held, ORDER), {
    code: "VIRTUAL_SERVER_IN_MAINTENANCE",
    expected: "online on beta",
    found: "on alpha: [service] online",
    hint: "lockstep cluster virtual-server maintenance ORDERS off; the order stands until a newer one is given.",
  });
  assert.equal(changed({ wanted: "offline" }), "VIRTUAL_SERVER_OFFLINE");
  assert.equal(changed({ isEnabled: false }), "VIRTUAL_SERVER_DISABLED");
  assert.equal(codeOf(moment("alpha", 5, "online", { definition: null })), "VIRTUAL_SERVER_UNKNOWN");
});
