import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import {
  CLUSTER_DEFINITION,
  CLUSTER_MEMBER,
  CLUSTER_ORDER,
  DEFAULT_VIRTUAL_SERVER,
  HISTORY_ENTRY,
  VIRTUAL_SERVER,
} from "./cluster-documents.ts";
import { findClusterFaults, findLeaseFaults, findServerFaults } from "./cluster-faults.ts";
import type { VirtualServerDefinition } from "./cluster-types.ts";
import type { ParsedDocument } from "./document-shape.ts";
import { DEFAULT_LEASE_TIMES } from "./lease-proof.ts";
import { DEFAULT_RESOURCE_POLICY } from "./resource-policy.ts";

const value = <T>(parsed: ParsedDocument<T>): T => {
  assert.ok(parsed.ok, JSON.stringify(parsed));
  return parsed.value;
};
const faults = (parsed: ParsedDocument<unknown>) =>
  parsed.ok ? [] : parsed.faults.map(({ at, problem }) => `${at}: ${problem}`);

const name = fc.stringMatching(/^[a-z][a-z0-9]{0,8}$/);
const server: fc.Arbitrary<VirtualServerDefinition> = fc.record({
  name,
  isEnabled: fc.boolean(),
  wanted: fc.constantFrom("online", "offline"),
  inMaintenance: fc.boolean(),
  resources: fc.array(
    fc.record({
      name,
      type: fc.constantFrom("ip-address", "generic-service"),
      settings: fc.dictionary(
        fc.oneof(name, fc.constantFrom("__proto__", "constructor")),
        fc.oneof(fc.string(), fc.integer(), fc.boolean(), fc.array(fc.string(), { maxLength: 3 })),
        { maxKeys: 4 },
      ),
      policy: fc.constant(DEFAULT_RESOURCE_POLICY),
    }),
    { maxLength: 4 },
  ),
  preferredOwners: fc.array(name, { maxLength: 3 }),
  antiAffinity: fc.array(name, { maxLength: 3 }),
  weight: fc.integer({ min: 0, max: 100 }),
  failback: fc.constant({ allowed: true, window: { fromHour: 22, toHour: 4 } }),
  failover: fc.constant({ threshold: null, periodMs: 1000 }),
  lease: fc.constantFrom(null, DEFAULT_LEASE_TIMES),
  lockDelayMs: fc.nat(1000),
  failsafe: fc.boolean(),
  useNetworkName: fc.boolean(),
  checkpoints: fc.constant(["/var/lib/x"]),
  config: fc.constantFrom(null, { path: "/etc/x", hash: "a".repeat(64) }),
});

test("what is written is read back, and the order of members does not change the text", () => {
  fc.assert(
    fc.property(server, (definition) => {
      const text = VIRTUAL_SERVER.format(definition);
      const read = value(VIRTUAL_SERVER.parse(text));
      assert.deepEqual(read, JSON.parse(JSON.stringify(definition)));
      const turned = Object.fromEntries(Object.entries(read).reverse()) as unknown as VirtualServerDefinition;
      assert.equal(VIRTUAL_SERVER.format(turned), text);
    }),
  );
});

test("no text makes a parser throw, and a text that is refused says why", () => {
  fc.assert(
    fc.property(fc.oneof(fc.string(), fc.json()), (text) => {
      for (const kind of [CLUSTER_DEFINITION, CLUSTER_MEMBER, VIRTUAL_SERVER, CLUSTER_ORDER, HISTORY_ENTRY]) {
        const parsed = kind.parse(text);
        assert.ok(parsed.ok || parsed.faults.length > 0);
      }
    }),
  );
});

test("policies and times that are left out are those of Windows, and the proven ones", () => {
  const read = value(
    VIRTUAL_SERVER.parse(
      '{"format":"lockstep-server/1","name":"APP","resources":[{"name":"a","type":"mount","policy":{"restartThreshold":1}}],"lease":{"trustMs":1700}}',
    ),
  );
  assert.deepEqual(read, {
    ...DEFAULT_VIRTUAL_SERVER,
    name: "APP",
    resources: [
      {
        name: "a",
        type: "mount",
        settings: {},
        policy: { ...DEFAULT_RESOURCE_POLICY, restartThreshold: 1 },
      },
    ],
    lease: { ...DEFAULT_LEASE_TIMES, trustMs: 1700 },
  });
});

