import assert from "node:assert/strict";
import { createServer, type RequestListener } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { type TestContext, test } from "node:test";
import { HubClient, type HubOptions } from "@lockstep/client";
import { CONTENT_STREAM_TYPE, encodeEnd, encodeMagic, type InstallationReport } from "@lockstep/protocol";

/** What a connection to a hub bears: one that the hub closes while it is used again, and a process that stood still. */
async function clientOf(
  t: TestContext,
  answer: RequestListener,
  options: Partial<HubOptions> = {},
): Promise<HubClient> {
  const server = createServer(answer).listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const client = new HubClient({
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    ...options,
  });
  t.after(async () => {
    await client.close();
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });
  return client;
}

const semaphore = JSON.stringify({ revision: 1, autoUpdate: true, pollSeconds: 300 });
const report: InstallationReport = {
  host: "machine.example",
  directory: "/opt/a",
  roles: [],
  packages: [],
  revision: 1,
  outcome: "updated",
  problem: null,
  autoUpdate: true,
  updaterVersion: "0",
};

test("a connection that the hub closes just when it is used again costs no report and no bundle", async (t) => {
  const used = new Set<Socket>();
  const client = await clientOf(t, ({ method, socket, url }, response) => {
    if (used.has(socket)) return void socket.destroy();
    used.add(socket);
    if (method === "PUT") return void response.writeHead(204).end();
    if (url !== "/v1/bundle") return void response.end(semaphore);
    response.setHeader("content-type", CONTENT_STREAM_TYPE);
    response.end(Buffer.concat([encodeMagic(), encodeEnd(0)]));
  });
  await client.currentSemaphore();
  await client.report("a", report);
  for await (const _ of await client.bundle([]));
  await client.report("a", report);
  assert.equal(used.size, 4, "each question met a closed connection but the first");
  // The control: what must not happen twice is not sent twice.
  const load = client.setSettings({}).catch((error: { code: string }) => error.code);
  assert.equal(await load, "HUB_UNREACHABLE");
});

/** Does nothing at all, as a process does that was stopped. */
function standStill(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

test("a process that stood still takes its own silence for nobody else's", async (t) => {
  let stands = 1;
  const client = await clientOf(
    t,
    (_, response) => {
      if (stands-- > 0) standStill(300);
      response.end(semaphore);
    },
    { idleTimeoutMs: 100, connectTimeoutMs: 100 },
  );
  assert.equal((await client.currentSemaphore()).revision, 1);
  await client.close();
  const asked = client.currentSemaphore();
  // The request is made, and nothing of it has happened.
  for (let turn = 0; turn < 20; turn++) await null;
  standStill(300);
  assert.equal((await asked).revision, 1);
});

test("a hub that says nothing is given up", async (t) => {
  const client = await clientOf(t, () => {}, { idleTimeoutMs: 100 });
  await assert.rejects(client.currentSemaphore(), { code: "HUB_UNREACHABLE", found: "ETIMEDOUT" });
});

test("a hub that falls silent twice is given up the second time", async (t) => {
  const client = await clientOf(
    t,
    (_, response) => {
      response.setHeader("content-type", CONTENT_STREAM_TYPE);
      response.write(encodeMagic());
      // Before the last look after the first silence, and nothing after it.
      setTimeout(() => response.write(Buffer.from([0])), 700);
    },
    { idleTimeoutMs: 200 },
  );
  const read = async () => {
    for await (const _ of await client.bundle([]));
  };
  await assert.rejects(read(), { code: "HUB_UNREACHABLE" });
});
