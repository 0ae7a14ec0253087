import assert from "node:assert/strict";
import { test } from "node:test";
import { CLUSTER_DEFINITION, DEFAULT_VIRTUAL_SERVER } from "./cluster-documents.ts";
import { succession } from "./cluster-succession.ts";
import type { ClusterMember, NodeReport, VirtualServerDefinition } from "./cluster-types.ts";
import type { LeaseRecord } from "./lease-types.ts";

const NODES = ["beta", "gamma"];
const free: LeaseRecord = { node: null, instance: "alpha#1", token: 1, write: 0, next: null };

/** Who is first for one of these, which are free, as beta sees it that is taking some of them. */
function firstOf(names: readonly string[]) {
  const cluster = CLUSTER_DEFINITION.parse('{"format":"lockstep-cluster/1","name":"c","votes":[]}');
  assert.ok(cluster.ok);
  const server = (name: string): VirtualServerDefinition => ({ ...DEFAULT_VIRTUAL_SERVER, name });
  return (name: string, taking: readonly string[]) =>
    succession(
      {
        ...{ node: "beta", instance: "beta#1", now: 0, hour: 12, cluster: cluster.value, up: new Set(NODES) },
        members: new Map(
          NODES.map((node): [string, ClusterMember] => [
            node,
            { node, address: "127.0.0.1:1", isPaused: false, exits: [], quarantinedUntil: null },
          ]),
        ),
        reports: new Map(
          NODES.map((node): [string, NodeReport] => [
            node,
            {
              ...{
                node,
                instance: `${node}#1`,
                beat: 1,
                version: "1",
                configHashes: {},
                revisions: {},
                at: 0,
              },
              ...{ measured: { stopMs: 0, guardDelayMs: 0, callMs: 0 }, servers: {} },
            },
          ]),
        ),
        servers: new Map(names.map((each) => [each, server(each)])),
        ...{ orders: new Map(), failovers: new Map(), commitments: new Map(), failedHere: new Set() },
        leases: new Map(names.map((each) => [each, free])),
        taking: new Set(taking),
      },
      server(name),
    ).candidates[0]?.node;
}

test("what falls one after the other is spread as well: what is being taken is load before anybody sees it", () => {
  const first = firstOf(["ONE", "TWO"]);
  assert.deepEqual([first("ONE", []), first("TWO", [])], ["beta", "gamma"]);
  assert.deepEqual([first("ONE", ["TWO"]), first("TWO", ["TWO"])], ["gamma", "gamma"]);
});

test("what fell together stays spread as it was while it is being taken", () => {
  const names = ["A", "B", "C", "D"];
  const first = firstOf(names);
  const spread = ["beta", "gamma", "beta", "gamma"];
  for (const taking of [[], ["A", "C"]])
    assert.deepEqual(
      names.map((name) => first(name, taking)),
      spread,
    );
});
