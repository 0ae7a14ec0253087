import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { HubClient, InstallationClient } from "@lockstep/client";
import { readingToken, silentLogger, systemClock } from "@lockstep/platform";
import { startRelay } from "@lockstep/relay";
import { mayBeOrdered, readChanges, readOrdered, readTimestamp } from "@lockstep/trust";
import { check, install, update } from "@lockstep/updater";
import { loadAndSettle, release } from "../hub/support/release.ts";
import { ask } from "../hub/support/requests.ts";
import { startTestHub, temporaryDirectory } from "../hub/support/test-hub.ts";
import { usePostgres } from "../support/postgres.ts";

const server = usePostgres();

test("an order for one installation reaches it through a relay, and its neighbours go on", async (t) => {
  const hub = await startTestHub(t, server);
  const load = (text: string) => loadAndSettle(hub, release({ program: text }, { version: text }));
  const root = await temporaryDirectory(t);
  await load("1");
  const relay = await startRelay({
    dataDirectory: join(root, "relay"),
    hub: { url: hub.url, caFile: null },
    listen: "127.0.0.1:0",
    tls: null,
    // What the hub has heard is looked at at once.
    gathering: { holdMs: 0 },
    log: silentLogger,
  });
  t.after(() => relay.stop());
  const access = { environment: { LOCKSTEP_TOKEN: hub.token }, url: hub.url, relay: relay.url };
  const options = { access, selfUpdate: false };
  const [held, free] = [join(root, "held"), join(root, "free")];
  for (const directory of [held, free]) await install(directory, { ...options, roles: ["Server"] });
  const client = new HubClient({ url: hub.url, token: hub.token });
  t.after(() => client.close());
  const { installations } = await client.installations();
  const id = installations.find(({ directory }) => directory === held)?.id ?? "";
  await new InstallationClient(client).giveOrder(id, { revision: 1, permit: null });
  await load("2");
  // What the hub announces to whom, the relay announces to him.
  for (const { url } of [hub, relay]) {
    const at = { url, token: hub.token };
    const announced = async (headers: Record<string, string>) =>
      (await ask(at, "GET", "/v1/revision", { headers })).json().revision;
    assert.equal(await announced({ "lockstep-installation": id }), 1);
    // The controls: nobody in particular, and somebody else.
    assert.equal(await announced({}), 2);
    assert.equal(await announced({ "lockstep-installation": "somebody-else" }), 2);
  }
  assert.equal((await check(held, options)).kind, "in-step");
  assert.equal((await check(free, options)).kind, "behind");
  for (const directory of [held, free]) await update(directory, options);
  const content = (directory: string) => readFileSync(join(directory, "program"), "utf8");
  assert.deepEqual([content(held), content(free)], ["1", "2"]);
});

test("a relay hears of an order at once, and keeps no signed metadata from before it", async (t) => {
  const hub = await startTestHub(t, server);
  const load = (text: string) => loadAndSettle(hub, release({ program: text }, { version: text }));
  const root = await temporaryDirectory(t);
  await load("1");
  const relay = await startRelay({
    dataDirectory: join(root, "relay"),
    hub: { url: hub.url, caFile: null },
    listen: "127.0.0.1:0",
    tls: null,
    // What the hub has heard is looked at at once.
    gathering: { holdMs: 0 },
    log: silentLogger,
    // Nothing grows old by itself.
    clock: { ...systemClock, monotonic: () => 0 },
  });
  t.after(() => relay.stop());
  const access = { environment: { LOCKSTEP_TOKEN: hub.token }, url: hub.url, relay: relay.url };
  const options = { access, selfUpdate: false };
  const directory = join(root, "held");
  await install(directory, { ...options, roles: ["Server"] });
  const client = new HubClient({ url: hub.url, token: hub.token });
  t.after(() => client.close());
  const id = (await client.installations()).installations[0]?.id ?? "";
  await load("2");
  const at = { url: relay.url, token: readingToken(hub.token) };
  const moved = async (after: number) => {
    const headers = { "lockstep-installation": id };
    return (await ask(at, "GET", `/v1/revision?after=${after}&wait=50`, { headers })).json().revision;
  };
  assert.equal(await moved(1), 2);
  const path = "/v1/trust/changes?root=1&snapshot=1&targets=1&epoch=1&log=1";
  const said = async () => {
    const { body, headers } = await ask(at, "GET", path);
    const document = readChanges(body).documents.get("timestamp.json") ?? Buffer.from("{}");
    const list = readOrdered(readTimestamp(document).signed);
    return [headers["lockstep-relay"], mayBeOrdered(list, id, Date.now())];
  };
  assert.deepEqual(await said(), ["asked", false]);
  assert.deepEqual(await said(), ["hit", false], "the control: it is kept");
  const told = moved(2);
  await new InstallationClient(client).giveOrder(id, { revision: 1, permit: null });
  assert.equal(await told, 1);
  assert.deepEqual(await said(), ["asked", true]);
  assert.deepEqual(await said(), ["hit", true]);
  // It goes by what is signed, whatever was announced to it.
  const semaphore = { revision: 2, autoUpdate: true, pollSeconds: 300 };
  const announced = { semaphore, atMs: systemClock.monotonic() };
  assert.equal((await update(directory, { ...options, announced })).kind, "already-in-step");
  assert.equal(readFileSync(join(directory, "program"), "utf8"), "1");
});
