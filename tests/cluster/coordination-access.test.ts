import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import type { IncomingMessage } from "node:http";
import { request } from "node:https";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { suite, type TestContext, test } from "node:test";
import { openCoordination, openEtcd } from "@lockstep/cluster";
import { systemClock } from "@lockstep/platform";
import { makeCertificate } from "../support/certificate.ts";
import { usePostgres } from "../support/postgres.ts";
import { urlOf } from "./database-url.ts";
import { CALM_ELECTION, type EtcdCluster, findEtcd, startEtcd } from "./etcd-cluster.ts";

const program = findEtcd();
// Far above what is needed: nothing here is about time.
const CALL_MS = 120_000;
/** More than any call is late by on a busy machine, and short enough to be waited for. */
const TOKEN_SECONDS = 10;

/** An etcd that speaks TLS alone, lets nobody in without a login, and forgets a token after some seconds. */
async function startSecureEtcd(t: TestContext) {
  const directory = await mkdtemp(join(tmpdir(), "lockstep-test-etcd-access-"));
  t.after(() => rm(directory, { recursive: true, force: true }));
  const { certFile, keyFile } = await makeCertificate(directory);
  const etcd = await startEtcd(
    program ?? "",
    { certFile, keyFile, tokenSeconds: TOKEN_SECONDS },
    CALM_ELECTION,
  );
  t.after(() => etcd.stop());
  const ca = await readFile(certFile, "utf8");
  const tell = (path: string, body: object) => post(`${etcd.endpoints[0]}/v3/auth/${path}`, ca, body);
  const base64 = (text: string) => Buffer.from(text).toString("base64");
  await tell("user/add", { name: "root", password: "all" });
  await tell("user/add", { name: "node", password: "secret word" });
  await tell("role/add", { name: "root" });
  await tell("role/add", { name: "prod" });
  const perm = { permType: "READWRITE", key: base64("prod/"), range_end: base64("prod0") };
  await tell("role/grant", { name: "prod", perm });
  await tell("user/grant", { user: "node", role: "prod" });
  await tell("user/grant", { user: "root", role: "root" });
  await tell("enable", {});
  const passwordFile = join(directory, "password");
  await writeFile(passwordFile, "secret word\n", { mode: 0o600 });
  return { etcd, certFile, passwordFile, directory };
}

async function post(url: string, ca: string, body: object): Promise<void> {
  const sending = request(url, { method: "POST", ca });
  sending.end(JSON.stringify(body));
  const [response] = (await once(sending, "response")) as [IncomingMessage];
  const answer = Buffer.concat(await response.toArray()).toString();
  assert.equal(response.statusCode, 200, answer);
}

const configOf = ({ endpoints }: EtcdCluster) =>
  ({ store: "etcd", endpoints, callMs: CALL_MS, prefix: "prod/" }) as const;

suite("who may reach the coordination store", {
  skip: program === null && "etcd is not on this machine",
}, () => {
  test("etcd by TLS and login: in with both, out without either, and a token that ran out is renewed", async (t) => {
    const { etcd, certFile, passwordFile, directory } = await startSecureEtcd(t);
    const config = { ...configOf(etcd), caFile: certFile, user: "node", passwordFile };
    const store = await openCoordination(config, systemClock);
    t.after(() => store.close());
    const record = { node: "a", instance: "a#1", token: 1, write: 1, next: null };
    assert.ok((await store.swap("APP", { expected: 0, record, takes: true })).swapped);
    assert.equal(await store.writeGuarded("APP", 1, new Map([["k", "v"]])), true);

    // A watch goes through the same door.
    const ending = new AbortController();
    let told = 0;
    let wake = () => {};
    const watching = store.documents.watch(
      "x/",
      () => {
        told += 1;
        wake();
      },
      ending.signal,
    );
    while (told < 1) await new Promise<void>((resolve) => (wake = resolve));
    assert.ok((await store.documents.write("x/1", 0, "1")) !== null);
    while (told < 2) await new Promise<void>((resolve) => (wake = resolve));
    ending.abort();
    await watching;

    // Longer than the token lives without being used.
    await systemClock.sleep(TOKEN_SECONDS * 1_000 + 5_000);
    assert.deepEqual((await store.read("APP")).record, record);

    const refused = { code: "COORDINATION_REFUSED" };
    const { user: _, passwordFile: __, ...nameless } = config;
    for (const [other, error] of [
      [nameless, refused],
      [{ ...config, prefix: "other/" }, refused],
      [{ ...config, user: "stranger" }, refused],
    ] as const) {
      const stranger = await openCoordination(other, systemClock);
      t.after(() => stranger.close());
      await assert.rejects(stranger.read("APP"), error);
      await assert.rejects(stranger.documents.write("x/2", 0, "2"), error);
    }
    const other = await makeCertificate(await mkdtemp(join(directory, "other-")));
    const mistrusting = await openCoordination({ ...config, caFile: other.certFile }, systemClock);
    t.after(() => mistrusting.close());
    await assert.rejects(mistrusting.read("APP"), { code: "COORDINATION_UNREACHABLE" });
    await assert.rejects(
      openCoordination({ ...config, passwordFile: join(directory, "nowhere") }, systemClock),
      {
        code: "FILE_ACCESS_FAILED",
      },
    );
  });

  test("two clusters in one etcd do not see each other", async (t) => {
    const etcd = await startEtcd(program ?? "", null, CALM_ELECTION);
    t.after(() => etcd.stop());
    const open = (prefix: string) => {
      const store = openEtcd({ endpoints: etcd.endpoints, callMs: CALL_MS, clock: systemClock, prefix });
      t.after(() => store.close());
      return store;
    };
    await hasOwnNames(open("a/"), open("b/"));
  });
});

const server = usePostgres();
test("a database by a file with its address, and two clusters in one database", async (t) => {
  const database = await server.database(t, { empty: true });
  const directory = await mkdtemp(join(tmpdir(), "lockstep-test-database-"));
  t.after(() => rm(directory, { recursive: true, force: true }));
  const urlFile = join(directory, "url");
  await writeFile(urlFile, `${urlOf(database.address)}\n`, { mode: 0o600 });
  const open = async (prefix: string) => {
    const config = { store: "postgres", urlFile, callMs: CALL_MS, watchMs: 50, prefix } as const;
    const store = await openCoordination(config, systemClock);
    database.beforeClose(() => store.close());
    return store;
  };
  await hasOwnNames(await open("a/"), await open("b/"));
});

async function hasOwnNames(
  one: Awaited<ReturnType<typeof openCoordination>>,
  other: Awaited<ReturnType<typeof openCoordination>>,
): Promise<void> {
  const record = { node: "a", instance: "a#1", token: 1, write: 1, next: null };
  assert.ok((await one.swap("APP", { expected: 0, record, takes: true })).swapped);
  assert.ok((await one.documents.write("cluster", 0, "1")) !== null);
  assert.equal((await other.read("APP")).record, null);
  assert.equal(await other.documents.read("cluster"), null);
  assert.equal((await other.documents.list("")).size, 0);
  assert.ok((await other.swap("APP", { expected: 0, record: { ...record, token: 7 }, takes: true })).swapped);
  assert.equal(await one.writeGuarded("APP", 7, new Map([["k", "v"]])), false);
}
