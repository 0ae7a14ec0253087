import { after, before, suite, type TestContext, test } from "node:test";
import { type Coordination, openEtcd, openPostgres } from "@lockstep/cluster";
import { systemClock } from "@lockstep/platform";
import { type TestDatabase, usePostgres } from "../support/postgres.ts";
import { COORDINATION_PROMISES } from "./coordination-contract.ts";
import { DOCUMENT_PROMISES } from "./document-contract.ts";
import { CALM_ELECTION, type EtcdCluster, findEtcd, startEtcd } from "./etcd-cluster.ts";
import { simulatedStore } from "./simulated-coordination.ts";

// Far above what is needed: nothing here is about time.
const CALL_MS = 120_000;

function testCoordination(
  title: string,
  skip: string | false,
  open: (t: TestContext) => Promise<Coordination>,
): void {
  suite(`coordination: ${title}`, { skip }, () => {
    for (const { title, hold } of [...COORDINATION_PROMISES, ...DOCUMENT_PROMISES])
      test(title, (t) => hold(() => open(t)));
  });
}

const simulated = simulatedStore();
testCoordination("simulated", false, async () => simulated());

const program = findEtcd();
let etcd: EtcdCluster | null = null;
before(async () => {
  if (program !== null) etcd = await startEtcd(program, null, CALM_ELECTION);
});
after(() => etcd?.stop());

let opened = 0;
testCoordination(
  "etcd, three members",
  program === null && "etcd is not on this machine (Debian package etcd-server)",
  async (t) => {
    const endpoints = etcd?.endpoints ?? [];
    opened += 1;
    // Each node talks to another member first.
    const local = opened % endpoints.length;
    return closeAfter(
      t,
      openEtcd({
        endpoints: [...endpoints.slice(local), ...endpoints.slice(0, local)],
        callMs: CALL_MS,
        clock: systemClock,
      }),
    );
  },
);

const server = usePostgres();
const databases = new WeakMap<TestContext, Promise<TestDatabase>>();
testCoordination("PostgreSQL", false, async (t) => {
  const database = databases.get(t) ?? server.database(t, { empty: true });
  databases.set(t, database);
  const { address, beforeClose } = await database;
  const coordination = await openPostgres({
    connection: address,
    callMs: CALL_MS,
    watchMs: 10,
    clock: systemClock,
  });
  beforeClose(() => coordination.close());
  return coordination;
});

function closeAfter(t: TestContext, coordination: Coordination): Coordination {
  t.after(() => coordination.close());
  return coordination;
}
