import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { type ClusterSituation, decideCluster, type ServerDecision } from "./cluster-decision.ts";
import { CLUSTER_DEFINITION, DEFAULT_VIRTUAL_SERVER } from "./cluster-documents.ts";
import type { ClusterMember, NodeReport, VirtualServerDefinition } from "./cluster-types.ts";
import { lookAtReports, startView } from "./cluster-view.ts";
import { WRITTEN_BY_GUARD } from "./lease-guard.ts";
import type { LeaseRecord } from "./lease-types.ts";

const NODES = ["alpha", "beta", "gamma", "delta"];
const NOW = 1_000_000;
const HASHES = { old: "a".repeat(64), new: "b".repeat(64) };

/** The cluster as everybody sees it; who looks is added. */
type Shared = Omit<ClusterSituation, "node" | "instance" | "taking" | "commitments" | "failedHere">;

const cluster = (() => {
  const parsed = CLUSTER_DEFINITION.parse(
    '{"format":"lockstep-cluster/1","name":"c","votes":[{"name":"m1","onNode":null},{"name":"m2","onNode":null},{"name":"m3","onNode":null}]}',
  );
  assert.ok(parsed.ok);
  return parsed.value;
})();

const member = (node: string, more: Partial<ClusterMember> = {}): ClusterMember => ({
  node,
  address: "127.0.0.1:1",
  isPaused: false,
  exits: [],
  quarantinedUntil: null,
  ...more,
});

const report = (node: string, configHashes: Record<string, string | null> = {}): NodeReport => ({
  node,
  instance: `${node}#1`,
  beat: 1,
  version: "1",
  configHashes,
  revisions: {},
  measured: { stopMs: 0, guardDelayMs: 0, callMs: 0 },
  servers: {},
  at: 0,
});

const owned = (node: string | null, instance = `${node}#1`, next: string | null = null): LeaseRecord => ({
  node,
  instance,
  token: 1,
  write: 1,
  next,
});

const server = (name: string, more: Partial<VirtualServerDefinition> = {}): VirtualServerDefinition => ({
  ...DEFAULT_VIRTUAL_SERVER,
  name,
  ...more,
});

const byName = <T extends { readonly name: string }>(items: readonly T[]) =>
  new Map(items.map((each) => [each.name, each]));

function shared(more: Partial<Shared> = {}): Shared {
  return {
    now: NOW,
    hour: 12,
    cluster,
    members: new Map(NODES.map((node) => [node, member(node)])),
    reports: new Map(NODES.map((node) => [node, report(node)])),
    up: new Set(NODES),
    servers: byName([server("APP")]),
    orders: new Map(),
    failovers: new Map(),
    leases: new Map([["APP", null]]),
    ...more,
  };
}

const as = (node: string, situation: Shared, more: Partial<ClusterSituation> = {}): ClusterSituation => ({
  node,
  instance: `${node}#1`,
  taking: new Set(),
  commitments: new Map(),
  failedHere: new Set(),
  ...situation,
  ...more,
});

function decide(
  node: string,
  situation: Shared,
  more: Partial<ClusterSituation> = {},
  name = "APP",
): ServerDecision {
  const decision = decideCluster(as(node, situation, more)).servers.get(name);
  assert.ok(decision !== undefined);
  return decision;
}

/** What each node that is up wishes. */
const decisionsOf = (situation: Shared, name = "APP") =>
  new Map([...situation.up].map((node) => [node, decide(node, situation, {}, name)]));

