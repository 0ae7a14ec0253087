import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { DEFAULT_VIRTUAL_SERVER, type LeaseRecord } from "@lockstep/core";
import { realDisk, systemClock } from "@lockstep/platform";
import { isLockstepError, LockstepError } from "@lockstep/protocol/wire";
import { SimRecordStore } from "@lockstep/testing";
import type { Coordination } from "../coordination/coordination.ts";
import { ServerSettings } from "./server-settings.ts";
import type { HangingVolume } from "./volume-reach.ts";

test("a change that is taken back while its own write is uncertain does not come back with the next owner", async (t) => {
  const directory = mkdtempSync(join(tmpdir(), "lockstep-settings-"));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  const file = join(directory, "app.conf");
  const store = new SimRecordStore<LeaseRecord>();
  let afterWrite: (() => void) | null = null;
  const coordination = {
    readValues: async (_: string, prefix = "") =>
      new Map([...store.values].filter(([key]) => key.startsWith(prefix))),
    readValueKeys: async (_: string, prefix: string) =>
      [...store.values.keys()].filter((key) => key.startsWith(prefix)),
    writeGuarded: async (_: string, token: number, values: ReadonlyMap<string, string | null>) => {
      const isWritten = store.writeGuarded(token, values);
      afterWrite?.();
      return isWritten;
    },
  } as unknown as Coordination;
  const own = (node: string, token: number) => {
    const { revision } = store.read();
    store.swap(revision, { node, instance: node, token, write: 1, next: null }, token);
    const settings = new ServerSettings({
      definition: { ...DEFAULT_VIRTUAL_SERVER, name: "APP", checkpoints: [file] },
      ...{ node, coordination, disk: realDisk, clock: systemClock },
      dataDirectory: join(directory, `${node}-data`),
      directory: join(directory, node),
      listener: { noted: () => {}, changed: () => {} },
      times: { settleMs: 1, scanMs: 10, retryMs: 10 },
    });
    return settings;
  };
  const until = async (isDone: () => boolean) => {
    while (!isDone()) await sleep(5);
  };

  writeFileSync(file, "one\n");
  const alpha = own("alpha", 1);
  await alpha.beforeOnline(1);
  await until(() => alpha.report().number === 1);
  // It happens, its answer is lost, and the service takes the change back before anybody looks again.
  let isLost = false;
  afterWrite = () => {
    afterWrite = null;
    isLost = true;
    writeFileSync(file, "one\n");
    throw new LockstepError("COORDINATION_UNREACHABLE", "no answer");
  };
  writeFileSync(file, "two\n");
  await until(() => isLost);
  await alpha.afterOffline(1);
  assert.equal(alpha.report().state, "idle");

  const beta = own("beta", 2);
  await beta.beforeOnline(2);
  await beta.close();
  assert.equal(readFileSync(file, "utf8"), "one\n");
});

test("nothing of a volume that does not answer is touched, it is named, and followed again when it answers", async (t) => {
  const directory = mkdtempSync(join(tmpdir(), "lockstep-settings-"));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  const file = join(directory, "far", "app.conf");
  mkdirSync(join(directory, "far"));
  writeFileSync(file, "one\n");
  const store = new SimRecordStore<LeaseRecord>();
  const coordination = {
    readValues: async (_: string, prefix = "") =>
      new Map([...store.values].filter(([key]) => key.startsWith(prefix))),
    readValueKeys: async (_: string, prefix: string) =>
      [...store.values.keys()].filter((key) => key.startsWith(prefix)),
    writeGuarded: async (_: string, token: number, values: ReadonlyMap<string, string | null>) =>
      store.writeGuarded(token, values),
  } as unknown as Coordination;
  store.swap(0, { node: "alpha", instance: "alpha", token: 1, write: 1, next: null }, 1);
  let [touched, looks] = [0, 0];
  let hanging: HangingVolume | null = { path: file, on: "server:/far (nfs4)" };
  const settings = new ServerSettings({
    definition: { ...DEFAULT_VIRTUAL_SERVER, name: "APP", checkpoints: [file] },
    ...{ node: "alpha", coordination, clock: systemClock },
    disk: {
      ...realDisk,
      lstat: (path) => {
        if (path.startsWith(join(directory, "far"))) touched += 1;
        return realDisk.lstat(path);
      },
    },
    dataDirectory: join(directory, "data"),
    directory: join(directory, "private"),
    listener: { noted: () => {}, changed: () => {} },
    times: { settleMs: 1, scanMs: 10, retryMs: 10 },
    findHanging: async () => {
      looks += 1;
      return hanging;
    },
  });
  t.after(() => settings.close());
  const until = async (isDone: () => boolean) => {
    while (!isDone()) await sleep(5);
  };
  const isHanging = (error: unknown) =>
    isLockstepError(error, "FILE_ACCESS_FAILED") && /settings of APP hang/.test(error.message);

  await assert.rejects(settings.beforeOnline(1), isHanging);
  await assert.rejects(settings.fetchAhead(), isHanging);
  assert.equal(touched, 0);

  hanging = null;
  await settings.beforeOnline(1);
  await until(() => settings.report().number === 1);
  hanging = { path: file, on: "server:/far (nfs4)" };
  await until(() => settings.report().state === "failing");
  assert.match(
    settings.report().problems.join(),
    /settings of APP hang \(.*app\.conf, on server:\/far \(nfs4\)/,
  );
  const [before, end] = [touched, looks + 3];
  await until(() => looks > end);
  assert.equal(touched, before);

  writeFileSync(file, "two\n");
  hanging = null;
  await until(() => settings.report().number === 2);
  assert.equal(settings.report().state, "following");
});
