import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdirSync, readdirSync } from "node:fs";
import { createServer, request as httpRequest } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { HubClient } from "@lockstep/client";
import {
  baseNameOf,
  type Clock,
  EMPTY_BASE,
  extendBase,
  packAnswers,
  packReports,
  readingToken,
  silentLogger,
  systemClock,
  unpackReports,
} from "@lockstep/platform";
import type { InstallationReport } from "@lockstep/protocol";
import { type Relay, startRelay } from "@lockstep/relay";
import { install, update } from "@lockstep/updater";
import { ask, codeOf } from "../hub/support/requests.ts";
import { startTestHub, type TestHub, temporaryDirectory } from "../hub/support/test-hub.ts";
import { usePostgres } from "../support/postgres.ts";
import { makeWorld } from "../updater/world.ts";

/** Reports for whose answer nobody waits: taken by the relay, and few bytes on the line. Nothing here waits for a time to pass. */
const server = usePostgres();
const LONG_MS = 600_000;
/** Who sleeps for seconds is woken by what happens, never by the time. */
const clock: Clock = {
  ...systemClock,
  sleep: async (ms, signal) => {
    if (ms <= 1_000 || signal === undefined) return await systemClock.sleep(ms, signal);
    if (!signal.aborted) await once(signal, "abort");
  },
};

/** What is held goes along with the first report that is waited for. */
async function relayBefore(t: TestContext, url: string, directory: string): Promise<Relay> {
  const relay = await startRelay({
    dataDirectory: join(directory, "relay"),
    hub: { url, caFile: null },
    listen: "127.0.0.1:0",
    tls: null,
    gathering: { windowMs: LONG_MS, reportsMax: 1, holdMs: LONG_MS, quietMs: LONG_MS },
    log: silentLogger,
    clock,
  });
  t.after(() => relay.stop());
  return relay;
}

interface Line {
  readonly url: string;
  /** Where it leads; null: nowhere. */
  hub: string | null;
  /** Requests that carried reports, with the lengths of their bodies, since the last time. */
  take(): { readonly what: string; readonly bytes: number; readonly status: number }[];
}

async function notedLine(t: TestContext, hub: string): Promise<Line> {
  let noted: { what: string; bytes: number; status: number }[] = [];
  const line: Line = {
    url: "",
    hub,
    take() {
      const taken = noted;
      noted = [];
      return taken;
    },
  };
  const gate = createServer((near, answer) => {
    if (line.hub === null) return void near.socket.destroy();
    const { method, headers } = near;
    const far = httpRequest(new URL(near.url ?? "/", line.hub), { method, headers });
    far.once("response", (response) => {
      const status = response.statusCode ?? 0;
      if (near.url?.includes("/installations"))
        noted.push({ what: `${method} ${near.url}`, bytes: Number(headers["content-length"]), status });
      answer.writeHead(status, response.headers);
      response.pipe(answer);
    });
    far.once("error", () => answer.destroy());
    answer.once("close", () => far.destroy());
    near.pipe(far);
  });
  return Object.assign(line, { url: await listening(t, gate) });
}

