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

test("after a failure the member that answers is asked until all has been well for a while, then the nearest again", async (t) => {
  const [near, far] = [await member(t, false), await member(t, true)];
  let now = 0;
  const endpoints = [near.endpoint, far.endpoint];
  const gateway = new EtcdGateway({ endpoints, callMs: 2_000, monotonic: () => now });
  t.after(() => gateway.close());
  const call = () => gateway.call("/v3/kv/range", {});
  const unreachable = (error: unknown) => isLockstepError(error, "COORDINATION_UNREACHABLE");
  await assert.rejects(call, unreachable);
  await call();
  assert.equal(far.asked(), 1);
  now = 6_000;
  await call();
  assert.equal(far.asked(), 2, "a dead member would cost this call its time");
  now = 16_000;
  await assert.rejects(call, unreachable);
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
  const gateway = new EtcdGateway({ endpoints, callMs: 3_000, monotonic: () => ++now });
  t.after(() => gateway.close());
  const hung = assert.rejects(gateway.call("/v3/kv/range", {}), (error: unknown) =>
    isLockstepError(error, "COORDINATION_UNREACHABLE"),
  );
  while (requests === 0) await new Promise((resolve) => setTimeout(resolve, 1));
  await gateway.call("/v3/kv/range", {});
  await hung;
  await gateway.call("/v3/kv/range", {});
  assert.deepEqual([requests, far.asked()], [3, 0]);
});
