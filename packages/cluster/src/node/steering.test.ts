import assert from "node:assert/strict";
import { test } from "node:test";
import {
  type ClusterMember,
  type ClusterOrder,
  DEFAULT_LEASE_TIMES,
  DEFAULT_QUARANTINE,
  type LeaseRecord,
  type LeaseWish,
  type NodeReport,
  type ReadinessQuestion,
  VIRTUAL_SERVER,
  type VirtualServerDefinition,
} from "@lockstep/core";
import { type Clock, silentLogger, systemClock } from "@lockstep/platform";
import { LockstepError } from "@lockstep/protocol/wire";
import { SimDocumentStore } from "@lockstep/testing";
import { at, FAILOVERS, READINESS } from "../documents/addresses.ts";
import { ClusterDocuments } from "../documents/cluster-documents.ts";
import { Steering } from "./steering.ts";

const NODES = ["alpha", "beta"];
const INSTANCE = "alpha#1";

function serverNamed(name: string): VirtualServerDefinition {
  const parsed = VIRTUAL_SERVER.parse(JSON.stringify({ format: "lockstep-server/1", name }));
  assert.ok(parsed.ok, JSON.stringify(parsed));
  return parsed.value;
}

/** The daemon of alpha, which owns APP under token 1, on documents in memory; beta answers what the test says. */
function open(nodes: readonly string[] = NODES, clock: Clock = systemClock) {
  const store = new SimDocumentStore();
  const state = {
    /** What beta says; undefined: nothing. */
    said: null as string | null | undefined,
    /** What other nodes say; left out: that they are ready. */
    saidByOthers: {} as Readonly<Record<string, string>>,
    /** What happens instead of a write. */
    write: (commit: () => number | null): number | null => commit(),
    wishes: [] as LeaseWish[],
    wishOf: new Map<string, LeaseWish>(),
    stays: [] as (number | null)[],
    retries: 0,
    notes: [] as string[],
    orders: new Map<string, ClusterOrder>(),
    lease: { node: "alpha", instance: INSTANCE, token: 1, write: 1, next: null } as LeaseRecord,
    /** Virtual servers beside APP. */
    others: new Map<string, LeaseRecord>(),
  };
  const documents = new ClusterDocuments({
    read: async (key) => store.read(key),
    list: async (prefix) => store.list(prefix),
    write: async (key, expected, text) =>
      key.startsWith(FAILOVERS.prefix)
        ? state.write(() => store.write(key, expected, text))
        : store.write(key, expected, text),
    watch: async () => {},
  });
  const parse = <T>(kind: { parse: (text: string) => { ok: boolean; value?: T } }, key: string) => {
    const parsed = kind.parse(store.read(key)?.text ?? "");
    return new Map(parsed.ok ? [["APP", parsed.value as T]] : []);
  };
  const report = (node: string) =>
    ({ node, instance: `${node}#1`, configHashes: {}, servers: {} }) as unknown as NodeReport;
  const mirror = {
    cluster: {
      ...{ name: "site", lease: DEFAULT_LEASE_TIMES, quarantine: DEFAULT_QUARANTINE },
      ...{ votes: [], configPolicy: "warn" as const, keyDigest: null },
    },
    members: new Map(
      nodes.map((node): [string, ClusterMember] => [
        node,
        { node, address: `${node}:1`, isPaused: false, exits: [], quarantinedUntil: null },
      ]),
    ),
    get servers() {
      return new Map(["APP", ...state.others.keys()].map((name) => [name, serverNamed(name)]));
    },
    orders: state.orders,
    get failovers() {
      return parse(FAILOVERS.kind, "failover/APP");
    },
    get readiness() {
      return parse<ReadinessQuestion>(READINESS.kind, "ready/APP");
    },
    isReady: true,
    leases: () => new Map([["APP", state.lease], ...state.others]),
    lease: (name: string) => ({
      present: { record: state.others.get(name) ?? state.lease, revision: 1, seenAt: 0 },
      former: null,
    }),
    refresh: () => steering.request(),
  };
  const steering: Steering = new Steering({
    ...{ node: "alpha", instance: INSTANCE, documents, mirror, clock, log: silentLogger },
    heartbeat: {
      isSettled: true,
      up: () => new Set(nodes),
      reports: () => new Map(nodes.map((node) => [node, report(node)])),
    },
    servers: {
      define: () => {},
      keepOnly: () => {},
      isKnown: () => true,
      prepare: async () => null,
      wish: (name, wish) => {
        state.wishes.push(wish);
        state.wishOf.set(name, wish);
      },
      stay: (_name, askAgainMs) => void state.stays.push(askAgainMs),
      retry: () => {
        state.retries += 1;
      },
    },
    note: ({ what, detail }) => void state.notes.push(`${what}: ${detail}`),
  });
  store.watch((key) => {
    const question = mirror.readiness.get("APP");
    const said = question?.to === "beta" ? state.said : (state.saidByOthers[question?.to ?? ""] ?? null);
    if (key === "ready/APP" && question?.answer === null && question.to !== "alpha" && said !== undefined)
      void documents.change(at(READINESS, "APP"), (present) =>
        present === null || present.answer !== null ? present : { ...present, answer: { problem: said } },
      );
    steering.request();
  });
  const order = (kind: ClusterOrder["kind"], to: string | null) => {
    state.orders.set("APP", { number: state.orders.size + 1, kind, to, by: "me", at: 0 });
    steering.request();
  };
  return { steering, state, store, documents, order, members: mirror.members };
}

