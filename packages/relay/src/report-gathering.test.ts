import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { setImmediate } from "node:timers/promises";
import { type Clock, silentLogger, systemClock } from "@lockstep/platform";
import { LockstepError } from "@lockstep/protocol/wire";
import { startRelay } from "./relay.ts";
import { ReportGathering } from "./report-gathering.ts";
import type { Upstream } from "./upstream.ts";

/** Goes when it is told to; who sleeps is woken by a signal alone. */
class HandClock implements Clock {
  ms = 1_000_000;
  now = () => this.ms;
  monotonic = () => this.ms;
  sleep = (_: number, signal?: AbortSignal) =>
    new Promise<void>((wake) => {
      if (signal?.aborted === true) wake();
      signal?.addEventListener("abort", () => wake(), { once: true });
    });
}

function temporary(t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), "lockstep-gathering-"));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

/** Before a hub that knows no gathered reports. */
async function gatherBeforeFormer(t: TestContext) {
  const told: string[] = [];
  const refused = new Set<string>();
  const read: Upstream["read"] = ({ method, path, body }) => {
    if (method === "POST") told.push("together");
    const status = method === "POST" ? 404 : 204;
    const text = String(body);
    if (refused.has(text)) return Promise.reject(new LockstepError("AUTHENTICATION_FAILED", "no"));
    if (method === "PUT") told.push(`${path.split("/").at(-1)} ${text}`);
    return Promise.resolve({ status, headers: {}, body: Buffer.alloc(0) });
  };
  const hub = { read } as unknown as Upstream;
  const clock = new HandClock();
  const stop = new AbortController();
  const gathering = await ReportGathering.open(
    temporary(t),
    hub,
    { clock, log: silentLogger, stopping: stop.signal },
    { windowMs: 0, holdMs: 60_000, quietMs: 10_000, reportsMax: 128 },
  );
  const end = async () => {
    stop.abort();
    await gathering.ended();
    return told;
  };
  return { gathering, clock, refused, end };
}

const report = (installation: string, body: string) => ({ installation, authorization: null, body });

test("what came before a report that the hub accepted is not brought after it", async (t) => {
  const { gathering, refused, end } = await gatherBeforeFormer(t);
  assert.equal(await gathering.hold(report("a", "updated")), true);
  assert.equal(await gathering.hold(report("b", "updated")), true);
  refused.add("forged");
  await assert.rejects(gathering.send(report("b", "forged")));
  assert.equal((await gathering.send(report("a", "failed"))).status, 204);
  assert.deepEqual(await end(), ["a failed", "together", "b updated"]);
});

test("where all that is held became too old, nothing is sent", async (t) => {
  const { gathering, clock, end } = await gatherBeforeFormer(t);
  await gathering.hold(report("a", "updated"));
  clock.ms += 86_400_001;
  assert.deepEqual(await end(), []);
});

test("a relay that has ended waits for nothing more", async (t) => {
  let waiting = 0;
  const clock: Clock = {
    ...systemClock,
    sleep: async (ms, signal) => {
      waiting++;
      await systemClock.sleep(ms, signal);
      waiting--;
    },
  };
  const relay = await startRelay({
    dataDirectory: temporary(t),
    hub: { url: "http://127.0.0.1:9", caFile: null },
    listen: "127.0.0.1:0",
    tls: null,
    log: silentLogger,
    clock,
  });
  await relay.stop();
  await setImmediate();
  assert.equal(waiting, 0);
});
