import assert from "node:assert/strict";
import { createServer, request as httpRequest } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { HubClient } from "@lockstep/client";
import { packReports, readingToken, silentLogger } from "@lockstep/platform";
import type { InstallationReport } from "@lockstep/protocol";
import { type Relay, startRelay } from "@lockstep/relay";
import { ask } from "../hub/support/requests.ts";
import { startTestHub, temporaryDirectory } from "../hub/support/test-hub.ts";
import { usePostgres } from "../support/postgres.ts";
import { makeWorld } from "../updater/world.ts";

/** Reports of neighbours: together on the line, each judged by itself. */
const server = usePostgres();
const LONG_MS = 600_000;

/** Waits for as many as there are: nothing here depends on how fast they come. */
async function relayBefore(
  t: TestContext,
  url: string,
  directory: string,
  reportsMax: number,
): Promise<Relay> {
  const relay = await startRelay({
    dataDirectory: join(directory, "relay"),
    hub: { url, caFile: null },
    listen: "127.0.0.1:0",
    tls: null,
    gathering: { windowMs: LONG_MS, reportsMax },
    log: silentLogger,
  });
  t.after(() => relay.stop());
  return relay;
}

/** Hands every request on to the hub, and notes it. */
async function notedLine(t: TestContext, hub: string): Promise<{ url: string; requests: string[] }> {
  const requests: string[] = [];
  const line = createServer((near, answer) => {
    requests.push(`${near.method} ${near.url}`);
    const far = httpRequest(new URL(near.url ?? "/", hub), { method: near.method, headers: near.headers });
    far.once("response", (response) => {
      answer.writeHead(response.statusCode ?? 0, response.headers);
      response.pipe(answer);
    });
    far.once("error", () => answer.destroy());
    answer.once("close", () => far.destroy());
    near.pipe(far);
  });
  await new Promise<void>((resolve) => line.listen(0, "127.0.0.1", resolve));
  t.after(() => {
    line.closeAllConnections();
    line.close();
  });
  return { url: `http://127.0.0.1:${(line.address() as AddressInfo).port}`, requests };
}

const reportOf = (directory: string): InstallationReport => ({
  host: "machine.example",
  directory,
  roles: ["Server"],
  packages: [],
  revision: 7,
  outcome: "in-step",
  problem: null,
  autoUpdate: true,
  updaterVersion: "1.0.0",
});

async function put(relay: Relay, id: string, token: string | null, body: unknown): Promise<string> {
  const answer = await fetch(`${relay.url}/v1/installations/${id}`, {
    method: "PUT",
    headers: {
      "content-type": "application/json",
      ...(token === null ? {} : { authorization: `Bearer ${token}` }),
    },
    body: JSON.stringify(body),
  });
  const text = await answer.text();
  const code = text.startsWith('{"error"')
    ? (JSON.parse(text) as { error: { code: string } }).error.code
    : text;
  return `${answer.status} ${code}`.trim();
}

test("reports that come together are one request to the hub, and each gets its own answer", async (t) => {
  const hub = await startTestHub(t, server);
  const line = await notedLine(t, hub.url);
  const relay = await relayBefore(t, line.url, await temporaryDirectory(t), 5);
  const reader = readingToken(hub.token);
  const client = new HubClient({ url: hub.url, token: hub.token });
  t.after(() => client.close());
  await client.report("known-1", reportOf("/before"));
  const answers = await Promise.all([
    put(relay, "known-1", reader, reportOf("/after")),
    put(relay, "never-seen", reader, reportOf("/new")),
    put(relay, "wrong-token", "another-token-than-that", reportOf("/wrong")),
    put(relay, "no-token", null, reportOf("/none")),
    put(relay, "no-report", reader, { host: 1 }),
  ]);
  assert.deepEqual(answers, [
    "204",
    "204",
    "403 AUTHENTICATION_FAILED",
    "401 AUTHENTICATION_REQUIRED",
    "400 REQUEST_INVALID",
  ]);
  const reports = line.requests.filter((each) => each.includes("installations"));
  assert.deepEqual(reports, ["POST /v1/installations/reports"]);
  const { installations } = await client.installations();
  const told = installations.map(({ id, directory }) => `${id} ${directory}`).sort();
  assert.deepEqual(told, ["known-1 /after", "never-seen /new"], "what was refused left nothing");
});

