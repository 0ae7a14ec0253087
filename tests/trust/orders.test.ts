import assert from "node:assert/strict";
import { once } from "node:events";
import { readdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { HubClient } from "@lockstep/client";
import { silentLogger, systemClock } from "@lockstep/platform";
import type { OrderAnswer } from "@lockstep/protocol";
import {
  decideOrder,
  makeSecret,
  mayBeOrdered,
  ORDERED_MAX,
  type OrderSituation,
  openOrder,
  readOrdered,
  readTimestamp,
  sealOrder,
  sealPermit,
  signerOf,
} from "@lockstep/trust";
import { install, readLog, showTrust, update } from "@lockstep/updater";
import { renewOrders } from "../../packages/hub/src/installations/orders.ts";
import { TrustPublisher } from "../../packages/hub/src/trust/publisher.ts";
import { renewDue } from "../../packages/hub/src/trust/upkeep.ts";
import { loadAndSettle, release } from "../hub/support/release.ts";
import { ask } from "../hub/support/requests.ts";
import { startTestHub, type TestHub, temporaryDirectory } from "../hub/support/test-hub.ts";
import { usePostgres } from "../support/postgres.ts";
import { outcome } from "./client-world.ts";
import { withClient } from "./with-client.ts";

/** A24 and A3: orders for single installations. Each attack has its control, the same with the defence taken out. */
const server = usePostgres();
const HOUR = 3_600_000;

const options = (hub: TestHub, more: object = {}) => ({
  access: { environment: { LOCKSTEP_TOKEN: hub.token }, url: hub.url },
  selfUpdate: false,
  ...more,
});
const content = (directory: string) => readFileSync(join(directory, "program"), "utf8");

const order = (hub: TestHub, id: string, revision: number | null, permit: string | null = null) =>
  withClient(hub, (client) => client.giveOrder(id, { revision, permit }));

async function permitFor(hub: TestHub, installation: string, revision: number, hours = 1): Promise<string> {
  return await withClient(hub, async (client) => {
    const { digest } = await client.destination(revision);
    const serial = makeSerial();
    const expiresAt = Date.now() + hours * HOUR;
    return (await client.signPermit({ installation, serial, revision, digest, expiresAt })).permit;
  });
}

let serials = 0;
const makeSerial = () => (++serials).toString(16).padStart(32, "0");

async function place(t: TestContext) {
  const hub = await startTestHub(t, server);
  const load = async (text: string) => {
    await loadAndSettle(hub, release({ program: text }, { version: text }));
  };
  await load("1");
  const directory = join(await temporaryDirectory(t), "a");
  const run = () => update(directory, options(hub));
  await install(directory, { ...options(hub), roles: ["Server"] });
  const { installations } = await withHub(hub, (client) => client.installations());
  const id = installations[0]?.id ?? "";
  return { hub, load, directory, run, id };
}

async function withHub<T>(hub: TestHub, use: (client: HubClient) => Promise<T>): Promise<T> {
  const client = new HubClient({ url: hub.url, token: hub.token });
  try {
    return await use(client);
  } finally {
    await client.close();
  }
}

test("an order holds one installation at a revision, and lets it go again", async (t) => {
  const { hub, load, directory, run, id } = await place(t);
  await load("2");
  await load("3");
  const relay = async (query = "", mark = "1") => {
    const path = `/v1/revision${query}`;
    const answer = await ask(hub, "GET", path, { headers: { "lockstep-relay": mark } });
    return [answer.json().revision, answer.headers["lockstep-orders"]];
  };
  const toldToRelays = async () => (await relay())[1];
  assert.equal(await toldToRelays(), "none");
  const began = performance.now();
  const waiting = relay("?after=3&wait=50", "none");
  await order(hub, id, 2);
  const told = String(await toldToRelays());
  assert.match(told, /^[0-9a-f]{8}$/, "so relays ask for each of their neighbours");
  assert.deepEqual(await waiting, [3, told]);
  assert.ok(performance.now() - began < 50_000, "answered by the order, before the time was over");
  await run();
  assert.equal(content(directory), "2");
  await load("4");
  assert.equal((await run()).kind, "already-in-step");
  assert.equal(content(directory), "2");
  assert.equal((await showTrust(directory)).order?.revision, 2);
  const begin = (await readLog(directory)).findLast(({ action }) => action === "begin");
  assert.match(String(begin?.orderSignature), /^[0-9a-f]{16}$/);
  // Also where the hub says nothing of the order any more: what was followed once holds.
  await hub.pool.query("create table kept_order as select * from installation_order");
  await hub.pool.query("delete from installation_order");
  await hub.pool.query("select pg_notify('lockstep_revision', '0')");
  await run();
  assert.equal(content(directory), "2");
  await hub.pool.query("insert into installation_order select * from kept_order");
  await order(hub, id, null);
  assert.equal(await toldToRelays(), "none");
  await run();
  assert.equal(content(directory), "4");
  // Only what release keys signed and the hub still keeps can be ordered.
  assert.equal(await outcome(() => order(hub, id, 99)), "REVISION_UNKNOWN");
  assert.equal(await outcome(() => order(hub, "nobody", 1)), "NOT_FOUND");
});

test("A24: an order for another installation, an older one and one that is over are refused", async (t) => {
  const { hub, load, directory, run, id } = await place(t);
  await load("2");
  const other = join(await temporaryDirectory(t), "b");
  await install(other, { ...options(hub), roles: ["Server"] });
  const { installations } = await withHub(hub, (client) => client.installations());
  const foreign = installations.find((each) => each.id !== id)?.id ?? "";
  let loads = 2;
  // Announced as the newest, so that the installation looks.
  const show = async (document: string) => {
    await hub.pool.query(
      "update installation_order set document = $2, revision = $3 where installation = $1",
      [id, document, ++loads],
    );
    await load(`${loads}`);
  };
  const first = await order(hub, id, 2);
  await run();
  const second = await order(hub, id, 2);
  assert.ok(second.counter > first.counter);
  await show(second.order);
  assert.equal((await run()).kind, "already-in-step");
  const elsewhere = await order(hub, foreign, 2);
  const late = { clock: { ...systemClock, now: () => Date.now() + 4 * 24 * HOUR } };
  await show(elsewhere.order);
  assert.equal(await outcome(run), "ORDER_REFUSED");
  await show(first.order);
  assert.equal(await outcome(run), "ORDER_REPLAYED");
  assert.equal(content(directory), "2");
  const alarm = (await readLog(directory)).findLast(({ action }) => action === "trust");
  assert.match(String(alarm?.reason), /ORDER_REPLAYED/);
  // An order ends, and the hub renews it as long as it stands.
  await show(second.order);
  assert.match(await outcome(() => update(directory, options(hub, late))), /^(ORDER|TRUST)_EXPIRED$/);
  // The control: an installation that remembers nothing takes the older one.
  await show(first.order);
  rmSync(join(directory, ".lockstep/trust/orders"));
  assert.equal((await run()).kind, "already-in-step");
  assert.equal((await showTrust(directory)).order?.counter, first.counter);
});

test("A24: who shows the timestamp of before an order hides it for an hour at most", async (t) => {
  const { hub, load, id } = await place(t);
  const [early, late] = [join(await temporaryDirectory(t), "b"), join(await temporaryDirectory(t), "c")];
  for (const directory of [early, late]) await install(directory, { ...options(hub), roles: ["Server"] });
  await load("2");
  const path = "/v1/trust/changes?root=1&snapshot=1&targets=1&epoch=1&log=1";
  const { body: before } = await ask(hub, "GET", path);
  const { installations } = await withHub(hub, (client) => client.installations());
  for (const each of installations) if (each.id !== id) await order(hub, each.id, 1);
  const replayed: string[] = [];
  const liar = createServer((request, response) => {
    if (request.url === path) replayed.push(path);
    response.writeHead(request.url === path ? 200 : 404).end(request.url === path ? before : "{}");
  }).listen(0, "127.0.0.1");
  t.after(() => liar.close());
  await once(liar, "listening");
  const relay = `http://127.0.0.1:${(liar.address() as AddressInfo).port}`;
  const semaphore = { revision: 2, autoUpdate: true, pollSeconds: 300 };
  const told = async (directory: string, minutes: number) => {
    const given = options(hub, { clock: { ...systemClock, now: () => Date.now() + minutes * 60_000 } });
    const announced = { semaphore, atMs: systemClock.monotonic() };
    await update(directory, { ...given, access: { ...given.access, relay }, announced });
    return content(directory);
  };
  assert.equal(await told(late, 61), "1");
  assert.equal(replayed.length, 1);
  // The control: within the hour it is hidden, also from whoever would have gone by it.
  assert.equal(await told(early, 0), "2");
  assert.equal(replayed.length, 2);
});

test("an order stands in the timestamp when it is given, or it is not given", async (t) => {
  const { hub, load, id } = await place(t);
  await load("2");
  const parts = { dataDirectory: hub.directory, passphrase: null, clock: systemClock, log: silentLogger };
  const publisher = new TrustPublisher(parts);
  const named = async () => {
    const { body } = await ask(hub, "GET", "/v1/trust/timestamp.json");
    const { signed } = readTimestamp(body);
    return [signed.version, mayBeOrdered(readOrdered(signed), id, Date.now())];
  };
  assert.deepEqual(await named(), [2, false]);
  await order(hub, id, 1);
  assert.deepEqual(await named(), [3, true]);
  await order(hub, id, 2);
  assert.deepEqual(await named(), [3, true], "nothing new to say");
  await order(hub, id, null);
  assert.deepEqual(await named(), [4, false]);
  // Given by a hub of an older version, or by hand: one that has the key says so when it looks after its signatures.
  await hub.pool.query("update installation_order set revision = 1");
  await renewDue(hub.pool, publisher, silentLogger);
  assert.deepEqual(await named(), [5, true]);
  await renewDue(hub.pool, publisher, silentLogger);
  assert.deepEqual(await named(), [5, true]);
  // For very many it says nothing: everybody asks.
  await hub.pool.query(
    `insert into installation_order (installation, counter, revision, document, actor, expires_at)
     select 'many-' || n, counter, revision, document, actor, expires_at
     from installation_order, generate_series(1, ${ORDERED_MAX}) n`,
  );
  await renewDue(hub.pool, publisher, silentLogger);
  const silent = await ask(hub, "GET", "/v1/trust/timestamp.json");
  assert.equal(readOrdered(readTimestamp(silent.body).signed), null);
  await hub.pool.query("delete from installation_order where installation <> $1", [id]);
  const { keysDirectory } = publisher;
  const [key, ...more] = readdirSync(keysDirectory).filter((name) => name.includes("timestamp"));
  assert.ok(key !== undefined && more.length === 0);
  renameSync(join(keysDirectory, key), join(hub.directory, key));
  assert.equal(await outcome(() => order(hub, id, 1)), "accepted", "nothing wrong is said");
  renameSync(join(hub.directory, key), join(keysDirectory, key));
  await order(hub, id, null);
  assert.deepEqual(await named(), [7, false]);
  rmSync(join(keysDirectory, key));
  assert.equal(await outcome(() => order(hub, id, 1)), "KEY_MISSING");
  assert.equal((await withClient(hub, (client) => client.order(id)))?.revision, null, "none was given");
  assert.equal(await outcome(() => order(hub, id, null)), "accepted", "who asks in vain is not harmed");
});

test("A3: an installation goes back by a permit of the release keys alone, once", async (t) => {
  const { hub, load, directory, run, id } = await place(t);
  await load("2");
  await run();
  await order(hub, id, 1);
  assert.equal(await outcome(run), "DOWNGRADE_REFUSED");
  assert.equal(content(directory), "2");
  const permit = await permitFor(hub, id, 1);
  await order(hub, id, 1, permit);
  await run();
  assert.equal(content(directory), "1");
  const begin = (await readLog(directory)).findLast(({ action }) => action === "begin");
  assert.match(String(begin?.permit), /^[0-9a-f]{32}$/);
  assert.match(String(begin?.permitSignature), /^[0-9a-f]{16}$/);
  // Forward, and back with the same permit: it is spent.
  await order(hub, id, null);
  await run();
  assert.equal(content(directory), "2");
  await order(hub, id, 1, permit);
  assert.equal(await outcome(run), "DOWNGRADE_REFUSED");
  assert.equal(content(directory), "2");
  // The control: who forgets that it was used goes back again.
  rmSync(join(directory, ".lockstep/trust/orders"));
  await run();
  assert.equal(content(directory), "1");
});

test("a permit is no use for another installation or revision, and none is signed by the key for orders", async (t) => {
  const { hub, load, directory, run, id } = await place(t);
  await load("2");
  await load("3");
  await run();
  const permit = await permitFor(hub, id, 2);
  assert.equal(await outcome(() => order(hub, id, 1, permit)), "ORDER_REFUSED");
  assert.equal(
    await outcome(async () => order(hub, id, 1, await permitFor(hub, "other", 1))),
    "ORDER_REFUSED",
  );
  // A hub that does not care: the installation does.
  await order(hub, id, 1);
  const online = signerOf(makeSecret());
  const sealed = {
    installation: id,
    serial: makeSerial(),
    revision: 1,
    digest: "ab".repeat(32),
    expiresAt: 9e15,
  };
  for (const text of [permit, await sealPermit(sealed, [online])]) {
    await hub.pool.query("update installation_order set permit = $1", [text]);
    assert.match(await outcome(run), /^(DOWNGRADE|ORDER)_REFUSED$/);
  }
  await hub.pool.query("update installation_order set permit = $1", [await permitFor(hub, id, 1)]);
  await run();
  assert.equal(content(directory), "1");
});

test("a hub renews its orders at half of their life, and keeps the revisions that they name", async (t) => {
  const { hub, load, id } = await place(t);
  await load("2");
  const given = await order(hub, id, 1);
  await hub.pool.query("update installation_order set expires_at = now() + interval '1 hour'");
  const parts = { dataDirectory: hub.directory, passphrase: null, clock: systemClock, log: silentLogger };
  assert.equal(await renewOrders(hub.pool, new TrustPublisher(parts), silentLogger), 1);
  assert.equal(await renewOrders(hub.pool, new TrustPublisher(parts), silentLogger), 0);
  const renewed = (await withClient(hub, (client) => client.order(id))) as OrderAnswer;
  assert.deepEqual([renewed.revision, renewed.counter > given.counter], [1, true]);
  assert.ok(renewed.expiresAt > Date.now() + 24 * HOUR);
});

test("A24: replayed a thousand times and sent to every other site, no order is followed", async () => {
  const signer = signerOf(makeSecret());
  const release = signerOf(makeSecret());
  const digest = "cd".repeat(32);
  const go = { revision: 2, digest, targets: { version: 2, sha256: digest } };
  const give = (installation: string, counter: number, expiresAt = 1000) =>
    sealOrder({ installation, counter, issuedAt: 1, expiresAt, go }, [signer]);
  const situation = (more: Partial<OrderSituation>): OrderSituation => ({
    installation: "a",
    installed: 2,
    newest: 9,
    order: null,
    permit: null,
    memory: null,
    orderKeys: { keys: [signer.key], threshold: 1 },
    releaseKeys: { keys: [release.key], threshold: 1 },
    nowMs: 10,
    ...more,
  });
  const newest = await give("a", 1001);
  const { memory } = decideOrder(situation({ order: newest }));
  let followed = 0;
  const code = async (more: Partial<OrderSituation>) => {
    const said = await outcome(async () => decideOrder(situation(more)));
    if (said === "accepted") followed++;
    return said;
  };
  const captured = await Promise.all(Array.from({ length: 1000 }, (_, index) => give("a", index + 1)));
  for (const text of captured) assert.equal(await code({ order: text, memory }), "ORDER_REPLAYED");
  for (let site = 0; site < 1000; site++)
    assert.equal(await code({ order: newest, installation: `site-${site}` }), "ORDER_REFUSED");
  // Every altered byte, another key, another order under the same number, one that is over, one for what is not released.
  for (let at = 0; at < newest.length; at++) {
    const other = newest[at] === "1" ? "2" : "1";
    assert.match(
      await code({ order: newest.slice(0, at) + other + newest.slice(at + 1), memory: null }),
      /^(ORDER_REFUSED|ORDER_EXPIRED)$/,
      `byte ${at}`,
    );
  }
  assert.equal(await code({ order: await sealOrder(openOrderOf(newest), [release]) }), "ORDER_REFUSED");
  assert.equal(await code({ order: await give("a", 1001, 2000), memory }), "ORDER_REFUSED");
  assert.equal(await code({ order: newest, nowMs: 1000 }), "ORDER_EXPIRED");
  assert.equal(await code({ order: newest, newest: 1, installed: 1 }), "ORDER_REFUSED");
  assert.equal(followed, 0);
  // The controls: without memory every captured one is followed, and by whoever does not look whose it is.
  for (const text of captured.slice(0, 3)) assert.equal(await code({ order: text }), "accepted");
  assert.equal(await code({ order: await give("site-1", 1), installation: "site-1" }), "accepted");

  function openOrderOf(text: string) {
    return openOrder(text, { keys: [signer.key], threshold: 1 });
  }
});
