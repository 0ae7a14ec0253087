import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { DEFAULT_VIRTUAL_SERVER, NODE_REPORT, type VirtualServerDefinition } from "@lockstep/core";
import { type Clock, silentLogger, systemClock } from "@lockstep/platform";
import { SimDocumentStore } from "@lockstep/testing";
import type { Documents } from "../coordination/documents.ts";
import { at, REPORTS } from "../documents/addresses.ts";
import type { ClusterMirror } from "./cluster-mirror.ts";
import { Heartbeat } from "./heartbeat.ts";

test("a beat tells of the files of the definitions that there are now, also of one that was defined anew", async (t) => {
  const directory = await mkdtemp(join(tmpdir(), "lockstep-test-heartbeat-"));
  t.after(() => rm(directory, { recursive: true, force: true }));
  const path = join(directory, "app.toml");
  await writeFile(path, "one\n");
  const store = new SimDocumentStore();
  const mirror = {
    cluster: null,
    members: new Map(),
    servers: new Map<string, VirtualServerDefinition>(),
    reports: async () => new Map(),
  };
  // From beat to beat no time passes.
  let next = () => {};
  const clock: Clock = {
    ...systemClock,
    monotonic: () => 0,
    sleep: (ms, signal) =>
      // A file is waited for as long as it takes.
      ms < 1_000
        ? systemClock.sleep(60_000, signal)
        : new Promise((resolve) => {
            next = resolve;
            signal?.addEventListener("abort", () => resolve(), { once: true });
            beaten.resolve();
          }),
  };
  let beaten = Promise.withResolvers<void>();
  const heartbeat = new Heartbeat({
    ...{ node: "alpha", instance: "alpha#1", version: "1", directory, clock, log: silentLogger },
    documents: {
      read: async (key: string) => store.read(key),
      write: async (key: string, expected: number, text: string | null) => store.write(key, expected, text),
    } as unknown as Documents,
    mirror: mirror as unknown as ClusterMirror,
    servers: () => ({}),
    note: () => {},
    looked: () => {},
  });
  const running = heartbeat.run();
  const hashes: (string | null | undefined)[] = [];
  for (const config of [null, { path, hash: null }, { path: join(directory, "none"), hash: null }, null]) {
    await beaten.promise;
    beaten = Promise.withResolvers();
    mirror.servers = new Map([["APP", { ...DEFAULT_VIRTUAL_SERVER, name: "APP", config }]]);
    next();
    await beaten.promise;
    const report = NODE_REPORT.parse(store.read(at(REPORTS, "alpha").key)?.text ?? "");
    hashes.push(report.ok ? (report.value.configHashes.APP?.slice(0, 6) ?? null) : undefined);
  }
  heartbeat.end();
  await running;
  assert.deepEqual(hashes, [null, "2c8b08", null, null]);
});