const leaves = ({ wishes }: { readonly wishes: readonly LeaseWish[] }) =>
  wishes.some(({ kind }) => kind === "leave");

const ordersTold = ({ notes }: { readonly notes: readonly string[] }) =>
  notes.filter((note) => note.startsWith("order: "));

async function until(isDone: () => boolean): Promise<void> {
  while (!isDone()) await systemClock.sleep(5);
}

/** Turns of the event loop that whatever could still follow has taken by then. */
async function quiet(): Promise<void> {
  for (let turn = 0; turn < 50; turn++) await new Promise((resolve) => setImmediate(resolve));
}

const OPEN = { token: 1, isOpen: () => true };

test("who fails goes to the node that is ready", async () => {
  const { steering, state } = open();
  await steering.failoverWanted("APP", "service", "it failed", OPEN);
  await until(() => leaves(state));
  assert.deepEqual(state.stays, []);
});

test("where nobody was ready it is asked again before long, and each time later", async () => {
  const { steering, state } = open();
  state.said = "its guard does not answer";
  for (let times = 0; times < 9; times++) await steering.failoverWanted("APP", "service", "it failed", OPEN);
  const stays = state.stays.map((askAgainMs) => askAgainMs ?? Number.NaN);
  assert.ok((stays[0] ?? Number.NaN) <= 30_000, String(stays));
  assert.deepEqual(
    stays,
    [...stays].sort((a, b) => a - b),
  );
  assert.ok((stays.at(-1) ?? Number.NaN) <= 15 * 60_000, String(stays));
  state.said = null;
  await steering.failoverWanted("APP", "service", "it failed", OPEN);
  await until(() => leaves(state));
});

test("a slow node is waited for where no other is ready", async () => {
  const patience: number[] = [];
  const waiting = Promise.withResolvers<void>();
  // The first wait is over at once; the one with patience lasts as long as this takes.
  const sleep: Clock["sleep"] = (ms, signal) => {
    patience.push(ms);
    if (patience.length === 1) return Promise.resolve();
    waiting.resolve();
    return systemClock.sleep(3_600_000, signal);
  };
  const { steering, state, documents } = open(NODES, { ...systemClock, sleep });
  state.said = undefined;
  const asked = steering.failoverWanted("APP", "service", "it failed", OPEN);
  await waiting.promise;
  const [first = Number.NaN, second = Number.NaN] = patience;
  assert.ok(first < second, `${first} ms, then ${second} ms`);
  state.said = null;
  // It answers now whatever question there is.
  await documents.change(at(READINESS, "APP"), (present) =>
    present === null ? present : { ...present, answer: { problem: null } },
  );
  await asked;
  await until(() => leaves(state));
  assert.deepEqual(state.stays, []);
});

test("an answer that comes when another term has begun, or it is well again, moves nothing", async () => {
  for (const again of [false, true]) {
    const { steering, state, store } = open();
    let isOpen = true;
    const asked = steering.failoverWanted("APP", "service", "it failed", { token: 1, isOpen: () => isOpen });
    isOpen = false;
    if (again) state.lease = { ...state.lease, token: 3 };
    await asked;
    await quiet();
    assert.ok(!leaves(state), JSON.stringify(state.wishes));
    assert.deepEqual(state.stays, [], "a later failure of the term is not answered either");
    assert.equal(store.read("failover/APP"), null, "what did not happen does not count");
  }
});

test("a failover that was decided for one term ends with it", async () => {
  const { steering, state } = open();
  state.write = (commit) => {
    const revision = commit();
    state.lease = { ...state.lease, token: 3 };
    return revision;
  };
  await steering.failoverWanted("APP", "service", "it failed", OPEN);
  await quiet();
  assert.ok(!leaves(state), JSON.stringify(state.wishes));
});

