import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { existsSync } from "node:fs";
import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { suite, type TestContext, test } from "node:test";
import {
  bootClock,
  type FromGuard,
  type Guard,
  type GuardConfig,
  openPostgres,
  startGuardProcess,
} from "@lockstep/cluster";
import { systemClock } from "@lockstep/platform";
import { usePostgres } from "../support/postgres.ts";
import { urlOf } from "./database-url.ts";
import { findMarked } from "./marked-processes.ts";

// The real guard program with a real service: one that refuses to end, with a child, and a grandchild that has left its
// process group.
const STUBBORN = `trap '' TERM; sh -c "trap '' TERM; sleep 1000; :" & setsid sleep 1000 & wait; sleep 1000`;
const PROCESSES = 4;
const FAR_MS = 60_000;

interface Held {
  readonly guard: Guard;
  readonly heard: readonly FromGuard[];
  running(): number;
  isLost(): boolean;
}

const now = bootClock();
const skip = process.platform !== "linux" && "reads /proc";

function hold(t: TestContext, changed: Partial<GuardConfig> = {}): Held {
  const mark = randomUUID();
  const heard: FromGuard[] = [];
  let isLost = false;
  const guard = startGuardProcess(
    {
      virtualServer: "JOBS",
      instance: "a#1",
      program: "/bin/sh",
      arguments: ["-c", STUBBORN],
      directory: "/",
      environment: { PATH: process.env.PATH ?? "", LOCKSTEP_TEST_MARK: mark },
      afterKill: [],
      coordination: null,
      ...changed,
    },
    { heard: (message) => void heard.push(message), lost: () => (isLost = true) },
  );
  t.after(async () => {
    await guard.close();
    for (const pid of findMarked(mark)) process.kill(pid, "SIGKILL");
  });
  return { guard, heard, running: () => findMarked(mark).length, isLost: () => isLost };
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await systemClock.sleep(10);
}

/** Armed far ahead, launched, and every process of the service is there. */
async function serve(held: Held, token = 1): Promise<void> {
  held.guard.tell({ kind: "arm", token, deadline: now() + FAR_MS });
  held.guard.tell({ kind: "launch", token });
  await until(() => held.running() === PROCESSES);
}

const stops = (held: Held) => held.heard.filter(({ kind }) => kind === "stopped");

suite("the guard process", { skip, timeout: 120_000 }, () => {
  test("kills the service with all that it started at the deadline, unless told of a renewal", async (t) => {
    const held = hold(t);
    const deadline = now() + 6000;
    held.guard.tell({ kind: "arm", token: 1, deadline });
    held.guard.tell({ kind: "launch", token: 1 });
    const extended = deadline + 1000;
    held.guard.tell({ kind: "extend", token: 1, deadline: extended });
    await until(() => stops(held).length > 0);
    // Never before: by the clock that both share, but for its hundredth of a second.
    assert.ok(now() >= extended - 20);
    assert.deepEqual(stops(held), [{ kind: "stopped", token: 1, why: "deadline" }]);
    assert.equal(held.running(), 0);
    // What it has killed stays dead, and a later token does not.
    held.guard.tell({ kind: "launch", token: 1 });
    await serve(held, 2);
    held.guard.tell({ kind: "kill", token: 2 });
    await until(() => stops(held).length === 2);
    assert.equal(held.running(), 0);
    assert.deepEqual(
      held.heard.filter(({ kind }) => kind === "spawned").map(({ token }) => token),
      [1, 2],
    );
  });

  test("takes the address away before it says that everything is gone", async (t) => {
    const file = join(tmpdir(), `lockstep-test-address-${randomUUID()}`);
    t.after(() => rm(file, { force: true }));
    const held = hold(t, {
      afterKill: [["/bin/sh", "-c", `sleep 0.3; : > ${file}; exit 1`], ["/nonexistent/program"]],
    });
    await serve(held);
    held.guard.tell({ kind: "kill", token: 1 });
    await until(() => stops(held).length === 1);
    assert.equal(held.running(), 0);
    assert.ok(existsSync(file));
  });

  test("a service that ends by itself is reported, and may be started again under the same lease", async (t) => {
    const held = hold(t, { arguments: ["-c", "sleep 1000 & exit 3"] });
    held.guard.tell({ kind: "arm", token: 5, deadline: now() + FAR_MS });
    held.guard.tell({ kind: "launch", token: 5 });
    await until(() => stops(held).length === 1);
    assert.equal(held.running(), 0, "what it left behind ends with it");
    held.guard.tell({ kind: "launch", token: 5 });
    await until(() => stops(held).length === 2);
    assert.deepEqual(
      stops(held).map((stop) => stop.kind === "stopped" && stop.why),
      ["exited", "exited"],
    );
  });

  test("a program that is not there is said, not waited for", async (t) => {
    const held = hold(t, { directory: "/nonexistent" });
    held.guard.tell({ kind: "arm", token: 1, deadline: now() + FAR_MS });
    held.guard.tell({ kind: "launch", token: 1 });
    await until(() => stops(held).length === 1);
    assert.ok(held.heard.some(({ kind }) => kind === "failed"));
  });

  test("a guard that is killed takes the service along", async (t) => {
    const held = hold(t);
    await serve(held);
    process.kill(held.guard.pid ?? 0, "SIGKILL");
    await until(() => held.isLost());
    // The group is killed by the guard's last resort; what left the group, by the daemon.
    await held.guard.endService();
    assert.equal(held.running(), 0);
  });
});

suite("the guard gives the lease back", { skip, timeout: 120_000 }, () => {
  const server = usePostgres();
  test("when its daemon is gone, and only what that daemon had", async (t) => {
    const { address, beforeClose } = await server.database(t, { empty: true });
    const store = await openPostgres({
      connection: address,
      callMs: 20_000,
      watchMs: 50,
      clock: systemClock,
    });
    beforeClose(() => store.close());
    const url = urlOf(address);
    const coordination = { store: "postgres", url, callMs: 20_000, watchMs: 50 } as const;
    const record = { node: "a", instance: "a#1", token: 1, write: 1, next: null };
    const taken = await store.swap("JOBS", { expected: 0, record, takes: true });
    assert.ok(taken.swapped);
    const held = hold(t, { coordination });
    await serve(held);
    await held.guard.close();
    assert.equal(held.running(), 0);
    const given = await store.read("JOBS");
    assert.deepEqual(given.record, { ...record, node: null, write: 2 });

    // Somebody else owns by now: not touched.
    const later = hold(t, { coordination });
    await serve(later, 2);
    const other = { node: "b", instance: "b#1", token: 2, write: 1, next: null };
    assert.ok((await store.swap("JOBS", { expected: given.revision, record: other, takes: true })).swapped);
    await later.guard.close();
    assert.deepEqual((await store.read("JOBS")).record, other);
  });
});
