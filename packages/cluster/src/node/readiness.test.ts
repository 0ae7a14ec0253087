import assert from "node:assert/strict";
import { test } from "node:test";
import type { ReadinessQuestion } from "@lockstep/core";
import { silentLogger, systemClock } from "@lockstep/platform";
import { type ErrorCode, LockstepError } from "@lockstep/protocol/wire";
import { SimDocumentStore } from "@lockstep/testing";
import { READINESS } from "../documents/addresses.ts";
import { ClusterDocuments } from "../documents/cluster-documents.ts";
import { Readiness } from "./readiness.ts";

const KEY = "ready/APP";
/** For what is answered in a few turns of the event loop: never reached. */
const PATIENCE_MS = 60_000;

/** Two nodes on documents in memory; beta says `said`. */
function open() {
  const store = new SimDocumentStore();
  const state = { said: null as string | null, isHeard: true, fails: null as ErrorCode | null };
  const documents = new ClusterDocuments({
    read: async (key) => store.read(key),
    list: async (prefix) => store.list(prefix),
    write: async (key, expected, text) => {
      if (state.fails !== null) throw new LockstepError(state.fails, "not written");
      return store.write(key, expected, text);
    },
    watch: async () => {},
  });
  const readiness = new Map<string, ReadinessQuestion>();
  const nodes: Readiness[] = [];
  const refresh = () => {
    readiness.clear();
    const parsed = READINESS.kind.parse(store.read(KEY)?.text ?? "");
    if (parsed.ok) readiness.set("APP", parsed.value);
    if (state.isHeard) for (const node of nodes) node.look();
  };
  for (const node of ["alpha", "beta"])
    nodes.push(
      new Readiness({
        ...{ node, documents, mirror: { readiness, refresh }, clock: systemClock, log: silentLogger },
        prepare: async () => state.said,
      }),
    );
  store.watch(() => setImmediate(refresh));
  return { store, state, refresh, alpha: nodes[0] as Readiness };
}

test("an answer of any length is one that can be read, and does not keep the next question from being asked", async () => {
  const { alpha, state } = open();
  state.said = "x".repeat(10_000);
  assert.match((await alpha.ask("APP", "beta", PATIENCE_MS)) ?? "", /^beta: x{4000} \(NODE_NOT_READY\)$/);
  state.said = null;
  assert.equal(await alpha.ask("APP", "beta", PATIENCE_MS), null);
});

test("a virtual server that was removed and defined anew is answered for from its first question", async () => {
  const { alpha, store, refresh } = open();
  assert.equal(await alpha.ask("APP", "beta", PATIENCE_MS), null);
  store.write(KEY, store.read(KEY)?.revision ?? 0, null);
  refresh();
  assert.equal(await alpha.ask("APP", "beta", PATIENCE_MS), null);
});

test("a question that ends unanswered takes no later one along", async () => {
  const { alpha, state, refresh } = open();
  state.isHeard = false;
  const first = alpha.ask("APP", "beta", 30);
  const second = alpha.ask("APP", "beta", PATIENCE_MS);
  assert.match((await first) ?? "", /has not said .*\(NODE_ANSWER_LATE\)$/);
  state.isHeard = true;
  refresh();
  assert.equal(await second, null);
});

test("a question that cannot be asked is answered with why, and with one code of an order's end", async () => {
  const { alpha, state } = open();
  state.fails = "COORDINATION_UNREACHABLE";
  const asked = async () => (await alpha.ask("APP", "beta", PATIENCE_MS)) ?? "";
  assert.match(await asked(), /not be asked .*ready \(COORDINATION_UNREACHABLE\)$/);
  state.fails = "DOCUMENT_TOO_LARGE";
  assert.match(await asked(), /not be asked .*ready \(DOCUMENT_TOO_LARGE\) \(NO_CANDIDATE\)$/);
});
