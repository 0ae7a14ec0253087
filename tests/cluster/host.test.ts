import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { suite, test } from "node:test";
import type { HostedServer } from "@lockstep/cluster";
import { systemClock } from "@lockstep/platform";
import { openFileResource } from "./file-resource.ts";
import { BRIEF_LEASE, HostWorld, LEAVE, type Script, scripted, TAKE, until } from "./host-world.ts";
import { commandOf } from "./marked-processes.ts";
import { defineResource, defineServer } from "./server-definition.ts";
import { simulatedStore } from "./simulated-coordination.ts";

// A virtual server in this process, with a real guard, real services, and resources that misbehave as they are told.
const skip = process.platform !== "linux" && "reads /proc";
const never = () => new Promise<never>(() => {});
const phaseOf = (host: HostedServer, name: string) => host.report().resources[name]?.phase;
const isOnline = (host: HostedServer) =>
  Object.values(host.report().resources).every(({ phase }) => phase === "online");

function service(world: HostWorld, script: string, settings = {}, policy = {}) {
  return defineResource(
    "service",
    "generic-service",
    {
      program: "/bin/sh",
      arguments: ["-c", script],
      environment: [`LOCKSTEP_TEST_MARK=${world.mark}`],
      ...settings,
    },
    policy,
  );
}

