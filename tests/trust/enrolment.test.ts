import assert from "node:assert/strict";
import { once } from "node:events";
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { type AddressInfo, createServer } from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import type { EnrolmentStatus } from "@lockstep/protocol";
import { makeSecret, signEnrolment, signerOf } from "@lockstep/trust";
import { enrolInstallation, install, showTrust, update } from "@lockstep/updater";
import { loadAndSettle, release } from "../hub/support/release.ts";
import { ask } from "../hub/support/requests.ts";
import { startTestHub, type TestHub, temporaryDirectory } from "../hub/support/test-hub.ts";
import { usePostgres } from "../support/postgres.ts";
import { outcome } from "./client-world.ts";
import { withClient } from "./with-client.ts";

/**
 * A26: a false agent that enrols as, or reports as, an installation that it is not. On a real hub with real installations;
 * each attack has its control, the same with the defence taken out.
 */
const server = usePostgres();

/** Without any token of the hub: what these installations may do comes from their keys. */
const access = (hub: TestHub) => ({ environment: {}, url: hub.url });
const options = (hub: TestHub, more: object = {}) => ({ access: access(hub), selfUpdate: false, ...more });

const secretFor = async (hub: TestHub, installation: string | null = null) =>
  (await withClient(hub, (client) => client.makeSecret({ hours: 1, note: "test", installation }))).secret;
const statusOf = (hub: TestHub): Promise<EnrolmentStatus> => withClient(hub, (client) => client.status());
const alarmsOf = async (hub: TestHub) => (await statusOf(hub)).alarms.map(({ kind }) => kind);

async function enrolled(hub: TestHub, directory: string): Promise<string> {
  await install(directory, { ...options(hub), roles: ["Server"], enrolment: await secretFor(hub) });
  return (await showTrust(directory)).identity?.installation ?? "";
}

const content = (directory: string) => readFileSync(join(directory, "program"), "utf8");
const sessionOf = (directory: string) => join(directory, ".lockstep/identity/session");
const reportOf = (hub: TestHub, id: string, token: string) =>
  ask(hub, "PUT", `/v1/installations/${id}`, {
    token,
    body: {
      host: "elsewhere",
      directory: "/foreign",
      roles: [],
      packages: [],
      revision: 99,
      outcome: "updated",
      problem: null,
      autoUpdate: true,
      updaterVersion: "0",
    },
  });

test("an installation enrols by a secret, and needs no token of the hub from then on", async (t) => {
  const hub = await startTestHub(t, server);
  await loadAndSettle(hub, release({ program: "1" }));
  const directory = join(await temporaryDirectory(t), "a");
  // The control: without a key and without a token nothing is given out.
  const bare = install(directory, { ...options(hub), roles: ["Server"] });
  assert.equal(await outcome(() => bare), "AUTHENTICATION_REQUIRED");
  const id = await enrolled(hub, directory);
  assert.equal(content(directory), "1");
  assert.equal(statSync(join(directory, ".lockstep/identity/identity")).mode & 0o777, 0o600);
  await loadAndSettle(hub, release({ program: "2" }, { version: "2" }));
  await update(directory, options(hub));
  assert.equal(content(directory), "2");
  const status = await statusOf(hub);
  assert.deepEqual(
    [status.installations, status.enrolled, status.notEnrolled, status.alarms],
    [1, 1, [], []],
  );
  // Its session is good for what an update needs, and for nothing else.
  const session = (JSON.parse(readFileSync(sessionOf(directory), "utf8")) as { token: string }).token;
  for (const path of ["/v1/installations", "/v1/signing", "/v1/enrolments", "/v1/files", "/v1/orders"])
    assert.equal((await ask(hub, "GET", path, { token: session })).status, 403, path);
  for (const path of ["/v1/signing/root", "/v1/enrolments", "/v1/loads"])
    assert.equal((await ask(hub, "POST", path, { token: session, body: {} })).status, 403, path);
  assert.equal((await ask(hub, "GET", "/v1/orders/another", { token: session })).status, 403);
  assert.equal((await ask(hub, "GET", `/v1/orders/${id}`, { token: session })).status, 204, "no order");
  assert.equal((await reportOf(hub, "another", session)).status, 403);
  assert.equal((await reportOf(hub, id, session)).status, 204);
});

