import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { suite, test } from "node:test";
import { openEtcd } from "@lockstep/cluster";
import type { LeaseRecord } from "@lockstep/core";
import { systemClock } from "@lockstep/platform";
import { isLockstepError } from "@lockstep/protocol/wire";
import { findEtcd, freePorts, startEtcd } from "./etcd-cluster.ts";

const program = findEtcd();
const CALL_MS = 1500;
/** Where nothing is about time. */
const LONG_MS = 120_000;
const isUnreachable = (error: unknown) => isLockstepError(error) && error.code === "COORDINATION_UNREACHABLE";

const record = (write: number): LeaseRecord => ({ node: "a", instance: "a#1", token: 1, write, next: null });

/** Tries until it works: a lost leader takes a while to replace, and nothing here is about how long. */
async function untilItWorks<T>(attempt: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await attempt();
    } catch (error) {
      if (!isUnreachable(error)) throw error;
      await systemClock.sleep(50);
    }
  }
}

suite("etcd when members fail", { skip: program === null && "etcd is not on this machine" }, () => {
  test("goes on without one, fails in time without most, and is whole when they return", async (t) => {
    const etcd = await startEtcd(program ?? "");
    t.after(() => etcd.stop());
    const [local, second, third] = etcd.members;
    const store = openEtcd({ endpoints: etcd.endpoints, callMs: CALL_MS, clock: systemClock });
    t.after(() => store.close());
    const taken = await untilItWorks(() => store.swap("vs", { expected: 0, record: record(1), takes: true }));
    assert.ok(taken.swapped);

    const ending = new AbortController();
    let heard = 0;
    let tell = () => {};
    const watching = store.watch(
      "vs",
      ({ record }) => {
        heard = record?.write ?? 0;
        tell();
      },
      ending.signal,
    );
    const untilHeard = (write: number) =>
      new Promise<void>((resolve) => {
        tell = () => heard >= write && resolve();
        tell();
      });
    await untilHeard(1);

    // The local member freezes: the next call may fail, those after it go elsewhere.
    local.kill("SIGSTOP");
    const frozen = await untilItWorks(() => store.read("vs"));
    assert.deepEqual(frozen.record, record(1));
    const seen = await untilItWorks(() => store.read("vs"));
    const renewed = await untilItWorks(() =>
      store.swap("vs", { expected: seen.revision, record: record(2), takes: false }),
    );
    // It may have happened in a call that failed; then the refusal shows our own write.
    const at = renewed.swapped ? renewed.revision : renewed.observation.revision;
    assert.ok(renewed.swapped || renewed.observation.record?.write === 2);
    assert.equal(await untilItWorks(() => store.writeGuarded("vs", 1, new Map([["k", "kept"]]))), true);
    local.kill("SIGCONT");

    // Most members die: nothing is answered, nothing hangs.
    second.kill("SIGKILL");
    third.kill("SIGKILL");
    await assert.rejects(async () => {
      // A leader that has not noticed yet may still answer a little.
      for (;;) await store.swap("vs", { expected: at, record: record(99), takes: false });
    }, isUnreachable);
    await assert.rejects(() => store.read("vs"), isUnreachable);
    await second.restart();
    await third.restart();
    const back = await untilItWorks(() => store.read("vs"));
    assert.ok(back.record?.write === 2 || back.record?.write === 99);
    assert.equal((await untilItWorks(() => store.readValues("vs"))).get("k"), "kept");
    await untilItWorks(async () => {
      const present = await store.read("vs");
      if (present.record?.write === 100) return;
      await store.swap("vs", { expected: present.revision, record: record(100), takes: false });
    });
    await untilHeard(100);
    ending.abort();
    await watching;
  });
});

test("something else than etcd is told apart from an etcd that is away", async (t) => {
  const server = createServer((_, response) => response.end("<html>Welcome</html>"));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => server.close());
  const { port } = server.address() as AddressInfo;
  const store = openEtcd({ endpoints: [`http://127.0.0.1:${port}`], callMs: LONG_MS, clock: systemClock });
  await assert.rejects(
    () => store.read("vs"),
    (error: unknown) => isLockstepError(error) && error.code === "COORDINATION_ANSWER_INVALID",
  );
});

test("a member that refuses connections is passed over within the same call", async (t) => {
  const asked: string[] = [];
  const server = createServer((request, response) => {
    asked.push(request.url ?? "");
    response.end(JSON.stringify({ header: { revision: "5" } }));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => server.close());
  const [closed] = await freePorts(1);
  const { port } = server.address() as AddressInfo;
  const endpoints = [`http://127.0.0.1:${closed}`, `http://127.0.0.1:${port}`];
  const store = openEtcd({ endpoints, callMs: LONG_MS, clock: systemClock });
  assert.deepEqual(await store.read("vs"), { record: null, revision: 0 });
  assert.deepEqual(asked, ["/v3/kv/range"]);
});