suite("a virtual server on its node", { skip }, () => {
  test("comes online and goes offline in the order of its dependencies, and gives the lease back", async (t) => {
    const store = simulatedStore()();
    const world = new HostWorld(t, store);
    const log: string[] = [];
    const undone = join(world.directory, "undone");
    const { factories } = scripted({ address: { undo: [["/bin/touch", undone]] } }, log);
    const host = world.open(
      defineServer([
        defineResource("share", "ip-address", {}, { dependency: [["service"]] }),
        service(world, "exec sleep 1000", {}, { dependency: [["name"], ["disk"]] }),
        defineResource("name", "ip-address", {}, { dependency: [["address"], ["other"]] }),
        defineResource("disk", "ip-address"),
        defineResource("other", "ip-address"),
        defineResource("address", "ip-address"),
      ]),
      {
        factories,
        afterOffline: async () =>
          void log.push(`saved under ${host.token()}, ${world.running().length} left`),
      },
    );
    host.wish(TAKE);
    await until(() => isOnline(host));
    assert.equal(host.report().token, 1);
    // What a former life left was terminated first, whether there was one or not.
    const begun = log.splice(0).filter((line) => !line.startsWith("terminate"));
    const before = (one: string, other: string) =>
      assert.ok(begun.indexOf(one) < begun.indexOf(other), begun.join());
    before("address is online", "online name");
    before("other is online", "online name");
    before("name is online", "online share");
    before("disk is online", "online share");
    host.wish(LEAVE);
    await until(() => host.report().role === "observing");
    assert.equal(log.indexOf("offline share"), 0);
    assert.ok(log.indexOf("share is offline") < log.indexOf("offline name"));
    for (const provider of ["address", "other"])
      assert.ok(log.indexOf("name is offline") < log.indexOf(`offline ${provider}`), log.join());
    assert.equal(log.at(-1), "saved under 1, 0 left");
    await until(() => world.noted("gave-back").length === 1);
    assert.equal((await store.read("JOBS")).record?.node, null);
    assert.ok(!existsSync(undone), "what went offline in order is not undone");
  });

  test("inside the service the machine is the virtual server", async (t) => {
    const world = new HostWorld(t, simulatedStore()());
    const file = join(world.directory, "machine");
    const script = `echo "$(uname -n) $COMPUTERNAME $HOSTNAME $LOCKSTEP_VIRTUAL_SERVER $LOCKSTEP_NODE $LOCKSTEP_TERM" > ${file}; exec sleep 1000`;
    const host = world.open(defineServer([service(world, script)]));
    host.wish(TAKE);
    await until(() => isOnline(host) && existsSync(file) && readFileSync(file).length > 0);
    const isAlone = world.noted("guard").length === 0;
    assert.equal(
      readFileSync(file, "utf8"),
      `${isAlone ? "JOBS" : hostname()} JOBS JOBS JOBS a 1\n`,
      "its own name, or the reason why not is noted",
    );
  });

  test("is restarted in place up to its threshold; then a failover is asked for, and without one it stays", async (t) => {
    const world = new HostWorld(t, simulatedStore()());
    const policy = { restartThreshold: 2, restartDelayMs: 10, retryMs: 900_000 };
    // The program itself says that it has begun: what holds it back before that is none of its processes to be killed.
    const begun = join(world.directory, "begun");
    const pids = () =>
      existsSync(begun) ? readFileSync(begun, "utf8").split("\n").slice(0, -1).map(Number) : [];
    const script = `echo $$ >> ${begun}; exec sleep 1000`;
    const host = world.open(defineServer([service(world, script, { readyMs: 20 }, policy)]));
    host.wish(TAKE);
    for (let kill = 0; kill < 3; kill++) {
      await until(() => isOnline(host) && pids().length === kill + 1);
      assert.deepEqual(world.failovers, [], `before kill ${kill}`);
      process.kill(pids()[kill] ?? Number.NaN, "SIGKILL");
    }
    await until(() => world.failovers.length === 1);
    assert.deepEqual(world.failovers, [["service", "it ended by itself by SIGKILL"]]);
    const question = world.questions[0];
    assert.equal(question?.token, 1);
    assert.equal(question?.isOpen(), true);
    host.stay(1);
    assert.equal(question?.isOpen(), false);
    assert.equal(phaseOf(host, "service"), "failed");
    assert.equal(host.report().resources.service?.problem, "it ended by itself by SIGKILL");
    await until(() => world.running().length === 0);
    // Its retry time is far; the same is asked once more long before.
    await until(() => world.failovers.length === 2);
    assert.equal(question?.isOpen(), false, "that is another question");
    assert.equal(world.questions[1]?.isOpen(), true);
    host.stay(null);
    assert.equal(phaseOf(host, "service"), "failed");
    // Somebody wants it tried again now.
    host.retry();
    await until(() => isOnline(host) && pids().length === 4);
    // While it becomes another program the kernel says nothing of it.
    await until(() => commandOf(pids()[3] ?? 0) === "sleep 1000");
    host.retry();
    assert.deepEqual(world.running(), pids().slice(3), "what runs goes on");
    assert.equal(host.report().token, 1, "it keeps the lease");
  });

  test("one that hangs stops nothing else, is ended, and what it does or says later counts for nothing", async (t) => {
    const world = new HostWorld(t, simulatedStore()());
    const log: string[] = [];
    const late: ((problem: string | null) => void)[] = [];
    const { contexts, factories } = scripted(
      {
        // The first check hangs, and so does the first try to come online after it.
        hangs: {
          check: (call) =>
            call === 1 ? new Promise((resolve) => late.push(resolve)) : Promise.resolve(null),
          online: (call) => (call === 2 ? never() : Promise.resolve()),
        },
      },
      log,
    );
    const policy = { pendingMs: 1000, looksAliveMs: 20, restartDelayMs: 10 };
    const host = world.open(
      defineServer([defineResource("hangs", "ip-address", {}, policy), service(world, "exec sleep 1000")]),
      { factories },
    );
    host.wish(TAKE);
    await until(() => late.length === 1);
    const [first] = contexts;
    await until(() => log.filter((line) => line === "online hangs").length === 3 && isOnline(host));
    assert.equal(first?.token(), null, "what was left behind may do nothing any more");
    assert.ok(contexts.at(-1)?.token() !== null);
    // It answers at last, and reports a failure of its own: nobody listens.
    const before = host.report();
    late[0]?.("broken");
    first?.failed("broken too");
    await systemClock.sleep(50);
    assert.deepEqual(host.report(), before);
    assert.equal(world.running().length, 1);
    assert.deepEqual(world.failovers, []);
  });

  test("when the lease is lost nothing is left at its end, not even of what hangs", async (t) => {
    const world = new HostWorld(t, simulatedStore()(), BRIEF_LEASE);
    const log: string[] = [];
    const undone = join(world.directory, "undone");
    const { factories, contexts } = scripted(
      { hangs: { online: never, undo: [["/bin/touch", undone]] } },
      log,
    );
    const host = world.open(
      defineServer([
        defineResource("hangs", "ip-address"),
        // Its end in order is none of this test: it is not to be waited for when the test is over.
        service(world, "trap '' TERM; sleep 1000; :", { stopMs: 300 }),
      ]),
      { factories },
    );
    host.wish(TAKE);
    await until(() => phaseOf(host, "service") === "online" && log.includes("online hangs"));
    world.loseStore();
    await until(() => host.token() === null);
    // The guard and the host end things side by side: neither waits for the other.
    await until(() => world.running().length === 0 && existsSync(undone) && log.at(-1) === "terminate hangs");
    assert.ok(contexts.every(({ token }) => token() === null));
    world.findStore();
    // It is its own record: taken again under a higher token, by a fresh object.
    await until(() => phaseOf(host, "service") === "online" && (host.token() ?? 0) > 1);
  });

  test("what can be stopped by nobody is handed over to nobody: the lease stays until it is gone", async (t) => {
    const store = simulatedStore()();
    const world = new HostWorld(t, store);
    const log: string[] = [];
    const { promise: gone, resolve: end } = Promise.withResolvers<void>();
    t.after(() => end());
    let mayFail = false;
    const stays: Script = {
      undo: [["/bin/false"]],
      isExclusive: true,
      offline: () => Promise.reject(new Error("stop ended with 1")),
      terminate: async () => {
        if (mayFail) await gone;
      },
    };
    const { factories } = scripted({ stays }, log);
    const host = world.open(defineServer([defineResource("stays", "ip-address")]), { factories });
    host.wish(TAKE);
    await until(() => isOnline(host));
    mayFail = true;
    host.wish({ kind: "leave", next: "b" });
    await until(() => world.noted("left-to-guard").length === 1);
    // Longer than everything that the guard tries.
    await systemClock.sleep(3_000);
    assert.equal(world.noted("gave-back").length, 0);
    assert.equal((await store.read("JOBS")).record?.node, "a");
    end();
    await until(() => world.noted("gave-back").length === 1);
    assert.equal((await store.read("JOBS")).record?.node, null);
  });

  test("a guard that is killed takes everything along, and another one takes its place", async (t) => {
    const world = new HostWorld(t, simulatedStore()());
    const file = join(world.directory, "address");
    const host = world.open(
      defineServer([
        defineResource("address", "ip-address", { file }),
        service(world, "exec sleep 1000", {}, { dependency: [["address"]] }),
      ]),
      { factories: { ...scripted({}, []).factories, "ip-address": openFileResource } },
    );
    host.wish(TAKE);
    await until(() => isOnline(host));
    const before = world.running();
    process.kill(world.guard(), "SIGKILL");
    await until(() => world.noted("lost").length > 0);
    // A machine that stands still for seconds may lose it once more; each taking has a token of its own.
    await until(
      () => isOnline(host) && existsSync(file) && readFileSync(file, "utf8") === String(host.token()),
    );
    assert.ok((host.token() ?? 0) > 1);
    assert.ok(before.every((pid) => !world.running().includes(pid)));
  });

  test("a guard that is frozen is found and replaced, before anything needs it", async (t) => {
    const world = new HostWorld(t, simulatedStore()());
    const host = world.open(defineServer([service(world, "exec sleep 1000")]));
    host.wish(TAKE);
    await until(() => isOnline(host));
    const before = world.running();
    process.kill(world.guard(), "SIGSTOP");
    await until(() => world.noted("lost").length > 0);
    await until(() => isOnline(host) && (host.token() ?? 0) > 1);
    assert.ok(before.every((pid) => !world.running().includes(pid)));
    assert.equal(await host.prepare(), null);
  });

  test("a guard that had no time to answer because the whole machine stood still is kept", async (t) => {
    const world = new HostWorld(t, simulatedStore()());
    const host = world.open(defineServer([service(world, "exec sleep 1000")]));
    host.wish(TAKE);
    await until(() => isOnline(host));
    const guard = world.guard();
    process.kill(guard, "SIGSTOP");
    // It is asked every two seconds.
    await systemClock.sleep(2_500);
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 6_000);
    process.kill(guard, "SIGCONT");
    const answers = world.measured.length;
    await until(() => world.measured.length > answers);
    assert.deepEqual([world.guard(), world.noted("lost"), host.token()], [guard, [], 1]);
  });

  test("what must happen before it comes online can refuse it", async (t) => {
    const world = new HostWorld(t, simulatedStore()());
    let mayBegin = false;
    const host = world.open(defineServer([service(world, "exec sleep 1000")]), {
      beforeOnline: async (token) => {
        assert.equal(token, host.token());
        if (!mayBegin) throw new Error("its configuration differs");
      },
    });
    host.wish(TAKE);
    await until(() => world.failovers.length === 1);
    assert.deepEqual(world.failovers, [[null, "its configuration differs"]]);
    assert.deepEqual(world.running(), []);
    host.wish(LEAVE);
    await until(() => world.noted("gave-back").length === 1);
    mayBegin = true;
    host.wish(TAKE);
    await until(() => isOnline(host));
  });

  test("prepares for a move, says what is in the way, and comes online all the same where that hangs", async (t) => {
    const world = new HostWorld(t, simulatedStore()());
    const { contexts, factories } = scripted(
      {
        broken: { prepare: () => Promise.reject(new Error("there is no such device")) },
        hangs: { prepare: never },
      },
      [],
    );
    const host = world.open(
      defineServer([defineResource("broken", "ip-address"), defineResource("hangs", "ip-address")]),
      { factories, prepare: () => Promise.reject(new Error("its configuration differs")) },
    );
    await until(() => host.report().role === "observing");
    const asked = host.prepare();
    host.wish(TAKE);
    assert.equal(
      await asked,
      "its configuration differs; broken: there is no such device; hangs: it is not prepared after 5000 ms",
    );
    await until(() => isOnline(host));
    assert.equal(contexts.filter(({ definition }) => definition.name === "hangs").length, 2);
    assert.equal(await host.prepare(), null, "who owns is prepared");
  });

  test("not enabled or not wanted: everything is stopped, whatever the daemon wishes (S5, S6)", async (t) => {
    const world = new HostWorld(t, simulatedStore()());
    const definition = defineServer([service(world, "exec sleep 1000")]);
    const host = world.open({ ...definition, isEnabled: false });
    host.wish(TAKE);
    await until(() => host.report().role === "disabled");
    await systemClock.sleep(300);
    assert.deepEqual(world.noted("took"), []);
    host.define(definition);
    await until(() => isOnline(host));
    host.define({ ...definition, wanted: "offline" });
    await until(() => world.noted("gave-back").length === 1);
    assert.deepEqual(world.running(), []);
  });

  test("a resource that comes is brought online beside the others; one that changes takes them along", async (t) => {
    const world = new HostWorld(t, simulatedStore()());
    const log: string[] = [];
    const { factories } = scripted({}, log);
    const [one, two] = [defineResource("one", "ip-address"), defineResource("two", "ip-address")];
    const host = world.open(defineServer([one]), { factories });
    host.wish(TAKE);
    await until(() => isOnline(host));
    log.length = 0;
    host.define(defineServer([one, two]));
    await until(() => phaseOf(host, "two") === "online");
    assert.deepEqual(log, ["online two", "two is online"]);
    log.length = 0;
    host.define(defineServer([{ ...one, settings: { changed: true } }]));
    await until(() => isOnline(host) && phaseOf(host, "two") === undefined);
    assert.deepEqual(log.slice(-2), ["online one", "one is online"]);
    assert.ok(log.includes("two is offline"));
    assert.equal(host.token(), 1, "under the same lease");
  });

  test("one in maintenance may end without having failed", async (t) => {
    const world = new HostWorld(t, simulatedStore()());
    const host = world.open(defineServer([service(world, "exec sleep 1000")]));
    host.wish(TAKE);
    await until(() => isOnline(host));
    host.maintenance(null, true);
    world.kill();
    await until(() => world.noted("resource-failed").length === 1);
    await systemClock.sleep(100);
    assert.deepEqual(world.failovers, []);
    assert.deepEqual(world.running(), []);
  });

  test("settings that are refused are seen as a failure of the resource, not of the daemon", async (t) => {
    const world = new HostWorld(t, simulatedStore()());
    const policy = { restartThreshold: 0 };
    const bad = defineResource("service", "generic-service", { programme: "/bin/sh" }, policy);
    const host = world.open(defineServer([bad]));
    host.wish(TAKE);
    await until(() => world.failovers.length === 1);
    assert.match(String(world.failovers[0]?.[1]), /programme/);
  });
});
