import assert from "node:assert/strict";
import { test } from "node:test";
import {
  type ClusterMember,
  DEFAULT_LEASE_TIMES,
  DEFAULT_QUARANTINE,
  DEFAULT_RESOURCE_POLICY,
  DEFAULT_VIRTUAL_SERVER,
  type HistoryEntry,
  type NodeReport,
  type ResourcePhase,
  type VirtualServerDefinition,
} from "@lockstep/core";
import { refusedMove } from "./order-end.ts";
import { findPassedMoves, predictMove } from "./prediction.ts";
import type { ClusterSnapshot } from "./snapshot.ts";
import { judgeCluster } from "./status.ts";

const NODES = ["alpha", "beta", "gamma"];
const HASH = "a".repeat(64);
const OTHER_HASH = "b".repeat(64);

const member = (node: string, changes: Partial<ClusterMember> = {}): ClusterMember => ({
  ...{ node, address: `${node}:7420`, isPaused: false, exits: [], quarantinedUntil: null },
  ...changes,
});

const report = (node: string, changes: Partial<NodeReport> = {}): NodeReport => ({
  ...{ node, instance: "i", beat: 7, version: "0.1.0", configHashes: { ORDERS: HASH } },
  ...{ revisions: { ORDERS: 4 }, measured: { stopMs: 1, guardDelayMs: 1, callMs: 1 }, servers: {}, at: 5 },
  ...changes,
});

const ORDERS: VirtualServerDefinition = {
  ...DEFAULT_VIRTUAL_SERVER,
  name: "ORDERS",
  config: { path: "/etc/orders.toml", hash: HASH },
  resources: [
    {
      name: "service",
      type: "generic-service",
      settings: {},
      policy: { ...DEFAULT_RESOURCE_POLICY, dependency: [["address"]] },
    },
    { name: "address", type: "ip-address", settings: {}, policy: DEFAULT_RESOURCE_POLICY },
  ],
};

const online = (phase: ResourcePhase = "online", problem: string | null = null) => ({
  ORDERS: {
    ...{ role: "owner" as const, token: 3 },
    resources: { address: { phase: "online" as const, problem: null }, service: { phase, problem } },
  },
});

/** Three nodes, three votes, ORDERS online on alpha. */
function snapshot(changes: Partial<ClusterSnapshot> = {}): ClusterSnapshot {
  return {
    cluster: {
      name: "prod",
      lease: DEFAULT_LEASE_TIMES,
      votes: NODES.map((node) => ({ name: `m-${node}`, onNode: node })),
      quarantine: DEFAULT_QUARANTINE,
      configPolicy: "block",
      keyDigest: null,
    },
    members: NODES.map((node) => member(node)),
    reports: new Map(
      NODES.map((node) => [node, report(node, node === "alpha" ? { servers: online() } : {})]),
    ),
    servers: [ORDERS],
    orders: new Map(),
    leases: new Map([["ORDERS", { node: "alpha", instance: "i", token: 3, write: 9, next: null }]]),
    up: new Set(NODES),
    now: 1000,
    ...changes,
  };
}

test("all well: online on its owner, two that would take it over by themselves", () => {
  const status = judgeCluster(snapshot());
  assert.deepEqual([status.healthy, status.problems], [true, []]);
  const [server] = status.virtualServers;
  assert.deepEqual(
    [server?.state, server?.owner, server?.token, server?.automatic, server?.candidates],
    ["online", "alpha", 3, true, ["beta", "gamma"]],
  );
  assert.deepEqual(
    status.nodes.map(({ state, owns }) => [state, owns.join()]),
    [
      ["up", "ORDERS"],
      ["up", ""],
      ["up", ""],
    ],
  );
});

test("what a dead owner last said of itself does not count", () => {
  const status = judgeCluster(snapshot({ up: new Set(["beta", "gamma"]) }));
  assert.equal(status.virtualServers[0]?.state, "lost");
  assert.deepEqual(status.problems, ["ORDERS: its owner alpha does not answer", "alpha: does not answer"]);
});

test("a document that cannot be read is what somebody should look at", () => {
  const broken = [{ key: "server/COPY", problem: "name says that it is of ORDERS" }];
  const { healthy, problems } = judgeCluster(snapshot({ broken }));
  assert.equal(healthy, false);
  assert.deepEqual(problems, ["the document server/COPY cannot be read: name says that it is of ORDERS"]);
});