const situations: fc.Arbitrary<Shared> = fc
  .record({
    up: fc.subarray(NODES, { minLength: 2 }),
    nodes: fc.array(
      fc.record({
        isPaused: fc.constantFrom(false, false, true),
        quarantinedUntil: fc.constantFrom(null, NOW - 1, NOW + 1),
        hash: fc.constantFrom("old", "new", null),
      }),
      { minLength: NODES.length, maxLength: NODES.length },
    ),
    servers: fc.array(
      fc.record({
        isEnabled: fc.constantFrom(true, true, true, false),
        wanted: fc.constantFrom("online", "online", "online", "offline"),
        inMaintenance: fc.constantFrom(false, false, true),
        preferredOwners: fc.shuffledSubarray(NODES),
        antiAffinity: fc.subarray(["db", "web"]),
        weight: fc.integer({ min: 0, max: 5 }),
        hash: fc.constantFrom(null, HASHES.new),
        owner: fc.constantFrom(null, ...NODES),
        isStale: fc.constantFrom(false, false, true),
        allowed: fc.boolean(),
        order: fc.option(
          fc.record({ number: fc.integer({ min: 1, max: 3 }), to: fc.constantFrom(null, ...NODES) }),
        ),
        lastOrder: fc.integer({ min: 0, max: 3 }),
        possible: fc.option(fc.subarray(NODES)),
      }),
      { minLength: 1, maxLength: 5 },
    ),
    hour: fc.constantFrom(0, 3, 4, 12, 21, 22, 23),
  })
  .map(({ up, nodes, servers, hour }) => {
    const names = servers.map((_, index) => `VS${index}`);
    const hashOf = (node: number) => {
      const hash = nodes[node]?.hash ?? null;
      return hash === null ? null : HASHES[hash];
    };
    return shared({
      hour,
      up: new Set(up),
      members: new Map(
        NODES.map((node, index) => {
          const { isPaused, quarantinedUntil } = nodes[index] ?? { isPaused: false, quarantinedUntil: null };
          return [node, member(node, { isPaused, quarantinedUntil })];
        }),
      ),
      reports: new Map(
        NODES.map((node, index) => [
          node,
          report(node, Object.fromEntries(names.map((name) => [name, hashOf(index)]))),
        ]),
      ),
      servers: byName(
        servers.map(
          (
            {
              hash,
              possible,
              allowed,
              isEnabled,
              wanted,
              inMaintenance,
              preferredOwners,
              antiAffinity,
              weight,
            },
            index,
          ) =>
            server(`VS${index}`, {
              isEnabled,
              wanted,
              inMaintenance,
              preferredOwners,
              antiAffinity,
              weight,
              config: { path: "/etc/x", hash },
              failback: { allowed, window: { fromHour: 22, toHour: 4 } },
              resources:
                possible === null
                  ? []
                  : [
                      {
                        name: "r",
                        type: "mount",
                        settings: {},
                        policy: { ...POLICY, possibleOwners: possible },
                      },
                    ],
            }),
        ),
      ),
      leases: new Map(
        servers.map(({ owner, isStale }, index) => [
          `VS${index}`,
          owner === null ? owned(null, "x") : owned(owner, isStale ? "before" : `${owner}#1`),
        ]),
      ),
      orders: new Map(
        servers.flatMap(({ order }, index) =>
          order === null ? [] : [[`VS${index}`, { ...order, kind: "move", by: "me", at: 0 }] as const],
        ),
      ),
      failovers: new Map(servers.map(({ lastOrder }, index) => [`VS${index}`, { at: [], lastOrder }])),
    });
  });

const POLICY = {
  dependency: [],
  possibleOwners: null,
  looksAliveMs: 1,
  isAliveMs: 1,
  pendingMs: 1,
  restartAction: "restart",
  restartThreshold: 1,
  restartPeriodMs: 1,
  restartDelayMs: 1,
  retryMs: null,
} as const;

const RUNS = { numRuns: 600 };

test("every node that sees the same computes one order, in which nobody stands who may not take it", () => {
  fc.assert(
    fc.property(situations, (situation) => {
      for (const [name, { isEnabled, wanted, inMaintenance, config, resources }] of situation.servers) {
        const decisions = decisionsOf(situation, name);
        const orders = new Set(
          [...decisions.values()].map(({ succession }) =>
            succession.candidates.map(({ node }) => node).join(),
          ),
        );
        assert.equal(orders.size, 1);
        for (const [node, { wish, isOwnedHere }] of decisions) {
          if (wish.kind !== "take") continue;
          assert.ok(isEnabled && wanted === "online" && !inMaintenance);
          const own = situation.members.get(node);
          assert.ok(isOwnedHere || own?.isPaused === false);
          assert.ok((own?.quarantinedUntil ?? 0) <= NOW);
          const hash = situation.reports.get(node)?.configHashes[name];
          assert.ok(config?.hash == null || hash === config.hash);
          assert.ok(resources.every(({ policy }) => policy.possibleOwners?.includes(node) !== false));
        }
      }
    }),
    RUNS,
  );
});

