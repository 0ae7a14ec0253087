import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { DEFAULT_VIRTUAL_SERVER } from "@lockstep/core";
import { silentLogger, systemClock } from "@lockstep/platform";
import { SimDocumentStore } from "@lockstep/testing";
import type { Coordination } from "../coordination/coordination.ts";
import { CLUSTER, FAILOVERS, MEMBERS, ORDERS, READINESS, SERVERS } from "../documents/addresses.ts";
import { ClusterMirror } from "./cluster-mirror.ts";

/** A mirror of documents in memory; each `until` waits for what the next looks show. */
async function open(t: TestContext) {
  const store = new SimDocumentStore();
  /** Prefixes of which no watch tells. */
  const unwatched = new Set<string>();
  const changed = () => {
    for (const look of [...looks]) look();
  };
  const looks = new Set<() => void>();
  const ended = (signal: AbortSignal) =>
    new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
  const coordination = {
    documents: {
      read: async (key: string) => store.read(key),
      list: async (prefix: string) => store.list(prefix),
      write: async (key: string, expected: number, text: string | null) => store.write(key, expected, text),
      watch: async (below: string, tell: () => void, signal: AbortSignal) => {
        const stop = store.watch((key) => {
          if (key.startsWith(below) && !unwatched.has(below)) tell();
        });
        await ended(signal);
        stop();
      },
    },
    read: async () => ({ record: null, revision: 0 }),
    watch: async (_: string, __: unknown, signal: AbortSignal) => ended(signal),
  } as unknown as Coordination;
  const put = (key: string, text: string | null) => store.write(key, store.read(key)?.revision ?? 0, text);
  const cluster = CLUSTER.kind.parse(
    '{"format":"lockstep-cluster/1","keyDigest":null,"name":"c","votes":[]}',
  );
  assert.ok(cluster.ok);
  put(CLUSTER.key, CLUSTER.kind.format(cluster.value));
  const mirror = new ClusterMirror({ coordination, clock: systemClock, log: silentLogger, changed });
  t.after(() => mirror.close());
  mirror.start();
  const until = async (isThere: () => boolean) => {
    while (!isThere()) await new Promise<void>((resolve) => looks.add(resolve));
  };
  return { mirror, put, until, unwatched };
}

test("a document that can no longer be read is not taken for one that was removed", async (t) => {
  const { mirror, put, until } = await open(t);
  const member = {
    node: "alpha",
    address: "127.0.0.1:1",
    isPaused: false,
    exits: [],
    quarantinedUntil: null,
  };
  put("member/alpha", MEMBERS.kind.format(member));
  put("server/APP", SERVERS.kind.format({ ...DEFAULT_VIRTUAL_SERVER, name: "APP" }));
  put("server/OLD", SERVERS.kind.format({ ...DEFAULT_VIRTUAL_SERVER, name: "OLD" }));
  await until(() => mirror.isReady && mirror.servers.has("OLD") && mirror.members.has("alpha"));

  put("member/alpha", '{"format":"lockstep-member/2"}');
  put("server/APP", "");
  put("server/BAD", "{}");
  put("server/OLD", null);
  await until(() => !mirror.servers.has("OLD"));
  assert.deepEqual([...mirror.servers.keys()], ["APP"]);
  assert.deepEqual([...mirror.members.values()], [member]);

  put("server/APP", SERVERS.kind.format({ ...DEFAULT_VIRTUAL_SERVER, name: "APP", weight: 7 }));
  await until(() => mirror.servers.get("APP")?.weight === 7);
  // One that says that it is another's: what was known holds, and the other one is not made.
  put("member/alpha", MEMBERS.kind.format({ ...member, node: "beta" }));
  put("server/APP", SERVERS.kind.format({ ...DEFAULT_VIRTUAL_SERVER, name: "OTHER", weight: 9 }));
  put("server/NEW", SERVERS.kind.format({ ...DEFAULT_VIRTUAL_SERVER, name: "NEW" }));
  await until(() => mirror.servers.has("NEW"));
  assert.deepEqual([...mirror.members], [["alpha", member]]);
  assert.deepEqual([mirror.servers.get("APP")?.name, mirror.servers.get("APP")?.weight], ["APP", 7]);
  put("server/APP", null);
  await until(() => !mirror.servers.has("APP"));
});

test("whoever knows of an order knows of everything that was written before it", async (t) => {
  const { mirror, put, until, unwatched } = await open(t);
  const member = { node: "alpha", address: "127.0.0.1:1", isPaused: true, exits: [], quarantinedUntil: null };
  put("member/alpha", MEMBERS.kind.format(member));
  await until(() => mirror.isReady && mirror.members.has("alpha"));
  for (const prefix of ["cluster", "member/", "server/", "failover/"]) unwatched.add(prefix);
  const order = { kind: "move", to: "alpha", by: "me", at: 1 } as const;
  for (const number of [1, 2]) {
    put("member/alpha", MEMBERS.kind.format({ ...member, isPaused: number === 2 }));
    put("server/APP", SERVERS.kind.format({ ...DEFAULT_VIRTUAL_SERVER, name: "APP", weight: number }));
    put("failover/APP", FAILOVERS.kind.format({ at: [], lastOrder: number - 1, claimedBy: null }));
    put("order/APP", ORDERS.kind.format({ ...order, number }));
    await until(() => mirror.orders.get("APP")?.number === number);
    assert.equal(mirror.members.get("alpha")?.isPaused, number === 2);
    assert.equal(mirror.servers.get("APP")?.weight, number);
    assert.equal(mirror.failovers.get("APP")?.lastOrder, number - 1);
  }
});

test("whoever is asked whether it is ready knows of everything that was written before", async (t) => {
  const { mirror, put, until, unwatched } = await open(t);
  const member = { node: "alpha", address: "127.0.0.1:1", isPaused: true, exits: [], quarantinedUntil: null };
  put("member/alpha", MEMBERS.kind.format(member));
  await until(() => mirror.isReady && mirror.members.has("alpha"));
  unwatched.add("member/");
  for (const number of [1, 2]) {
    put("member/alpha", MEMBERS.kind.format({ ...member, isPaused: number === 2 }));
    put("ready/APP", READINESS.kind.format({ number, from: "beta", to: "alpha", answer: null }));
    await until(() => mirror.readiness.get("APP")?.number === number);
    assert.equal(mirror.members.get("alpha")?.isPaused, number === 2);
  }
});

test("a definition of the cluster that cannot be read keeps no order from being heard", async (t) => {
  const { mirror, put, until } = await open(t);
  await until(() => mirror.isReady);
  put(CLUSTER.key, '{"format":"lockstep-cluster/2"}');
  put("order/APP", ORDERS.kind.format({ kind: "move", to: "alpha", by: "me", at: 1, number: 1 }));
  await until(() => mirror.orders.get("APP")?.number === 1);
  assert.equal(mirror.cluster?.name, "c");
});
