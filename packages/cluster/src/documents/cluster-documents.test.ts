import assert from "node:assert/strict";
import { test } from "node:test";
import { type ClusterMember, DEFAULT_LEASE_TIMES, DEFAULT_VIRTUAL_SERVER } from "@lockstep/core";
import { isLockstepError } from "@lockstep/protocol/wire";
import { SimDocumentStore } from "@lockstep/testing";
import { at, CLUSTER, historyAt, MEMBERS, SERVERS } from "./addresses.ts";
import { ClusterDocuments } from "./cluster-documents.ts";
import { checkServer } from "./definition-check.ts";

/** Documents in memory; `before` runs before each write, as somebody else's chance to be faster. */
function open(before: (store: SimDocumentStore) => void = () => {}) {
  const store = new SimDocumentStore();
  const documents = new ClusterDocuments({
    read: async (key) => store.read(key),
    list: async (prefix) => store.list(prefix),
    write: async (key, expected, text) => {
      before(store);
      return store.write(key, expected, text);
    },
    watch: async () => {},
  });
  return { store, documents };
}

const member = (node: string): ClusterMember => ({
  node,
  address: "127.0.0.1:1",
  isPaused: false,
  exits: [],
  quarantinedUntil: null,
});

test("a change starts anew from what somebody else wrote meanwhile, and none is lost", async () => {
  const address = at(MEMBERS, "alpha");
  let others = 3;
  const { documents } = open((store) => {
    if (others === 0) return;
    others -= 1;
    const present = store.read(address.key);
    const parsed = address.kind.parse(present?.text ?? "");
    const value = parsed.ok ? parsed.value : member("alpha");
    store.write(
      address.key,
      present?.revision ?? 0,
      address.kind.format({ ...value, exits: [...value.exits, others] }),
    );
  });
  const changed = await documents.change(address, (present) => ({
    ...(present ?? member("alpha")),
    isPaused: true,
  }));
  assert.deepEqual(changed, { ...member("alpha"), isPaused: true, exits: [2, 1, 0] });
  assert.deepEqual((await documents.members()).found.get("alpha"), changed);
});

test("the same value writes nothing, null deletes, and who is never first is told so", async () => {
  let writes = 0;
  const { documents } = open(() => {
    writes += 1;
  });
  const address = at(MEMBERS, "alpha");
  await documents.change(address, () => member("alpha"));
  await documents.change(address, (present) => present);
  assert.equal(writes, 1);
  assert.equal(await documents.change(address, () => null), null);
  assert.equal(await documents.read(address), null);
  const busy = open((store) => {
    store.write(address.key, store.read(address.key)?.revision ?? 0, address.kind.format(member("alpha")));
  });
  await assert.rejects(
    busy.documents.change(address, () => member("beta")),
    { code: "CLUSTER_CHANGED" },
  );
});

test("a document that cannot be read hides no other, and is named where it is asked for", async () => {
  const { store, documents } = open();
  store.write("member/alpha", 0, MEMBERS.kind.format(member("alpha")));
  store.write("member/beta", 0, '{"format":"lockstep-member/1"}');
  const { found, broken } = await documents.members();
  assert.deepEqual([...found.keys()], ["alpha"]);
  assert.deepEqual(
    broken.map(({ key }) => key),
    ["member/beta"],
  );
  await assert.rejects(documents.read(at(MEMBERS, "beta")), (error) => {
    assert.ok(isLockstepError(error, "CLUSTER_DOCUMENT_INVALID"));
    assert.equal(error.faults[0]?.where, "member/beta: node");
    return true;
  });
  await assert.rejects(documents.readCluster(), { code: "CLUSTER_UNKNOWN" });
  assert.equal(await documents.remove("member/beta"), true);
  assert.equal(await documents.remove("member/beta"), false);
});

test("the history is one timeline of all nodes", async () => {
  const { documents } = open();
  for (const [node, number, when] of [
    ["beta", 1, 5],
    ["alpha", 9, 5],
    ["alpha", 10, 5],
    ["alpha", 11, 4],
  ] as const)
    await documents.change(historyAt(node, number), () => ({
      node,
      number,
      at: when,
      server: node === "beta" ? null : "APP",
      token: 1,
      what: "took",
      detail: "",
    }));
  const names = (entries: readonly { node: string; number: number }[]) =>
    entries.map(({ node, number }) => `${node} ${number}`);
  assert.deepEqual(names(await documents.history()), ["alpha 11", "alpha 9", "alpha 10", "beta 1"]);
  assert.deepEqual(names(await documents.history("APP")), ["alpha 11", "alpha 9", "alpha 10"]);
});

test("a definition is refused with every fault, and with times that are not safe", () => {
  const parsed = CLUSTER.kind.parse('{"format":"lockstep-cluster/1","name":"c","votes":[]}');
  assert.ok(parsed.ok);
  const surroundings = {
    cluster: parsed.value,
    nodes: ["alpha"],
    servers: [],
    reports: [],
  };
  const definition = { ...DEFAULT_VIRTUAL_SERVER, name: "APP" };
  checkServer(definition, surroundings);
  assert.throws(() => checkServer({ ...definition, preferredOwners: ["x"] }, surroundings), {
    code: "VIRTUAL_SERVER_INVALID",
  });
  assert.throws(
    () => checkServer({ ...definition, lease: { ...DEFAULT_LEASE_TIMES, waitMs: 100 } }, surroundings),
    { code: "LEASE_TIMES_UNSAFE" },
  );
  assert.equal(SERVERS.kind.parse(SERVERS.kind.format(definition)).ok, true);
  assert.equal(CLUSTER.key, "cluster");
});