test("A26: a secret that was used is refused to everybody else, and that is an alarm", async (t) => {
  const hub = await startTestHub(t, server);
  await loadAndSettle(hub, release({ program: "1" }));
  const root = await temporaryDirectory(t);
  const secret = await secretFor(hub);
  const one = { ...options(hub), roles: ["Server"], enrolment: secret };
  await install(join(root, "a"), one);
  assert.equal(await outcome(() => install(join(root, "b"), one)), "ENROLMENT_REFUSED");
  assert.deepEqual(await alarmsOf(hub), ["secret-reused"]);
  assert.equal((await statusOf(hub)).enrolled, 1);
  const again = await outcome(() => enrolInstallation(join(root, "a"), access(hub), secret));
  assert.equal(again, "ENROLMENT_REFUSED", "another key of the same installation is somebody else");
  // The control: a hub that forgets that a secret was used takes the second one.
  await hub.pool.query("update enrolment set used_at = null, used_by = null");
  await install(join(root, "b"), one);
  assert.equal((await statusOf(hub)).enrolled, 2);
});

test("an installation that is refused leaves nothing behind but what was there, and a key that the hub noted", async (t) => {
  const hub = await startTestHub(t, server);
  await loadAndSettle(hub, release({ program: "1" }));
  const root = await temporaryDirectory(t);
  const tree = () => readdirSync(root, { recursive: true }).sort();
  mkdirSync(join(root, "empty"));
  mkdirSync(join(root, "used"));
  writeFileSync(join(root, "used/mine"), "mine");
  const before = tree();
  const refused = { ...options(hub), roles: ["Server"], enrolment: "wrong" };
  for (const directory of ["empty", "used", "new/below"])
    assert.equal(await outcome(() => install(join(root, directory), refused)), "ENROLMENT_REFUSED");
  const away = { ...refused, access: { environment: {}, url: "http://127.0.0.1:1" } };
  assert.equal(await outcome(() => install(join(root, "new"), away)), "HUB_UNREACHABLE");
  assert.deepEqual(tree(), before);
  // The secret is used up: without the key that was noted for it, nobody could install with it any more.
  const directory = join(root, "empty");
  const secret = await secretFor(hub);
  const wrong = { ...options(hub), roles: ["Nobody"], enrolment: secret };
  assert.equal(await outcome(() => install(directory, wrong)), "ROLE_UNKNOWN");
  const key = JSON.parse(readFileSync(join(directory, ".lockstep/identity/identity"), "utf8")) as {
    secret: string;
  };
  await install(directory, { ...wrong, roles: ["Server"] });
  const { identity } = await showTrust(directory);
  assert.equal(identity?.public, signerOf(Buffer.from(key.secret, "base64")).key.public);
});

test("a key stays where the hub may have noted it and its answer was lost", async (t) => {
  const silent = createServer((socket) => socket.once("data", () => socket.destroy()));
  await once(silent.listen(0, "127.0.0.1"), "listening");
  t.after(() => silent.close());
  const { port } = silent.address() as AddressInfo;
  const directory = join(await temporaryDirectory(t), "a");
  const access = { environment: {}, url: `http://127.0.0.1:${port}` };
  const lost = install(directory, { access, selfUpdate: false, roles: ["Server"], enrolment: "secret" });
  assert.equal(await outcome(() => lost), "HUB_UNREACHABLE");
  assert.ok(existsSync(join(directory, ".lockstep/identity/candidate")));
});

test("A26: a secret that is over, altered, or for another installation enrols nobody", async (t) => {
  const hub = await startTestHub(t, server);
  const signer = signerOf(makeSecret());
  const attempt = async (id: string, secret: string, signed = secret, by = signer) =>
    await outcome(async () => {
      const signature = await signEnrolment(id, signed, by);
      await withClient(hub, (client) => client.enrol(id, { secret, public: signer.key.public, signature }));
    });
  const secret = await secretFor(hub);
  assert.equal(await attempt("x", `${secret}x`), "ENROLMENT_REFUSED");
  // Without the private half of the key that it names, or with a signature for another secret.
  assert.equal(await attempt("x", secret, secret, signerOf(makeSecret())), "ENROLMENT_REFUSED");
  assert.equal(await attempt("x", secret, "another"), "ENROLMENT_REFUSED");
  // An id that others know already needs a secret that was made for it.
  assert.equal((await reportOf(hub, "server-x", hub.token)).status, 204);
  assert.equal(await attempt("server-x", secret), "ENROLMENT_REFUSED");
  assert.equal(await attempt("y", await secretFor(hub, "server-x")), "ENROLMENT_REFUSED");
  await hub.pool.query("update enrolment set expires_at = now() - interval '1 second'");
  assert.equal(await attempt("x", secret), "ENROLMENT_REFUSED");
  // The controls: in time, and for the installation that it was made for.
  await hub.pool.query("update enrolment set expires_at = now() + interval '1 hour'");
  assert.equal(await attempt("x", secret), "accepted");
  assert.equal(await attempt("x", secret), "accepted", "a lost answer");
  assert.equal(await attempt("server-x", await secretFor(hub, "server-x")), "accepted");
});