async function listening(t: TestContext, server: ReturnType<typeof createServer>): Promise<string> {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

const reportOf = (directory: string, revision = 7): InstallationReport => ({
  host: "machine.example",
  directory,
  roles: ["Server"],
  packages: [],
  revision,
  outcome: "updated",
  problem: null,
  autoUpdate: true,
  updaterVersion: "1.0.0",
});

/** `waits`: somebody wants the hub's answer, as for what went wrong. */
async function put(
  relay: Relay,
  id: string,
  token: string | null,
  report: InstallationReport,
  waits = false,
): Promise<number> {
  const answer = await fetch(`${relay.url}/v1/installations/${id}`, {
    method: "PUT",
    headers: {
      "content-type": "application/json",
      ...(waits ? {} : { prefer: "respond-async" }),
      ...(token === null ? {} : { authorization: `Bearer ${token}` }),
    },
    body: JSON.stringify(report),
  });
  await answer.arrayBuffer();
  return answer.status;
}

async function heardBy(hub: TestHub): Promise<ReadonlyMap<string, number | null>> {
  const client = new HubClient({ url: hub.url, token: hub.token });
  try {
    return new Map((await client.installations()).installations.map(({ id, revision }) => [id, revision]));
  } finally {
    await client.close();
  }
}

const IDS = Array.from({ length: 20 }, (_, n) => `${(n * 0x9e3779b97f4a).toString(16)}-installation`).sort();
const all = (revision: number) => new Map([...IDS, "who-waits"].map((id) => [id, revision]));

/** Twenty whom nobody waits for, and one. */
async function putAll(relay: Relay, token: string, revision: number): Promise<void> {
  for (const id of IDS) assert.equal(await put(relay, id, token, reportOf(`/opt/${id}`, revision)), 202);
  assert.equal(await put(relay, "who-waits", token, reportOf("/opt/who-waits", revision), true), 204);
}

test("reports for which nobody waits are one request, the next time of a few bytes each, and a hub that forgot gets all", async (t) => {
  const hub = await startTestHub(t, server);
  const line = await notedLine(t, hub.url);
  const relay = await relayBefore(t, line.url, await temporaryDirectory(t));
  const reader = readingToken(hub.token);
  await putAll(relay, reader, 7);
  const [first, ...others] = line.take();
  assert.deepEqual(others, [], "all in one");
  assert.equal(first?.what, "POST /v1/installations/reports");
  assert.deepEqual(await heardBy(hub), all(7));
  await putAll(relay, reader, 8);
  const [next, ...more] = line.take();
  assert.deepEqual(more, []);
  assert.ok((next?.bytes ?? 0) < 0.5 * (first?.bytes ?? 0), `${next?.bytes} after ${first?.bytes} bytes`);
  assert.deepEqual(await heardBy(hub), all(8));
  await hub.stop();
  const other = await startTestHub(t, server, { shared: hub.database, dataDirectory: hub.directory });
  line.hub = other.url;
  await putAll(relay, reader, 9);
  assert.deepEqual(
    line.take().map(({ status }) => status),
    [409, 204],
  );
  assert.deepEqual(await heardBy(other), all(9));
});

test("what was taken outlives the relay and a hub that is away; who shows no good token is not heard", async (t) => {
  const hub = await startTestHub(t, server);
  const line = await notedLine(t, hub.url);
  const directory = await temporaryDirectory(t);
  const reader = readingToken(hub.token);
  const before = await relayBefore(t, line.url, directory);
  assert.equal(await put(before, "wrong", "another-token", reportOf("/wrong")), 403);
  assert.equal(await put(before, "none", null, reportOf("/none")), 401);
  assert.equal(await put(before, "a", reader, reportOf("/a", 7)), 202);
  assert.equal(await put(before, "a", reader, reportOf("/a", 8)), 202);
  assert.equal(await put(before, "b", reader, reportOf("/b", 8)), 202);
  line.hub = null;
  await before.stop();
  assert.deepEqual(readdirSync(join(directory, "relay/reports")).sort(), ["a.json", "b.json"]);
  line.hub = hub.url;
  const after = await relayBefore(t, line.url, directory);
  // Whoever has the token asks for anything: an agent in step, for the software revision alone.
  const headers = { authorization: `Bearer ${reader}` };
  await (await fetch(`${after.url}/v1/revision`, { headers })).arrayBuffer();
  assert.equal(await put(after, "c", reader, reportOf("/c", 8), true), 204);
  const heard = [...(await heardBy(hub))].sort();
  assert.deepEqual(
    heard,
    ["a", "b", "c"].map((id) => [id, 8]),
  );
});

test("a relay that ends sends what it holds", async (t) => {
  const hub = await startTestHub(t, server);
  const relay = await relayBefore(t, hub.url, await temporaryDirectory(t));
  assert.equal(await put(relay, "a", readingToken(hub.token), reportOf("/a")), 202);
  assert.equal((await heardBy(hub)).size, 0);
  await relay.stop();
  assert.deepEqual([...(await heardBy(hub))], [["a", 7]]);
});

test("an older report changes nothing that was said later; one of another base, or of rubbish, nothing at all", async (t) => {
  const hub = await startTestHub(t, server);
  const authorization = `Bearer ${hub.token}`;
  const reader = { authorization, "content-type": "application/json" };
  const report = (id: string, revision: number, age: string) =>
    ask(hub, "PUT", `/v1/installations/${id}`, {
      headers: { ...reader, "lockstep-age": age },
      body: Buffer.from(JSON.stringify(reportOf(`/${id}`, revision))),
    });
  assert.equal((await report("a", 8, "0")).status, 204);
  assert.equal((await report("a", 7, "3600")).status, 204, "it has been heard");
  assert.equal((await report("b", 7, "3600")).status, 204);
  for (const wrong of ["-1", "1.5", "86401", "x"]) assert.equal((await report("c", 7, wrong)).status, 400);
  const client = new HubClient({ url: hub.url, token: hub.token });
  t.after(() => client.close());
  const { installations } = await client.installations();
  const [a, b] = installations;
  assert.deepEqual([installations.length, a?.revision, b?.revision], [2, 8, 7]);
  assert.ok((a?.seenAt ?? 0) - (b?.seenAt ?? 0) > 3_000_000, "heard an hour before");

  const headers = { "content-type": "application/vnd.lockstep.reports" };
  const send = async (body: Buffer) => {
    const answer = await ask(hub, "POST", "/v1/installations/reports", { headers, token: null, body });
    return answer.status === 204 ? "204" : `${answer.status} ${codeOf(answer)}`;
  };
  const body = JSON.stringify(reportOf("/d"));
  const of = { installation: "d", authorization, body, ageSeconds: 0 };
  const strange = extendBase(EMPTY_BASE, [of]);
  assert.equal(await send(packReports([of], strange)), "409 REPORT_BASE_UNKNOWN");
  const cut = packReports([of]);
  assert.equal(await send(cut.subarray(0, cut.length - 3)), "400 REQUEST_INVALID");
  const flipped = Buffer.from(cut);
  flipped.writeUIntBE(0xffffff, 17, 3);
  assert.equal(await send(flipped), "400 REQUEST_INVALID");
  assert.equal((await heardBy(hub)).size, 2, "nothing of them");
  assert.equal(await send(cut), "204", "the control");
  assert.equal((await heardBy(hub)).get("d"), 7);
});

test("a hub of an older version gets what is held as it reads it", async (t) => {
  const bodies: Buffer[] = [];
  const hub = createServer((request, answer) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      const body = Buffer.concat(chunks);
      if (request.method !== "POST") return answer.writeHead(200).end("{}");
      bodies.push(body);
      const reports = baseNameOf(body) === null ? unpackReports(body) : null;
      if (reports === null) return answer.writeHead(400).end();
      return answer
        .writeHead(200)
        .end(packAnswers(reports.map(() => ({ status: 204, type: "", body: "", retryAfter: null }))));
    });
  });
  const relay = await relayBefore(t, await listening(t, hub), await temporaryDirectory(t));
  for (const id of ["a", "b"]) assert.equal(await put(relay, id, null, reportOf(`/${id}`)), 202);
  assert.equal(await put(relay, "c", null, reportOf("/c"), true), 204);
  assert.equal(bodies.length, 2);
  const read = unpackReports(bodies[1] ?? Buffer.alloc(0)) ?? [];
  assert.deepEqual(
    read.map(({ installation }) => installation),
    ["a", "b", "c"],
  );
});

test("an update that went well waits for no answer; what went wrong, or comes from one that enrolled, is told at once", async (t) => {
  const world = await makeWorld(t);
  const { hub } = world;
  const targets = ["role:A"];
  hub.publish({ a: { content: "1", targets } });
  const relay = await relayBefore(t, hub.url, world.root);
  const access = { environment: {}, url: hub.url, relay: relay.url };
  const place = join(world.root, "place");
  await install(place, { ...world.installOptions(["A"]), access });
  assert.equal(hub.reports.size, 0, "the relay holds it");
  mkdirSync(join(place, ".lockstep/identity"), { recursive: true });
  hub.publish({ a: { content: "2", targets } });
  await update(place, world.options());
  assert.deepEqual(
    [...hub.reports.values()].map(({ revision }) => revision),
    [2],
  );
});