test("every reason why nothing happens by itself is told", () => {
  const twoVotes = { ...snapshot().cluster, votes: [{ name: "m", onNode: "alpha" }] };
  const cases: [Partial<ClusterSnapshot>, RegExp][] = [
    [{ cluster: twoVotes }, /spread the votes/],
    [{ up: new Set(["alpha"]) }, /no other node can own it/],
    [{ servers: [{ ...ORDERS, inMaintenance: true }] }, /maintenance/],
    [{ servers: [{ ...ORDERS, wanted: "offline" }] }, /to be offline/],
    [{ servers: [{ ...ORDERS, isEnabled: false }] }, /not enabled/],
  ];
  for (const [changes, why] of cases) {
    const [server] = judgeCluster(snapshot(changes)).virtualServers;
    assert.equal(server?.automatic, false);
    assert.match(server?.why ?? "", why);
  }
});

test("what administrators did on purpose is shown and is no problem", () => {
  const paused = snapshot({
    members: [member("alpha"), member("beta", { isPaused: true }), member("gamma")],
  });
  const status = judgeCluster(paused);
  assert.deepEqual([status.healthy, status.nodes[1]?.state], [true, "paused"]);
  assert.deepEqual(status.virtualServers[0]?.rejected, [
    { node: "beta", why: "paused", detail: "takes nothing" },
  ]);
  const maintained = judgeCluster(snapshot({ servers: [{ ...ORDERS, inMaintenance: true }] }));
  assert.equal(maintained.healthy, true);
  const off = snapshot({
    servers: [{ ...ORDERS, isEnabled: false }],
    reports: new Map(NODES.map((node) => [node, report(node)])),
    leases: new Map([["ORDERS", { node: null, instance: "i", token: 3, write: 9, next: null }]]),
  });
  const stopped = { ...off, servers: [{ ...ORDERS, wanted: "offline" as const }] };
  assert.deepEqual(judgeCluster(stopped).problems, []);
  assert.deepEqual(
    [judgeCluster(off).healthy, judgeCluster(off).virtualServers[0]?.state],
    [true, "disabled"],
  );
});

test("a failed resource, different configurations, revisions and versions, and a second owner are problems", () => {
  const reports = new Map([
    ["alpha", report("alpha", { servers: online("failed", "exited with 3") })],
    [
      "beta",
      report("beta", { configHashes: { ORDERS: OTHER_HASH }, revisions: { ORDERS: 5 }, servers: online() }),
    ],
    ["gamma", report("gamma", { version: "0.2.0" })],
  ]);
  const status = judgeCluster(snapshot({ reports }));
  assert.equal(status.virtualServers[0]?.state, "failed");
  assert.deepEqual(status.problems, [
    "ORDERS: [service] exited with 3",
    "ORDERS: beta says that it owns it too (it must notice within the lease's time)",
    "ORDERS: its configuration differs on beta",
    "ORDERS: its software revision differs: 4 on alpha,gamma; 5 on beta",
    "nodes run different versions of Lockstep: 0.1.0 on alpha, beta; 0.2.0 on gamma",
  ]);
  assert.deepEqual(status.virtualServers[0]?.candidates, ["gamma"]);
});

test("a quarantine that is over keeps nobody out", () => {
  const members = [member("alpha"), member("beta", { quarantinedUntil: 2000 }), member("gamma")];
  assert.equal(judgeCluster(snapshot({ members })).nodes[1]?.state, "quarantined");
  assert.equal(judgeCluster(snapshot({ members, now: 2000 })).nodes[1]?.state, "up");
});

let written = 0;
const entry = (node: string, at: number, what: string, token: number | null): HistoryEntry => ({
  ...{ node, number: ++written, at, server: "ORDERS", token, what, detail: "" },
});

const HISTORY = [
  ...[entry("alpha", 0, "took", 1), entry("alpha", 5, "online", 1)],
  ...[entry("alpha", 100, "offline-begins", 1), entry("alpha", 120, "gave-back", 1)],
  ...[entry("beta", 121, "took", 2), entry("beta", 150, "online", 2)],
  ...[entry("beta", 500, "lost", 2), entry("alpha", 3000, "took", 3), entry("alpha", 3100, "online", 3)],
];

test("moves that are over are found in the history, the planned apart from the others", () => {
  assert.deepEqual(
    findPassedMoves(HISTORY, "ORDERS").map(({ from, to, token, isPlanned, outageMs }) => [
      ...[from, to, token, isPlanned, outageMs],
    ]),
    [
      ["alpha", "beta", 2, true, 50],
      ["beta", "alpha", 3, false, 2600],
    ],
  );
});