test("A26: nobody reports for an installation that has a key, also not with the token of the hub", async (t) => {
  const hub = await startTestHub(t, server);
  await loadAndSettle(hub, release({ program: "1" }));
  const id = await enrolled(hub, join(await temporaryDirectory(t), "a"));
  assert.equal((await reportOf(hub, id, hub.token)).status, 401);
  const reported = await hub.pool.query("select directory from installation where id = $1", [id]);
  assert.notEqual(reported.rows[0]?.directory, "/foreign");
  // The control: one without a key is whatever anybody with the token says.
  await hub.pool.query("delete from installation_key");
  assert.equal((await reportOf(hub, id, hub.token)).status, 204);
});

test("A26: of an installation and a copy of it the second one is refused, and that is an alarm", async (t) => {
  const hub = await startTestHub(t, server);
  await loadAndSettle(hub, release({ program: "1" }));
  const root = await temporaryDirectory(t);
  const [genuine, copy] = [join(root, "a"), join(root, "copy")];
  const id = await enrolled(hub, genuine);
  cpSync(genuine, copy, { recursive: true });
  // An hour later: sessions are over on both sides.
  const later = async () => {
    for (const each of [genuine, copy]) rmSync(sessionOf(each), { force: true });
    await hub.pool.query("delete from installation_session");
  };
  await later();
  await loadAndSettle(hub, release({ program: "2" }, { version: "2" }));
  await update(genuine, options(hub));
  assert.equal(await outcome(() => update(copy, options(hub))), "INSTALLATION_DIVERGED");
  assert.deepEqual([content(genuine), content(copy)], ["2", "1"]);
  const [alarm] = (await statusOf(hub)).alarms;
  assert.deepEqual([alarm?.kind, alarm?.subject], ["identity-copied", id]);
  // However often each of them tries, and whatever counters they show.
  for (let turn = 3; turn < 5; turn++) {
    await later();
    await loadAndSettle(hub, release({ program: `${turn}` }, { version: `${turn}` }));
    assert.equal(await outcome(() => update(copy, options(hub))), "INSTALLATION_DIVERGED");
    await update(genuine, options(hub));
    assert.equal(content(genuine), `${turn}`);
  }
  // The control: a hub that holds nothing against the chain takes whatever comes next.
  const { counter, link } = JSON.parse(readFileSync(join(copy, ".lockstep/identity/identity"), "utf8")) as {
    counter: number;
    link: string;
  };
  await hub.pool.query("update installation_key set counter = $1, link = $2", [counter, link]);
  await later();
  await update(copy, options(hub));
  assert.equal(content(copy), "4");
});

test("an answer that got lost is no copy: the installation goes on", async (t) => {
  const hub = await startTestHub(t, server);
  await loadAndSettle(hub, release({ program: "1" }));
  const directory = join(await temporaryDirectory(t), "a");
  await enrolled(hub, directory);
  const file = join(directory, ".lockstep/identity/identity");
  const before = readFileSync(file, "utf8");
  const sent = JSON.stringify({ ...JSON.parse(before), pending: "ab".repeat(16) });
  for (const revision of ["2", "3"]) {
    // It sent the step with this nonce; the first time the hub never got it, the second time its answer got lost.
    writeFileSync(file, sent);
    rmSync(sessionOf(directory));
    await loadAndSettle(hub, release({ program: revision }, { version: revision }));
    await update(directory, options(hub));
    assert.equal(content(directory), revision);
  }
  assert.deepEqual(await alarmsOf(hub), []);
  assert.notEqual(readFileSync(file, "utf8"), before);
});