test("an order to try again reaches what failed, and one that comes to nothing tries again where it is", async () => {
  const { state, order, store } = open();
  order("online", null);
  await until(() => state.retries === 1);
  assert.match(store.read("failover/APP")?.text ?? "", /"lastOrder":1/);
  assert.ok(!leaves(state));

  const refused = open();
  refused.state.said = "its guard does not answer";
  refused.order("move", null);
  await until(() => refused.state.retries === 1);
  const [note] = refused.state.notes.filter((each) => /given up: beta: its guard/.test(each));
  assert.match(note ?? "", /\(NODE_NOT_READY\)$/, "the command that waits ends with this code");
});

test("an order that names no node goes on to the next one, and says why those before it do not take it", async () => {
  const { state, order } = open(["alpha", "beta", "delta", "gamma"]);
  state.said = "its guard does not answer";
  state.saidByOthers = { delta: "no volume" };
  order("move", null);
  await until(() => leaves(state));
  assert.deepEqual(ordersTold(state), [
    "order: order 1 (move): moves to gamma; beta: its guard does not answer; delta: no volume (NO_CANDIDATE)",
  ]);

  const refused = open(["alpha", "beta", "gamma"]);
  refused.state.said = "its guard does not answer";
  refused.state.saidByOthers = { gamma: "no volume" };
  refused.order("move", null);
  await until(() => refused.state.retries === 1);
  assert.deepEqual(ordersTold(refused.state), [
    "order: order 1 (move): given up: beta: its guard does not answer; gamma: no volume (NO_CANDIDATE)",
  ]);
  await refused.steering.failoverWanted("APP", "service", "it failed", OPEN);
  assert.match(
    refused.state.notes.at(-1) ?? "",
    /: beta: its guard does not answer; gamma: no volume \(NO_CANDIDATE\)$/,
  );
});

test("a node that may not own it says so with the code of what keeps it from that", async () => {
  const { state, store, members } = open();
  members.set("alpha", { ...(members.get("alpha") ?? assert.fail()), isPaused: true });
  state.lease = { ...state.lease, node: "beta", instance: "beta#1" };
  store.write("ready/APP", 0, READINESS.kind.format({ number: 1, from: "beta", to: "alpha", answer: null }));
  const answer = () => {
    const parsed = READINESS.kind.parse(store.read("ready/APP")?.text ?? "");
    return parsed.ok ? parsed.value.answer : null;
  };
  await until(() => answer() !== null);
  assert.equal(answer()?.problem, "takes nothing (NODE_PAUSED)");
});

test("an order whose claim was written and not answered is carried out, once", async () => {
  const { state, order } = open();
  let lost = 0;
  state.write = (commit) => {
    const revision = commit();
    if (lost++ > 0) return revision;
    throw new LockstepError("COORDINATION_UNREACHABLE", "the answer was lost");
  };
  order("move", "beta");
  await until(() => leaves(state));
  assert.equal(state.notes.filter((note) => /^order: .*moves to beta/.test(note)).length, 1);
});

test("an order that another daemon claimed meanwhile is left to it", async () => {
  const { state, order, store, documents } = open();
  let tries = 0;
  state.write = (commit) => {
    if (tries++ > 0) return commit();
    store.write("failover/APP", 0, FAILOVERS.kind.format({ at: [], lastOrder: 1, claimedBy: "beta#1" }));
    throw new LockstepError("COORDINATION_UNREACHABLE", "no answer");
  };
  order("move", "beta");
  await until(() => tries > 0);
  await systemClock.sleep(1_200);
  await quiet();
  assert.ok(!leaves(state));
  assert.equal((await documents.read(at(FAILOVERS, "APP")))?.claimedBy, "beta#1");
});

test("of two that become free one after the other a node goes for one, although it does not see it as its own yet", async () => {
  const { steering, state } = open(["alpha", "beta"]);
  const free: LeaseRecord = { node: null, instance: "gamma#1", token: 4, write: 0, next: null };
  state.lease = { ...free, node: "beta", instance: "beta#1" };
  state.others.set("TWO", free);
  steering.request();
  await quiet();
  assert.deepEqual(state.wishOf.get("TWO"), { kind: "take", delayMs: 0, force: false });
  state.lease = free;
  // However often it looks before it sees that.
  for (let look = 0; look < 3; look++) {
    steering.request();
    await quiet();
    assert.deepEqual(state.wishOf.get("APP"), {
      ...{ kind: "take", delayMs: DEFAULT_LEASE_TIMES.callMs, force: false },
    });
  }
});
