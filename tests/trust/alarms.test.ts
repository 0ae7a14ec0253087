import assert from "node:assert/strict";
import { test } from "node:test";
import { makeSecret, signEnrolment, signerOf } from "@lockstep/trust";
import { loadAndSettle, release } from "../hub/support/release.ts";
import { ask } from "../hub/support/requests.ts";
import { startTestHub, type TestHub } from "../hub/support/test-hub.ts";
import { usePostgres } from "../support/postgres.ts";
import { outcome } from "./client-world.ts";
import { withClient } from "./with-client.ts";

/** Alarms that a hub raises of itself, each with its control: where there is no reason for one, there is none. */
const server = usePostgres();

const alarmsOf = async (hub: TestHub) =>
  (await withClient(hub, (client) => client.status())).alarms.map(({ kind, subject, count }) => ({
    kind,
    subject,
    count,
  }));

interface Head {
  readonly epoch: number;
  readonly size: number;
  readonly head: string;
}

async function report(hub: TestHub, id: string, releaseLog: Head | null): Promise<void> {
  const body = {
    ...{ host: "h", directory: `/${id}`, roles: [], packages: [], revision: 1, outcome: "updated" },
    ...{ problem: null, autoUpdate: true, updaterVersion: "0", releaseLog },
  };
  assert.equal((await ask(hub, "PUT", `/v1/installations/${id}`, { body })).status, 204);
}

test("A23: an installation that was shown other releases is the alarm history-differs", async (t) => {
  const hub = await startTestHub(t, server);
  await loadAndSettle(hub, release({ program: "1" }));
  await loadAndSettle(hub, release({ program: "2" }, { version: "2" }));
  const { rows } = await hub.pool.query<Head>(
    `select epoch, index::int as size, encode(head, 'hex') as head from trust_release order by index`,
  );
  const [first, last] = [rows.at(0), rows.at(-1)];
  assert.ok(first !== undefined && last !== undefined && first.size < last.size);
  // The controls: an older head of the same history, the newest one, one that this hub does not have yet, and none.
  await report(hub, "behind", first);
  await report(hub, "in-step", last);
  await report(hub, "ahead", { ...last, size: last.size + 1, head: "ab".repeat(32) });
  await report(hub, "silent", null);
  assert.deepEqual(await alarmsOf(hub), []);
  // After as many releases another head; and what was installed before does not matter.
  await report(hub, "elsewhere", { ...last, head: first.head });
  await report(hub, "in-step", { ...first, head: "cd".repeat(32) });
  await report(hub, "elsewhere", { ...last, head: first.head });
  assert.deepEqual(await alarmsOf(hub), [
    { kind: "history-differs", subject: "elsewhere", count: 2 },
    { kind: "history-differs", subject: "in-step", count: 1 },
  ]);
  // One that says nothing of it any more does not take back what it was shown.
  await report(hub, "elsewhere", null);
  const kept = await hub.pool.query(
    "select release_log->>'head' as head from installation where id = 'elsewhere'",
  );
  assert.equal(kept.rows[0]?.head, first.head);
});

test("D13: an installation whose update.log was altered is the alarm log-altered", async (t) => {
  const hub = await startTestHub(t, server);
  const [expected, found] = ["ab".repeat(32), "cd".repeat(32)];
  const say = async (logAltered?: object) => {
    const body = {
      ...{ host: "h", directory: "/a", roles: [], packages: [], revision: 1, outcome: "updated" },
      ...{ problem: null, autoUpdate: true, updaterVersion: "0", logAltered },
    };
    return (await ask(hub, "PUT", "/v1/installations/a", { body })).status;
  };
  // The controls: none that was altered, and none of which it is said in other words than these.
  assert.equal(await say(), 204);
  assert.equal(await say({ file: "/etc/passwd", line: 1, expected, found }), 400);
  assert.deepEqual(await alarmsOf(hub), []);
  assert.equal(await say({ file: "update.log.2", line: 7, expected, found }), 204);
  assert.equal(await say({ file: "update.log", line: 3, expected, found: null }), 204);
  assert.deepEqual(await alarmsOf(hub), [{ kind: "log-altered", subject: "a", count: 2 }]);
  const { alarms } = await withClient(hub, (client) => client.status());
  assert.equal(alarms[0]?.detail, `update.log, line 3: expected the link ${expected}, found none`);
});

test("A26: another key for an installation that has one is the alarm identity-taken", async (t) => {
  const hub = await startTestHub(t, server);
  const enrol = async (id: string, by = signerOf(makeSecret())) =>
    await outcome(async () => {
      const order = { hours: 1, note: "test", installation: id };
      const { secret } = await withClient(hub, (client) => client.makeSecret(order));
      const signature = await signEnrolment(id, secret, by);
      await withClient(hub, (client) => client.enrol(id, { secret, public: by.key.public, signature }));
    });
  const keyOf = async (id: string) =>
    (await hub.pool.query("select public from installation_key where installation = $1", [id])).rows[0]
      ?.public;
  const genuine = signerOf(makeSecret());
  assert.equal(await enrol("server-x", genuine), "accepted");
  assert.deepEqual(await alarmsOf(hub), []);
  // With a secret that was made for this very installation: a stolen one, or a mistake. Both are to be looked at.
  assert.equal(await enrol("server-x"), "ENROLMENT_REFUSED");
  assert.equal(await enrol("server-x"), "ENROLMENT_REFUSED");
  assert.deepEqual(await alarmsOf(hub), [{ kind: "identity-taken", subject: "server-x", count: 2 }]);
  assert.equal(await keyOf("server-x"), genuine.key.public);
  // The control: a hub that knows no key of it takes the other one.
  const other = signerOf(makeSecret());
  await hub.pool.query("delete from installation_key");
  assert.equal(await enrol("server-x", other), "accepted");
  assert.equal(await keyOf("server-x"), other.key.public);
});
