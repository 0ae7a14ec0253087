import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { formatLock, type LockRecord } from "@lockstep/core";
import { hostName, identify, ownIdentity, systemClock } from "@lockstep/platform";
import { install, update } from "@lockstep/updater";
import { installationPaths } from "../../packages/updater/src/layout.ts";
import { joinLock, tryLock } from "../../packages/updater/src/lock-file.ts";
import { makeWorld, treeOf } from "./world.ts";

const targets = ["role:A"];

function recordOf(more: Partial<LockRecord>): LockRecord {
  const now = Date.now();
  return {
    token: "somebody",
    host: hostName(),
    createdAt: now,
    renewedAt: now,
    holders: [{ ...ownIdentity(), purpose: "trigger" }],
    ...more,
  };
}

test("while one update works, a second one is told which process it is", async (t) => {
  const world = await makeWorld(t);
  world.hub.publish({ file: { content: "1", targets } });
  const directory = join(world.root, "a");
  await install(directory, world.installOptions(["A"]));
  world.hub.publish({ file: { content: "2", targets } });
  writeFileSync(join(directory, "update.lock"), formatLock(recordOf({})));
  await assert.rejects(update(directory, world.options()), (error: { code: string; found: string }) => {
    assert.equal(error.code, "INSTALLATION_LOCKED");
    assert.equal(error.found, `process ${process.pid}`);
    return true;
  });
  assert.deepEqual(treeOf(directory), { file: "1" });
  assert.ok(hostname() !== "");
});

test("left-over locks are ignored: dead processes, reused ids, old age, rubbish", async (t) => {
  const world = await makeWorld(t);
  world.hub.publish({ file: { content: "0", targets } });
  const directory = join(world.root, "a");
  await install(directory, world.installOptions(["A"]));
  const dead = spawnSync(process.execPath, ["-e", ""]).pid;
  const hours = 60 * 60 * 1000;
  const leftOvers = {
    dead: formatLock(recordOf({ holders: [{ pid: dead, start: null, purpose: "trigger" }] })),
    reused: formatLock(
      recordOf({ holders: [{ pid: process.pid, start: "another start", purpose: "updater" }] }),
    ),
    old: formatLock(recordOf({ renewedAt: Date.now() - 2 * hours - 1000 })),
  };
  for (const [name, text] of Object.entries(leftOvers)) {
    world.hub.publish({ file: { content: name, targets } });
    writeFileSync(join(directory, "update.lock"), text);
    await update(directory, world.options());
    assert.deepEqual(treeOf(directory), { file: name });
    assert.equal(existsSync(join(directory, "update.lock")), false);
  }
});

test("of many who come at once exactly one gets the lock, also when a dead one lies there", async (t) => {
  const world = await makeWorld(t);
  const paths = installationPaths(world.root);
  const source = `
    const { tryLock } = await import(${JSON.stringify(join(import.meta.dirname, "../../packages/updater/src/lock-file.ts"))});
    const { systemClock } = await import("@lockstep/platform");
    process.send("ready");
    process.once("message", () => {
      const attempt = tryLock(${JSON.stringify(paths)}, systemClock);
      process.send(attempt.kind, () => {});
      process.once("message", () => process.exit(0));
    });`;
  const dead = spawnSync(process.execPath, ["-e", ""]).pid;
  const children = Array.from({ length: 6 }, () =>
    spawn(process.execPath, ["--input-type=module", "-e", source], {
      cwd: import.meta.dirname,
      stdio: ["ignore", "inherit", "inherit", "ipc"],
    }),
  );
  t.after(() => {
    for (const child of children) child.kill("SIGKILL");
  });
  const next = (child: (typeof children)[number]) =>
    new Promise<unknown>((resolve) => child.once("message", resolve));
  await Promise.all(children.map(next));
  writeFileSync(
    paths.lock,
    formatLock(recordOf({ holders: [{ pid: dead, start: null, purpose: "trigger" }] })),
  );
  const answers = Promise.all(children.map(next));
  for (const child of children) child.send("go");
  const kinds = await answers;
  assert.equal(kinds.filter((kind) => kind === "acquired").length, 1, kinds.join());
});

test("the trigger and the updater both stand in the lock, and only its owner removes it", async (t) => {
  const world = await makeWorld(t);
  const paths = installationPaths(world.root);
  const attempt = tryLock(paths, systemClock);
  assert.ok(attempt.kind === "acquired");
  const { lock } = attempt;
  const joined = joinLock(paths, lock.token, systemClock);
  const record = JSON.parse(readFileSync(paths.lock, "utf8")) as LockRecord;
  assert.deepEqual(
    record.holders.map((holder) => holder.purpose),
    ["trigger", "updater"],
  );
  assert.equal(record.holders[0]?.start, identify(process.pid)?.start);
  assert.throws(() => joinLock(paths, "another", systemClock), { code: "INSTALLATION_LOCKED" });
  writeFileSync(paths.lock, formatLock(recordOf({})));
  assert.equal(lock.isOurs(), false);
  lock.renew();
  lock.release();
  joined.release();
  assert.ok(existsSync(paths.lock), "somebody else's lock was removed");
});

test("a run whose lock was taken over stops before the commit", async (t) => {
  const world = await makeWorld(t);
  world.hub.publish({ file: { content: "1", targets } });
  const directory = join(world.root, "a");
  await install(directory, world.installOptions(["A"]));
  world.hub.publish({ file: { content: "2", targets } });
  world.hub.faults.hold = (path) => {
    if (path === "/v1/bundle") writeFileSync(join(directory, "update.lock"), formatLock(recordOf({})));
    return undefined;
  };
  await assert.rejects(update(directory, world.options()), { code: "INSTALLATION_LOCKED" });
  assert.deepEqual(treeOf(directory), { file: "1" });
});
