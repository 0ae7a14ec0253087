import assert from "node:assert/strict";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { type TestContext, test } from "node:test";
import { isLockstepError } from "@lockstep/protocol/wire";
import { EtcdGateway } from "./etcd-gateway.ts";

/** A member that answers, or says nothing at all. */
async function member(t: TestContext, answers: boolean) {
  let asked = 0;
  const server: Server = createServer((_request, response) => {
    asked += 1;
    if (answers) response.end("{}");
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return { endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, asked: () => asked };
}

/** Far above what is needed: where a call's time is over the test says so. */
const CALL_MS = 120_000;

/** A call that its member has got when its time is over. */
async function hang(gateway: EtcdGateway, asked: () => number): Promise<void> {
  const [limit, before] = [new AbortController(), asked()];
  const called = assert.rejects(gateway.call("/v3/kv/range", {}, limit.signal), (error: unknown) =>
    isLockstepError(error, "COORDINATION_UNREACHABLE"),
  );
  while (asked() === before) await new Promise((resolve) => setTimeout(resolve, 1));
  limit.abort();
  await called;
}

test("after a failure the member that answers is asked until all has been well for a while, then the nearest again", async (t) => {
  const [near, far] = [await member(t, false), await member(t, true)];
  let now = 0;
  const endpoints = [near.endpoint, far.endpoint];
  const gateway = new EtcdGateway({ endpoints, callMs: CALL_MS, monotonic: () => now });
  t.after(() => gateway.close());
  const call = () => gateway.call("/v3/kv/range", {});
  await hang(gateway, near.asked);
  await call();
  assert.equal(far.asked(), 1);
  now = 6_000;
  await call();
  assert.equal(far.asked(), 2, "a dead member would cost this call its time");
  now = 16_000;
  await hang(gateway, near.asked);
  assert.equal(far.asked(), 2);
  await call();
  assert.equal(far.asked(), 3);
});

test("a call that hung says nothing against a member that has answered since", async (t) => {
  let requests = 0;
  const near: Server = createServer((_request, response) => {
    requests += 1;
    if (requests > 1) response.end("{}");
  });
  await new Promise<void>((resolve) => near.listen(0, "127.0.0.1", resolve));
  t.after(() => {
    near.closeAllConnections();
    near.close();
  });
  const far = await member(t, true);
  let now = 0;
  const endpoints = [`http://127.0.0.1:${(near.address() as AddressInfo).port}`, far.endpoint];
  const gateway = new EtcdGateway({ endpoints, callMs: CALL_MS, monotonic: () => ++now });
  t.after(() => gateway.close());
  const limit = new AbortController();
  const hung = assert.rejects(gateway.call("/v3/kv/range", {}, limit.signal), (error: unknown) =>
    isLockstepError(error, "COORDINATION_UNREACHABLE"),
  );
  while (requests === 0) await new Promise((resolve) => setTimeout(resolve, 1));
  await gateway.call("/v3/kv/range", {});
  limit.abort();
  await hung;
  await gateway.call("/v3/kv/range", {});
  assert.deepEqual([requests, far.asked()], [3, 0]);
});

test("a member that does not know of the new login yet is asked again, one that refuses it is not", async (t) => {
  let [logins, unknown, refusal] = [0, 0, "etcdserver: invalid auth token"];
  const server = createServer((request, response) => {
    if (request.url === "/v3/auth/authenticate") {
      logins += 1;
      response.end('{"token":"t"}');
    } else if (unknown === 0) response.end("{}");
    else {
      unknown -= 1;
      response.writeHead(401).end(JSON.stringify({ error: refusal }));
    }
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const endpoints = [`http://127.0.0.1:${(server.address() as AddressInfo).port}`];
  const login = { user: "u", password: "p" };
  const gateway = new EtcdGateway({ endpoints, callMs: CALL_MS, login, monotonic: () => 0 });
  t.after(() => gateway.close());
  unknown = 4;
  await gateway.ask("/v3/kv/range", {});
  assert.deepEqual([unknown, logins], [0, 5]);
  [unknown, refusal] = [4, "etcdserver: permission denied"];
  await assert.rejects(gateway.ask("/v3/kv/range", {}), (error: unknown) =>
    isLockstepError(error, "COORDINATION_REFUSED"),
  );
  assert.deepEqual([unknown, logins], [2, 6]);
});
