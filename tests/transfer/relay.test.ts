import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { readdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { readingToken, silentLogger } from "@lockstep/platform";
import { type Relay, startRelay } from "@lockstep/relay";
import { check, install, update } from "@lockstep/updater";
import { makeCertificate } from "../support/certificate.ts";
import type { SmallHub } from "../updater/small-hub.ts";
import { makeWorld, revisionOf, treeOf, type World } from "../updater/world.ts";

const targets = ["role:A"];

async function startBefore(t: TestContext, { hub, root }: World, name = "relay"): Promise<Relay> {
  const relay = await startRelay({
    dataDirectory: join(root, name),
    hub: { url: hub.url, caFile: null },
    listen: "127.0.0.1:0",
    tls: null,
    // One after the other nobody waits for neighbours.
    gathering: { windowMs: 0, holdMs: 0 },
    log: silentLogger,
  });
  t.after(() => relay.stop());
  return relay;
}

const asked = (hub: SmallHub, pattern: RegExp) => hub.requests.filter((each) => pattern.test(each)).length;
const sha256Of = (bytes: Buffer) => createHash("sha256").update(bytes).digest("hex");

test("what many installations ask for travels to the relay once", async (t) => {
  const world = await makeWorld(t);
  const { hub } = world;
  hub.steps = true;
  const files = (salt: string) =>
    Object.fromEntries(
      Array.from({ length: 30 }, (_, n) => [
        `f${n}`,
        { content: Buffer.from(`${n % 3 === 0 ? salt : ""}${n} `.repeat(2_000)), targets },
      ]),
    );
  const big = { content: randomBytes(2_500_000), targets };
  const other = { content: randomBytes(1_200_000), targets };
  hub.publish({ ...files("a"), big });
  const relay = await startBefore(t, world);
  const access = { environment: {}, url: hub.url, relay: relay.url };
  const places = Array.from({ length: 6 }, (_, n) => join(world.root, `i${n}`));
  for (const place of places) await install(place, { ...world.installOptions(["A"]), access });
  assert.equal(asked(hub, /bundle/), 1);
  assert.equal(asked(hub, /files/), 1);
  assert.equal(asked(hub, /manifests/), 1);
  const before = hub.contentBytes;
  hub.publish({ ...files("b"), big, other });
  // The others at once, so that they meet on the way.
  await update(places[0] ?? "", world.options());
  const one = hub.contentBytes - before;
  await Promise.all(places.slice(1).map((place) => update(place, world.options())));
  assert.equal(hub.contentBytes - before, one, "the others cost no contents");
  assert.deepEqual(places.map(revisionOf), [2, 2, 2, 2, 2, 2]);
  for (const place of places.slice(1)) assert.deepEqual(treeOf(place), treeOf(places[0] ?? ""));
  assert.equal(asked(hub, /installations/), 12, "each reports for itself");
});

test("a move of the semaphore is seen through the relay at once, and questions cost nothing meanwhile", async (t) => {
  const world = await makeWorld(t);
  const { hub } = world;
  hub.saysSigned = true;
  hub.publish({ a: { content: "a", targets } });
  const relay = await startBefore(t, world);
  const access = { environment: {}, url: hub.url, relay: relay.url };
  const place = join(world.root, "i");
  await install(place, { ...world.installOptions(["A"]), access });
  await check(place, world.options());
  // What the hub says of signatures goes on to installations, as it came.
  const signedAt = async (url: string, headers: Record<string, string>) =>
    (await fetch(`${url}/v1/revision`, { headers })).headers.get("lockstep-signed");
  const installation = { "lockstep-installation": "a" };
  assert.match(String(await signedAt(relay.url, installation)), /^1\.1\.[0-9a-f]{16}$/);
  assert.equal(await signedAt(relay.url, installation), await signedAt(hub.url, installation));
  assert.equal(await signedAt(relay.url, {}), null);
  const before = asked(hub, /revision$/);
  for (let n = 0; n < 20; n++) assert.equal((await check(place, world.options())).kind, "in-step");
  assert.ok(asked(hub, /revision$/) - before <= 1, "one poll lies at the hub");
  const waiting = fetch(`${relay.url}/v1/revision?after=1&wait=30`).then((answer) => answer.json());
  hub.publish({ a: { content: "b", targets } });
  assert.equal(((await waiting) as { revision: number }).revision, 2);
  assert.equal((await check(place, world.options())).kind, "behind");
});

test("only whom the hub has let read is given what is kept, and the hub away changes nothing of it", async (t) => {
  const world = await makeWorld(t);
  const { hub } = world;
  hub.token = "the-token-of-this-hub";
  const content = Buffer.from("kept ".repeat(100_000));
  const sha256 = hub.add(content);
  hub.publish({ a: { content, targets } });
  const relay = await startBefore(t, world);
  const get = (token: string | null, path = `/v1/files/sha256/${sha256}`) =>
    fetch(`${relay.url}${path}`, {
      headers: {
        "accept-encoding": "identity",
        ...(token === null ? {} : { authorization: `Bearer ${token}` }),
      },
    });
  const code = async (answer: Response) =>
    `${answer.status} ${((await answer.json()) as { error: { code: string } }).error.code}`;
  assert.equal(await code(await get("another-token-than-that")), "401 AUTHENTICATION_REQUIRED");
  const reader = readingToken(hub.token);
  assert.deepEqual(Buffer.from(await (await get(reader)).arrayBuffer()), content);
  assert.equal(
    await code(await get("another-token-than-that")),
    "401 AUTHENTICATION_REQUIRED",
    "though it is here",
  );
  assert.equal(await code(await get(null)), "401 AUTHENTICATION_REQUIRED");
  await hub.vanish();
  const here = await get(reader);
  assert.equal(here.headers.get("lockstep-relay"), "hit");
  assert.deepEqual(Buffer.from(await here.arrayBuffer()), content);
  assert.equal(await code(await get("another-token-than-that")), "502 HUB_UNREACHABLE");
  let said = "";
  // The poll that lay at the hub must have noticed. An old number would be shown as long as it has not.
  while (!said.startsWith("502")) {
    const answer = await get(null, "/v1/revision");
    said = answer.ok ? "" : await code(answer);
  }
  assert.equal(said, "502 HUB_UNREACHABLE", "and never an old number");
});

test("parts of a content are given from the cache and while it is coming; a cut costs nothing twice", async (t) => {
  const world = await makeWorld(t);
  const { hub } = world;
  const content = randomBytes(3_000_000);
  const sha256 = hub.add(content);
  hub.publish({ a: { content, targets } });
  hub.faults.cutAfterBytes = 700_000;
  hub.faults.cuts = 2;
  const relay = await startBefore(t, world);
  const get = (headers: Record<string, string>) =>
    fetch(`${relay.url}/v1/files/sha256/${sha256}`, {
      headers: { "accept-encoding": "identity", ...headers },
    });
  const whole = get({}).then((answer) => answer.arrayBuffer());
  const part = await get({ range: "bytes=1000000-1000009" });
  assert.equal(part.status, 206);
  assert.deepEqual(Buffer.from(await part.arrayBuffer()), content.subarray(1_000_000, 1_000_010));
  assert.equal(sha256Of(Buffer.from(await whole)), sha256);
  // What was in the line when it was cut is lost.
  assert.ok(hub.contentBytes < content.length * 1.1, `${hub.contentBytes} bytes`);
  const fetched = hub.contentBytes;
  const rest = await get({ range: "bytes=2999990-", "if-range": `"${sha256}"` });
  assert.equal(rest.headers.get("content-range"), "bytes 2999990-2999999/3000000");
  assert.deepEqual(Buffer.from(await rest.arrayBuffer()), content.subarray(2_999_990));
  assert.equal((await get({ range: "bytes=3000000-" })).status, 416);
  assert.equal((await get({ "if-none-match": `"${sha256}"` })).status, 304);
  assert.equal(hub.contentBytes, fetched);
});

test("what a relay fetched goes on after its restart, and damage on its disk is not served", async (t) => {
  const world = await makeWorld(t);
  const { hub, root } = world;
  const content = randomBytes(2_000_000);
  const sha256 = hub.add(content);
  hub.publish({ a: { content, targets } });
  const first = await startBefore(t, world);
  const get = (relay: Relay) =>
    fetch(`${relay.url}/v1/files/sha256/${sha256}`, { headers: { "accept-encoding": "identity" } });
  await (await get(first)).arrayBuffer();
  await first.stop();
  const contents = join(root, "relay/cache/contents/sha256");
  const files = readdirSync(contents, { recursive: true, withFileTypes: true }).filter((each) =>
    each.isFile(),
  );
  assert.equal(files.length, 1);
  const [file] = files;
  const path = join(file?.parentPath ?? "", file?.name ?? "");
  assert.equal(statSync(path).size, content.length);
  const damaged = Buffer.from(content);
  damaged[1_234] = (damaged[1_234] ?? 0) ^ 1;
  writeFileSync(path, damaged);
  const second = await startBefore(t, world);
  assert.equal(sha256Of(Buffer.from(await (await get(second)).arrayBuffer())), sha256);
  assert.equal(hub.contentBytes, 2 * content.length, "the damaged one was fetched again");
});

test("a hub that sends other bytes fills no cache, and nobody gets to their end", async (t) => {
  const world = await makeWorld(t);
  const { hub } = world;
  const content = randomBytes(1_500_000);
  const sha256 = hub.add(content);
  hub.publish({ a: { content, targets } });
  hub.faults.corrupt = (_, bytes) => Buffer.concat([bytes.subarray(0, -1), Buffer.from([1])]);
  const relay = await startBefore(t, world);
  const get = () =>
    fetch(`${relay.url}/v1/files/sha256/${sha256}`, { headers: { "accept-encoding": "identity" } });
  await assert.rejects(async () => await (await get()).arrayBuffer());
  delete hub.faults.corrupt;
  assert.equal(sha256Of(Buffer.from(await (await get()).arrayBuffer())), sha256);
});

test("a relay listens to other machines with a certificate alone, and says what its cache is for", async (t) => {
  const world = await makeWorld(t);
  await assert.rejects(
    startRelay({
      dataDirectory: join(world.root, "relay"),
      hub: { url: world.hub.url, caFile: null },
      listen: "0.0.0.0:0",
      tls: null,
      log: silentLogger,
    }),
    { code: "RELAY_LISTEN_REFUSED" },
  );
  const relay = await startBefore(t, world);
  const taken = startRelay({
    dataDirectory: join(world.root, "relay2"),
    hub: { url: world.hub.url, caFile: null },
    listen: relay.url.slice("http://".length),
    tls: null,
    log: silentLogger,
  });
  await assert.rejects(taken, { code: "RELAY_LISTEN_FAILED" });
  const answer = await fetch(`${relay.url}/v1/settings`);
  assert.equal(answer.status, 404);
});

test("between an installation and a relay tokens and contents travel by TLS", async (t) => {
  const world = await makeWorld(t);
  const { hub, root } = world;
  hub.token = "the-token-of-this-hub";
  hub.publish({ a: { content: "a", targets } });
  const { certFile, keyFile } = await makeCertificate(root);
  const relay = await startRelay({
    dataDirectory: join(root, "relay"),
    hub: { url: hub.url, caFile: null },
    listen: "127.0.0.1:0",
    tls: { certFile, keyFile },
    log: silentLogger,
  });
  t.after(() => relay.stop());
  assert.match(relay.url, /^https:/);
  const place = join(root, "i");
  const environment = { LOCKSTEP_TOKEN: hub.token };
  const access = { environment, url: hub.url, relay: relay.url, caFile: certFile };
  await install(place, { ...world.installOptions(["A"]), access });
  assert.equal(revisionOf(place), 1);
  const contents = () => asked(hub, /bundle|files|manifests/);
  const before = contents();
  const other = join(root, "j");
  await install(other, { ...world.installOptions(["A"]), access });
  assert.equal(contents(), before, "the relay was not left");
});