test("exactly one goes first for what is free, and its owner alone while it lives", () => {
  fc.assert(
    fc.property(situations, (situation) => {
      for (const [name, { isEnabled, wanted, inMaintenance }] of situation.servers) {
        if (!isEnabled || wanted === "offline" || inMaintenance) continue;
        const decisions = [...decisionsOf(situation, name)];
        const { candidates, isOwnerAlive, owner } = decisions[0]?.[1].succession ?? assert.fail();
        const first = decisions.filter(
          ([, { wish, isOwnedHere }]) => wish.kind === "take" && wish.delayMs === 0 && !isOwnedHere,
        );
        assert.equal(first.length, candidates.length === 0 ? 0 : 1);
        const delays = decisions.flatMap(([, { wish, isOwnedHere }]) =>
          wish.kind === "take" && !isOwnedHere ? [wish.delayMs] : [],
        );
        assert.equal(new Set(delays).size, delays.length);
        for (const [node, { isOwnedHere }] of decisions)
          assert.equal(isOwnedHere, isOwnerAlive && node === owner);
        assert.ok(!isOwnerAlive || !candidates.some(({ node }) => node === owner));
      }
    }),
    RUNS,
  );
});

test("an order is claimed by one node at most, and never again once it is done", () => {
  let claimed = 0;
  fc.assert(
    fc.property(situations, (situation) => {
      for (const [name, order] of situation.orders) {
        const claims = [...decisionsOf(situation, name).values()].flatMap(({ claim }) => claim ?? []);
        assert.ok(claims.length <= 1);
        const [claim] = claims;
        if (order.number <= (situation.failovers.get(name)?.lastOrder ?? 0)) assert.equal(claim, undefined);
        if (claim === undefined) continue;
        claimed += 1;
        assert.equal(claim.number, order.number);
        const after = {
          ...situation,
          failovers: new Map([...situation.failovers, [name, { at: [], lastOrder: claim.number }] as const]),
        };
        for (const decision of decisionsOf(after, name).values()) assert.equal(decision.claim, null);
      }
    }),
    RUNS,
  );
  assert.ok(claimed > 100, `${claimed}`);
});

test("nothing goes back outside its window, without leave, or to anything but a better owner", () => {
  let went = 0;
  fc.assert(
    fc.property(situations, (situation) => {
      for (const [name, { failback, preferredOwners }] of situation.servers)
        for (const [node, decision] of decisionsOf(situation, name)) {
          if (decision.failback === null) continue;
          went += 1;
          assert.ok(failback.allowed && decision.isOwnedHere);
          assert.ok(situation.hour >= 22 || situation.hour < 4);
          const [there, here] = [preferredOwners.indexOf(decision.failback), preferredOwners.indexOf(node)];
          assert.ok(there >= 0 && (here < 0 || there < here));
          assert.ok(situation.up.has(decision.failback));
        }
    }),
    { numRuns: 2_000 },
  );
  assert.ok(went > 0);
});

test("what must be apart is apart while there is another candidate, and the lost node's share is spread", () => {
  fc.assert(
    fc.property(situations, (situation) => {
      for (const name of situation.servers.keys()) {
        const [decision] = decisionsOf(situation, name).values();
        const { candidates } = decision?.succession ?? assert.fail();
        const apart = candidates.findIndex(({ together }) => together.length === 0);
        if (apart >= 0) assert.equal(candidates[0]?.together.length, 0);
      }
    }),
    RUNS,
  );
  const four = ["A", "B", "C", "D"].map((name) => server(name));
  const lost = shared({
    members: new Map(["alpha", "beta", "gamma"].map((node) => [node, member(node)])),
    up: new Set(["alpha", "beta", "gamma"]),
    servers: byName(four),
    leases: new Map(four.map(({ name }) => [name, owned("alpha")])),
  });
  const goes = four.map(({ name }) => decide("beta", lost, {}, name).succession.candidates[0]?.node);
  assert.deepEqual(goes, ["beta", "gamma", "beta", "gamma"]);
});