test("a prediction names target, verdicts and steps in order, and rests its outage on earlier moves alone", () => {
  const known = predictMove(snapshot(), ORDERS, HISTORY, null);
  assert.deepEqual([known.from, known.to, known.refusal], ["alpha", "beta", null]);
  assert.deepEqual(known.outage, { ms: 50, minMs: 50, maxMs: 50, basis: "1 earlier planned move to beta" });
  assert.deepEqual(known.steps, [
    "beta: says that it is ready (store, guard, settings), else nothing stops",
    "alpha: [service] (generic-service) goes offline",
    "alpha: [address] (ip-address) goes offline",
    "alpha: gives the lease back, beta next",
    "beta: takes the lease with the next token",
    "beta: lays down the settings and verifies the configuration file",
    "beta: [address] (ip-address) comes online",
    "beta: [service] (generic-service) comes online",
  ]);
  assert.equal(predictMove(snapshot(), ORDERS, [], null).outage.ms, null);
  assert.match(predictMove(snapshot(), ORDERS, HISTORY, "gamma").outage.basis, /none of them to gamma/);
});

test("a move that cannot be is refused in the words of the placement", () => {
  const reports = new Map(snapshot().reports).set(
    "beta",
    report("beta", { configHashes: { ORDERS: OTHER_HASH } }),
  );
  const refused = predictMove(snapshot({ reports }), ORDERS, [], "beta");
  assert.equal(refused.to, null);
  assert.match(refused.refusal ?? "", /^beta cannot own it: its configuration is bbbb/);
  assert.deepEqual(
    [refused.fault?.code, refused.fault?.found],
    ["CONFIG_DIFFERS", "beta its configuration is bbbbbbbbbbbb, the cluster's aaaaaaaaaaaa"],
  );
  assert.equal(predictMove(snapshot(), ORDERS, [], "alpha").refusal, "alpha owns it already");
  assert.match(
    predictMove(snapshot({ up: new Set(["alpha"]) }), ORDERS, [], null).refusal ?? "",
    /no other node can own it/,
  );
});

test("each reason for which nothing is moved has a code of its own", () => {
  const members = [
    member("alpha"),
    member("beta", { isPaused: true }),
    member("gamma", { quarantinedUntil: 99 }),
  ];
  const reports = new Map(snapshot().reports).set("gamma", report("gamma", { configHashes: {} }));
  const elsewhere = {
    ...ORDERS,
    resources: ORDERS.resources.map((each) => ({
      ...each,
      policy: { ...each.policy, possibleOwners: ["alpha"] },
    })),
  };
  const cases = [
    [{}, { ...ORDERS, isEnabled: false }, "beta", "VIRTUAL_SERVER_DISABLED"],
    [{}, { ...ORDERS, inMaintenance: true }, "beta", "VIRTUAL_SERVER_IN_MAINTENANCE"],
    [{}, { ...ORDERS, wanted: "offline" as const }, null, "VIRTUAL_SERVER_OFFLINE"],
    [{}, ORDERS, "alpha", "ALREADY_OWNER"],
    [{ up: new Set(["alpha"]) }, ORDERS, "beta", "NODE_DOWN"],
    [{ up: new Set(["alpha"]) }, ORDERS, null, "NO_CANDIDATE"],
    [{ members }, ORDERS, "beta", "NODE_PAUSED"],
    [{ members, now: 10 }, ORDERS, "gamma", "NODE_QUARANTINED"],
    [{ servers: [elsewhere] }, elsewhere, "beta", "NODE_NOT_POSSIBLE"],
    [{ reports }, ORDERS, "gamma", "CONFIG_UNREPORTED"],
  ] as const;
  for (const [changes, definition, to, code] of cases) {
    const prediction = predictMove(snapshot(changes), definition, [], to);
    assert.deepEqual([prediction.to, prediction.asked, prediction.fault?.code], [null, to, code]);
    const refused = refusedMove(prediction);
    assert.deepEqual([refused.code, refused.hint], [code, prediction.fault?.hint]);
    assert.match(refused.hint ?? "", /\w{3}/);
    assert.ok(
      refused.faults.every(({ where }) => to === null || where === to),
      "of the node alone that was asked for",
    );
  }
});