test("what is no gathering of reports, or more than allowed, is refused as a whole", async (t) => {
  const hub = await startTestHub(t, server);
  const headers = { "content-type": "application/vnd.lockstep.reports" };
  const send = async (body: Buffer, type = headers) => {
    const answer = await ask(hub, "POST", "/v1/installations/reports", { headers: type, token: null, body });
    return answer.status;
  };
  const authorization = `Bearer ${hub.token}`;
  const of = (count: number, body: string) =>
    packReports(
      Array.from({ length: count }, (_, n) => ({
        installation: `i-${n}`,
        authorization,
        body,
        ageSeconds: 0,
      })),
    );
  assert.equal(await send(of(2, JSON.stringify(reportOf("/a")))), 204, "the control");
  const upwards = [{ installation: "..", authorization, body: "{}", ageSeconds: 0 }];
  assert.equal(await send(packReports(upwards)), 400, "another address");
  assert.equal(await send(of(129, "{}")), 400, "too many");
  assert.equal(await send(of(100, "x".repeat(32_000))), 400, "few bytes that become millions");
  assert.equal(await send(Buffer.from("nothing of that kind")), 400);
  assert.equal(await send(Buffer.alloc(600_000)), 413);
  assert.equal(await send(Buffer.from("{}"), { "content-type": "application/json" }), 400);
});

test("to a hub that reads no such gathering each report goes by itself, and it is not asked again", async (t) => {
  const requests: string[] = [];
  const hub = createServer((request, answer) => {
    requests.push(`${request.method} ${request.url}`);
    request.resume();
    answer.writeHead(request.method === "POST" ? 400 : 204).end();
  });
  await new Promise<void>((resolve) => hub.listen(0, "127.0.0.1", resolve));
  t.after(() => hub.closeAllConnections());
  t.after(() => hub.close());
  const url = `http://127.0.0.1:${(hub.address() as AddressInfo).port}`;
  const relay = await relayBefore(t, url, await temporaryDirectory(t), 2);
  const both = () => Promise.all(["a", "b"].map((id) => put(relay, id, null, reportOf(`/${id}`))));
  assert.deepEqual(await both(), ["204", "204"]);
  assert.deepEqual(await both(), ["204", "204"]);
  const reports = requests.filter((each) => each.includes("installations")).sort();
  assert.deepEqual(reports, [
    "POST /v1/installations/reports",
    "POST /v1/installations/reports",
    ...["a", "a", "b", "b"].map((id) => `PUT /v1/installations/${id}`),
  ]);
});

test("to a hub that takes no reports together each goes by itself, and it is not asked again", async (t) => {
  const world = await makeWorld(t);
  const { hub } = world;
  const relay = await relayBefore(t, hub.url, world.root, 2);
  const both = () => Promise.all(["a", "b"].map((id) => put(relay, id, null, reportOf(`/${id}`))));
  assert.deepEqual(await both(), ["200 {}", "200 {}"]);
  assert.deepEqual(await both(), ["200 {}", "200 {}"]);
  const reports = hub.requests.filter((each) => each.includes("installations")).sort();
  assert.deepEqual(reports, [
    "POST /v1/installations/reports",
    ...["a", "a", "b", "b"].map((id) => `PUT /v1/installations/${id}`),
  ]);
  assert.deepEqual([...hub.reports.keys()].sort(), ["a", "b"]);
});

test("what the hub did not acknowledge, the relay does not", async (t) => {
  const world = await makeWorld(t);
  const relay = await relayBefore(t, world.hub.url, world.root, 2);
  await world.hub.vanish();
  const answers = await Promise.all(["a", "b"].map((id) => put(relay, id, null, reportOf(`/${id}`))));
  assert.deepEqual(answers, ["502 HUB_UNREACHABLE", "502 HUB_UNREACHABLE"]);
});