test("a node that was paused keeps what it has and takes nothing anew, also after a reboot", () => {
  const paused = shared({
    members: new Map(NODES.map((node) => [node, member(node, { isPaused: node === "alpha" })])),
    leases: new Map([["APP", owned("alpha")]]),
  });
  assert.equal(decide("alpha", paused).wish.kind, "take");
  const rebooted = { ...paused, leases: new Map([["APP", owned("alpha", "alpha#0")]]) };
  assert.deepEqual(decide("alpha", rebooted).wish, { kind: "keep" });
  assert.deepEqual(decide("beta", rebooted).wish, { kind: "take", delayMs: 0, force: false });
});

test("what runs stays though its node's configuration differs now, and says so", () => {
  const differs = shared({
    servers: byName([server("APP", { config: { path: "/x", hash: HASHES.new } })]),
    reports: new Map(NODES.map((node) => [node, report(node, { APP: HASHES.old })])),
    leases: new Map([["APP", owned("alpha")]]),
  });
  const { wish, why } = decide("alpha", differs);
  assert.deepEqual(wish, { kind: "keep" });
  assert.match(
    why,
    /stays here although alpha its configuration is aaaaaaaaaaaa, the cluster's bbbbbbbbbbbb/,
  );
  assert.match(decide("beta", differs).why, /not here: beta its configuration/);
  const warned = { ...differs, cluster: { ...cluster, configPolicy: "warn" as const } };
  assert.equal(decide("beta", warned).wish.kind, "take");
});

test("orders: a move is the owner's to begin, a failover its target's, and what cannot be is said once", () => {
  const order = (kind: "move" | "failover", to: string | null) =>
    new Map([["APP", { number: 1, kind, to, by: "me", at: 0 }]]);
  const running = shared({ leases: new Map([["APP", owned("alpha")]]), orders: order("move", "gamma") });
  assert.deepEqual(decide("alpha", running).claim, {
    number: 1,
    commitment: { kind: "leave", next: "gamma" },
    triesAgain: false,
    outcome: "order 1 (move): moves to gamma",
  });
  assert.equal(decide("gamma", running).claim, null);
  // Committed, it leaves; given back, it is done, and the target is who takes it.
  const commitments = new Map([["APP", { kind: "leave", next: "gamma" }]] as const);
  assert.deepEqual(decide("alpha", running, { commitments }).wish, { kind: "leave", next: "gamma" });
  const given = { ...running, leases: new Map([["APP", owned(null, "alpha#1", "gamma")]]) };
  assert.equal(decide("alpha", given, { commitments }).isCommitmentDone, true);

  const outcome = (to: string | null, ...paused: readonly string[]) => {
    const members = new Map(NODES.map((node) => [node, member(node, { isPaused: paused.includes(node) })]));
    return decide("alpha", { ...running, members, orders: order("move", to) }).claim?.outcome;
  };
  const givenUp = "order 1 (move): given up";
  assert.equal(outcome("gamma", "gamma"), `${givenUp}: gamma takes nothing (NODE_PAUSED)`);
  assert.equal(
    outcome(null, "beta", "gamma", "delta"),
    `${givenUp}: no other node can own it (NO_CANDIDATE)`,
  );
  assert.equal(outcome("alpha"), "order 1 (move): it is on alpha already");
  assert.deepEqual(decide("alpha", { ...running, orders: order("move", null) }).claim?.commitment, {
    kind: "leave",
    next: "beta",
  });

  const twoVotes = { ...cluster, votes: [{ name: "m", onNode: "alpha" }] };
  const dead = {
    ...running,
    cluster: twoVotes,
    up: new Set(["beta", "gamma", "delta"]),
    orders: order("failover", null),
  };
  assert.deepEqual(decide("beta", dead).claim?.commitment, { kind: "force" });
  assert.equal(decide("gamma", dead).claim, null);
  const force = new Map([["APP", { kind: "force" }]] as const);
  assert.deepEqual(decide("beta", dead, { commitments: force }).wish, {
    kind: "take",
    delayMs: 0,
    force: true,
  });
  assert.match(
    decide("gamma", { ...dead, orders: order("move", "gamma") }).claim?.outcome ?? "",
    /given up: alpha does not answer; a failover by hand .*\(OWNER_LOST\)$/,
  );
  assert.match(decideCluster(as("beta", dead)).advice ?? "", /spread the votes/);
});