test("every fault is named with its place", () => {
  assert.deepEqual(
    faults(
      VIRTUAL_SERVER.parse(
        '{"format":"lockstep-server/1","name":"A P","wantd":1,"resources":[{"name":"x","type":"disk","settings":{"a":null}}],"weight":"1","failback":{"allowed":true,"window":{"fromHour":24}}}',
      ),
    ),
    [
      "wantd: is not known here",
      'name: must be a name of letters, digits and hyphens, at most 63, found "A P"',
      'resources[0].type: must be one of ip-address, network-name, generic-service, file-share, mount, ocf, found "disk"',
      "resources[0].settings.a: must be a text, a number, true or false, or a list of texts",
      'weight: must be a number from 0 to 1000000, found "1"',
      "failback.window.fromHour: must be a whole number from 0 to 23, found 24",
      "failback.window.toHour: is missing",
    ],
  );
  assert.deepEqual(faults(CLUSTER_ORDER.parse('{"format":"lockstep-order/2"}')), [
    ": expected lockstep-order/1, found lockstep-order/2",
  ]);
});

test("a definition is held against the cluster and against itself", () => {
  const resource = (name: string, needs: string[][], possibleOwners: string[] | null = null) =>
    ({
      name,
      type: "ocf",
      settings: {},
      policy: { ...DEFAULT_RESOURCE_POLICY, dependency: needs, possibleOwners, pendingMs: 0 },
    }) as const;
  const found = findServerFaults(
    {
      ...DEFAULT_VIRTUAL_SERVER,
      name: "ALPHA",
      resources: [resource("a", [["b"]], ["alpha"]), resource("b", [["a"], ["c"]], ["beta", "delta"])],
      preferredOwners: ["gamma", "alpha", "alpha"],
    },
    ["alpha", "beta"],
    ["Alpha"],
  ).map(({ at, problem }) => `${at}: ${problem}`);
  assert.deepEqual(found, [
    "name: alpha is the name of a node",
    "name: differs from the virtual server Alpha by case alone",
    "resources[0].policy.pendingMs: must be more than zero",
    "resources[1].policy.pendingMs: must be more than zero",
    "resources[1].policy.possibleOwners: delta is no node of this cluster",
    "resources[1].policy.dependency: needs [c], which is no resource of this virtual server",
    "resources[0].policy.dependency: needs itself: [a] needs [b] needs [a]",
    "resources: no node can own every resource: the lists of possible owners have none in common",
    "preferredOwners: gamma is no node of this cluster",
    "preferredOwners: alpha is there twice",
  ]);
  assert.deepEqual(
    findClusterFaults(
      {
        ...value(CLUSTER_DEFINITION.parse('{"format":"lockstep-cluster/1","name":"prod","votes":[]}')),
        votes: [
          { name: "m", onNode: "zeta" },
          { name: "m", onNode: null },
        ],
      },
      ["alpha"],
    ).map(({ problem }) => problem),
    ["zeta is no node of this cluster", "m votes twice"],
  );
});

test("times that are not safe are told term by term with their limit, and what a node needs counts", () => {
  assert.deepEqual(findLeaseFaults(DEFAULT_LEASE_TIMES), []);
  const broken = findLeaseFaults({ ...DEFAULT_LEASE_TIMES, trustMs: 2900 });
  assert.deepEqual(
    broken.map(({ at }) => at),
    ["trustMs", "clockError", "guardDelayMs", "stopMs", "waitMs"],
  );
  assert.equal(broken[0]?.problem, "safety: is 2900, at most 2294.705 would do (slack -605.295)");
  const needs = (stopMs: number, guardDelayMs: number) =>
    findLeaseFaults(DEFAULT_LEASE_TIMES, [{ node: "beta", stopMs, guardDelayMs, callMs: 1 }]);
  // More than the term says, and the waiting time leaves room for it: 1801.8 + 200 + 995 against 2997.
  assert.deepEqual(needs(995, 10), []);
  assert.deepEqual(needs(10, 695), []);
  assert.deepEqual(needs(995.3, 10), [
    {
      at: "stopMs",
      problem: "beta was measured to need 996 ms, the lease allows 500; waitMs=3001 stopMs=996 would do",
    },
  ]);
  assert.deepEqual(
    needs(800, 400).map(({ at }) => at),
    ["stopMs", "guardDelayMs"],
  );
  const mended = { ...DEFAULT_LEASE_TIMES, waitMs: 3001, stopMs: 996 };
  assert.deepEqual(
    findLeaseFaults(mended, [{ node: "beta", stopMs: 995.3, guardDelayMs: 10, callMs: 1 }]),
    [],
  );
});