test("who is no member gives up what it has, and who has not seen the lease waits", () => {
  const gone = shared({
    members: new Map([["beta", member("beta")]]),
    leases: new Map([["APP", owned("alpha")]]),
  });
  assert.deepEqual(decide("alpha", gone).wish, { kind: "leave", next: null });
  assert.deepEqual(decide("beta", shared({ leases: new Map() })).wish, { kind: "keep" });
});

test("where it failed a moment ago it is taken after everybody else, and not never", () => {
  const failed = new Set(["APP"]);
  const delays = ["alpha", "beta", "gamma"].map((node) => {
    const { wish } = decide(node, shared(), node === "gamma" ? {} : { failedHere: failed });
    assert.ok(wish.kind === "take" && !wish.force, node);
    return wish.delayMs;
  });
  const [alpha = 0, beta = 0, gamma = 0] = delays;
  assert.ok(gamma < alpha && alpha < beta, delays.join());
});

test("a node is up while its beats grow on our clock, and a store that does not answer makes nobody down", () => {
  const times = { downMs: 3_000, gapMs: 1_000 };
  let view = startView();
  const look = (now: number, beats: Record<string, number>, instance = "1") => {
    const looked = lookAtReports(
      view,
      Object.entries(beats).map(([node, beat]) => ({ node, beat, instance })),
      "alpha",
      now,
      times,
    );
    view = looked.view;
    return looked.changes.map(({ node, isUp }) => `${isUp ? "+" : "-"}${node}`).join();
  };
  // An old report proves nothing; a beat that grows does, and so does another life.
  assert.equal(look(0, { alpha: 1, beta: 7, gamma: 3 }), "+alpha");
  assert.equal(look(1_000, { alpha: 2, beta: 8, gamma: 3 }), "+beta");
  // For an hour nobody could look.
  assert.equal(look(3_600_000, { alpha: 3, beta: 8, gamma: 3 }), "");
  assert.equal(look(3_601_000, { alpha: 4, beta: 8, gamma: 3 }), "");
  assert.equal(look(3_602_000, { alpha: 5, beta: 8, gamma: 3 }), "");
  assert.equal(look(3_603_000, { alpha: 6, beta: 8, gamma: 3 }), "-beta");
  assert.equal(look(3_604_000, { alpha: 7, beta: 0, gamma: 3 }, "2"), "+beta,+gamma");
  assert.equal(look(3_605_000, { alpha: 8, gamma: 3 }, "2"), "-beta");
});

test("a guard that gives the lease back for its dead daemon leaves nobody waiting for that node", () => {
  const serving: NodeReport = {
    ...report("alpha"),
    servers: { APP: { role: "owner", token: 1, resources: {} } },
  };
  const lost = shared({
    leases: new Map([["APP", { ...owned(null, serving.instance), write: WRITTEN_BY_GUARD }]]),
    reports: new Map(NODES.map((node) => [node, node === "alpha" ? serving : report(node)])),
  });
  const first = { kind: "take", delayMs: 0, force: false };
  assert.deepEqual(decide("beta", lost).wish, first);
  // One that lives and gave it back says so next, and is a candidate as before.
  const observing = {
    ...serving,
    servers: { APP: { role: "observing", token: null, resources: {} } },
  } as const;
  const alive = { ...lost, reports: new Map([...lost.reports, ["alpha", observing]]) };
  assert.deepEqual(decide("alpha", alive).wish, first);
  assert.notDeepEqual(decide("beta", alive).wish, first);
  // It knows of itself what it is.
  assert.deepEqual(decide("alpha", lost).wish, first);
  // A daemon that gave it back itself is there, though its last report is older than that.
  const byDaemon = { ...lost, leases: new Map([["APP", owned(null, serving.instance)]]) };
  assert.deepEqual(decide("alpha", byDaemon).wish, first);
  assert.notDeepEqual(decide("beta", byDaemon).wish, first);
});
