import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { existsSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { rm } from "node:fs/promises";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { suite, type TestContext, test } from "node:test";
import {
  bootClock,
  type FromGuard,
  type Guard,
  type GuardConfig,
  openPostgres,
  type ServiceRun,
  startGuardProcess,
  type UndoCommand,
} from "@lockstep/cluster";
import { WRITTEN_BY_GUARD } from "@lockstep/core";
import { systemClock } from "@lockstep/platform";
import { bundleInParts } from "../../scripts/bundle.mjs";
import { usePostgres } from "../support/postgres.ts";
import { sendSignal } from "../support/send-signal.ts";
import { urlOf } from "./database-url.ts";
import { until } from "./host-world.ts";
import { commandOf, findMarked } from "./marked-processes.ts";

// The real guard program with a real service: one that refuses to end, with a child, and a grandchild that has left its
// process group.
const STUBBORN = `trap '' TERM; sh -c "trap '' TERM; sleep 1000; :" & setsid sleep 1000 & wait; sleep 1000`;
const PROCESSES = 4;
const SLEEPS = 2;
/** Beyond whatever a machine that stands still takes. */
const FAR_MS = 600_000;
/** A deadline that is waited for: nothing before it may take that long. */
const AHEAD_MS = 20_000;

interface Held {
  readonly guard: Guard;
  readonly heard: readonly FromGuard[];
  running(): number;
  /** So many services run, and every process of them is the program that it is to be. */
  serves(services?: number): boolean;
  launch(token: number, changed?: Partial<ServiceRun>, service?: string): void;
  isLost(): boolean;
}

const now = bootClock();
const skip = process.platform !== "linux" && "reads /proc";

async function hold(t: TestContext, changed: Partial<GuardConfig> = {}, main?: string): Promise<Held> {
  const mark = randomUUID();
  const heard: FromGuard[] = [];
  let isLost = false;
  const guard = startGuardProcess(
    {
      virtualServer: "JOBS",
      instance: "a#1",
      coordination: null,
      watchdog: null,
      priority: null,
      ...changed,
    },
    { heard: (message) => void heard.push(message), lost: () => (isLost = true) },
    main,
  );
  t.after(async () => {
    await guard.close();
    for (const pid of findMarked(mark)) sendSignal(pid, "SIGKILL");
  });
  await until(() => heard.some(({ kind }) => kind === "ready"));
  return {
    guard,
    heard,
    running: () => findMarked(mark).length,
    // Sleeps come last; while it becomes another program, the kernel says nothing of a process.
    serves: (services = 1) => {
      const commands = findMarked(mark).map(commandOf);
      const sleeps = commands.filter((command) => command === "sleep 1000");
      return commands.length === services * PROCESSES && sleeps.length === services * SLEEPS;
    },
    isLost: () => isLost,
    launch: (token, run = {}, service = "service") =>
      guard.tell({
        kind: "launch",
        token,
        service,
        run: {
          program: "/bin/sh",
          arguments: ["-c", STUBBORN],
          directory: "/",
          environment: { PATH: process.env.PATH ?? "", LOCKSTEP_TEST_MARK: mark },
          hostName: null,
          ...run,
        },
      }),
  };
}

/** Armed far ahead, launched, and every process of the service is there. */
async function serve(held: Held, token = 1): Promise<void> {
  held.guard.tell({ kind: "arm", token, deadline: now() + FAR_MS });
  held.launch(token);
  await until(() => held.serves());
}

const said = <K extends FromGuard["kind"]>(held: Held, kind: K) =>
  held.heard.filter((message): message is Extract<FromGuard, { kind: K }> => message.kind === kind);

function makeDirectory(t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), "lockstep-test-guard-"));
  t.after(() => rm(directory, { recursive: true, force: true, maxRetries: 10 }));
  return directory;
}

suite("the guard process", { skip }, () => {
  test("kills every service with all that it started at the deadline, unless told of a renewal", async (t) => {
    const held = await hold(t);
    const deadline = now() + AHEAD_MS;
    held.guard.tell({ kind: "arm", token: 1, deadline });
    held.launch(1);
    held.launch(1, {}, "another");
    await until(() => held.serves(2));
    const extended = deadline + 1000;
    held.guard.tell({ kind: "extend", token: 1, deadline: extended });
    await until(() => said(held, "stopped").length > 0);
    // Never before: by the clock that both share, but for its hundredth of a second.
    assert.ok(now() >= extended - 20);
    const stopped = said(held, "stopped");
    assert.deepEqual(
      stopped.map(({ token, why }) => ({ token, why })),
      [{ token: 1, why: "deadline" }],
    );
    assert.ok((stopped[0]?.tookMs ?? 0) > 0, "how long the kill took is told");
    assert.equal(held.running(), 0);
    // What it has killed stays dead, and a later token does not.
    held.launch(1);
    await serve(held, 2);
    held.guard.tell({ kind: "kill", token: 2 });
    await until(() => said(held, "stopped").length === 2);
    assert.equal(held.running(), 0);
    assert.deepEqual(
      said(held, "spawned").map(({ token, service }) => [token, service]),
      [
        [1, "service"],
        [1, "another"],
        [2, "service"],
      ],
    );
  });

  test("undoes what it was told before it says that everything is gone, and one that hangs stops no other", async (t) => {
    const directory = makeDirectory(t);
    const touch = (name: string) => `: > ${join(directory, name)}`;
    const held = await hold(t);
    held.guard.tell({ kind: "arm", token: 1, deadline: now() + FAR_MS });
    const tell = (resource: string, ...undo: readonly UndoCommand[]) =>
      held.guard.tell({ kind: "touch", token: 1, resource, undo });
    tell("share", ["/bin/sh", "-c", "trap '' TERM; while :; do sleep 100; done"]);
    tell("nothing", ["/nonexistent/program"]);
    tell("address", ["/bin/sh", "-c", touch("former")]);
    // What is told anew replaces what was told before; what came offline in order is not undone.
    tell("address", ["/bin/sh", "-c", `sleep 0.3; ${touch("address")}; exit 1`]);
    tell("name", ["/bin/sh", "-c", touch("name")]);
    held.guard.tell({ kind: "release", token: 1, resource: "name" });
    held.launch(1);
    await until(() => said(held, "touched").length === 5 && held.serves());
    held.guard.tell({ kind: "disarm", token: 1 });
    await until(() => said(held, "stopped").length === 1);
    assert.equal(held.running(), 0);
    assert.deepEqual(readdirSync(directory), ["address"]);
  });

  test("what it could not undo while the service was there is tried again when it is gone", async (t) => {
    const directory = makeDirectory(t);
    const held = await hold(t);
    held.guard.tell({ kind: "arm", token: 1, deadline: now() + FAR_MS });
    held.launch(1);
    await until(() => held.serves());
    const pid = said(held, "spawned")[0]?.group ?? 0;
    // One that is dead and not waited for yet holds nothing any more.
    const script = `read -r stat < /proc/${pid}/stat && case "\${stat##*) }" in [ZX]*) ;; *) exit 1 ;; esac; : > ${join(directory, "unmounted")}`;
    held.guard.tell({ kind: "touch", token: 1, resource: "mount", undo: [["/bin/sh", "-c", script]] });
    held.guard.tell({ kind: "kill", token: 1 });
    await until(() => said(held, "stopped").length === 1);
    assert.deepEqual(readdirSync(directory), ["unmounted"]);
  });

  test("a service that ends by itself is reported, and may be started again under the same lease", async (t) => {
    const held = await hold(t);
    const brief = { arguments: ["-c", "sleep 1000 & exit 3"] };
    held.guard.tell({ kind: "arm", token: 5, deadline: now() + FAR_MS });
    held.launch(5, brief);
    await until(() => said(held, "exited").length === 1);
    assert.equal(held.running(), 0, "what it left behind ends with it");
    held.launch(5, brief);
    await until(() => said(held, "exited").length === 2);
    assert.deepEqual(
      said(held, "exited").map(({ code }) => code),
      [3, 3],
    );
    assert.equal(said(held, "stopped").length, 0);
  });

  test("a program that is not there is said, not waited for", async (t) => {
    const held = await hold(t);
    held.guard.tell({ kind: "arm", token: 1, deadline: now() + FAR_MS });
    held.launch(1, { directory: "/nonexistent" });
    await until(() => said(held, "exited").length === 1);
    assert.equal(said(held, "failed").length, 1);
  });

  test("what the system refuses to start is a failed start with the system's words; what else runs goes on", async (t) => {
    const held = await hold(t);
    await serve(held);
    // One entry beyond what any Linux takes: the call itself is refused, at once.
    held.launch(1, { environment: { TOO_LONG: "x".repeat(256 * 1024) } }, "other");
    await until(() => said(held, "exited").some(({ service }) => service === "other"));
    assert.match(said(held, "failed")[0]?.problem ?? "", /^E2BIG: argument list too long/);
    assert.equal(held.running(), PROCESSES);
    held.launch(1, { directory: "/" }, "other");
    await until(() => held.serves(2));
    assert.ok(!held.isLost());
  });

  test("an undo that the system refuses to start keeps neither the services nor the other undos alive", async (t) => {
    const directory = makeDirectory(t);
    const held = await hold(t);
    held.guard.tell({ kind: "arm", token: 1, deadline: now() + FAR_MS });
    const undo: UndoCommand[] = [
      ["/bin/true", "x".repeat(256 * 1024)],
      ["/bin/touch", join(directory, "undone")],
    ];
    held.guard.tell({ kind: "touch", token: 1, resource: "address", undo });
    held.launch(1);
    await until(() => held.serves());
    held.guard.tell({ kind: "kill", token: 1 });
    await until(() => said(held, "stopped").length === 1);
    assert.equal(held.running(), 0);
    assert.ok(existsSync(join(directory, "undone")));
  });

  test("a guard that is killed takes services along, and what it was told is undone", async (t) => {
    const directory = makeDirectory(t);
    const held = await hold(t);
    await serve(held);
    const file = join(directory, "it's undone");
    // Several lines, and quotes: as the one that takes an address away.
    const undo: UndoCommand[] = [["/bin/sh", "-c", 'name=\'it\'\nprintf %s "$name\n" > "$1"', "sh", file]];
    held.guard.tell({ kind: "touch", token: 1, resource: "address", undo });
    // One that does not succeed at once is tried again.
    const [tried, second] = [join(directory, "tried"), join(directory, "second")];
    const late = `mkdir ${tried} && exit 1; : > ${second}`;
    held.guard.tell({ kind: "touch", token: 1, resource: "mount", undo: [["/bin/sh", "-c", late]] });
    await until(() => said(held, "touched").length === 2);
    process.kill(held.guard.pid ?? Number.NaN, "SIGKILL");
    // All by its last resort: also what has left its process group.
    await until(() => held.isLost() && held.running() === 0 && existsSync(file) && existsSync(second));
    await held.guard.endServices();
    assert.equal(readFileSync(file, "utf8"), "it\n");
  });

  test("inside the service the machine is the virtual server, or it is said that it cannot be", async (t) => {
    const directory = makeDirectory(t);
    const file = join(directory, "name");
    const held = await hold(t);
    held.guard.tell({ kind: "arm", token: 7, deadline: now() + FAR_MS });
    const script = `uname -n > ${file}; echo $LOCKSTEP_TERM >> ${file}`;
    held.launch(7, { arguments: ["-c", script], hostName: "VIRTUAL-9" });
    await until(() => said(held, "exited").length === 1);
    const problems = said(held, "ready").flatMap((ready) => ready.problems);
    const name = problems.length === 0 ? "VIRTUAL-9" : hostname();
    assert.deepEqual(readFileSync(file, "utf8").split("\n"), [name, "7", ""]);
    t.diagnostic(problems.length === 0 ? "a UTS namespace of its own" : problems.join("; "));
  });

  test("feeds a watchdog while a lease is held, and calls it off only when nothing is left", async (t) => {
    const device = join(makeDirectory(t), "watchdog");
    writeFileSync(device, "");
    const held = await hold(t, { watchdog: device });
    const fed = () => readFileSync(device, "latin1");
    await serve(held);
    await until(() => fed().length >= 3);
    assert.match(fed(), /^\0+$/);
    held.guard.tell({ kind: "kill", token: 1 });
    await until(() => said(held, "stopped").length === 1);
    await until(() => fed().endsWith("V"));
    assert.equal(held.running(), 0);
    // A device that is not there is said once.
    const without = await hold(t, { watchdog: join(device, "none") });
    await serve(without);
    await until(() => said(without, "ready").some(({ problems }) => problems.join().includes("ENOTDIR")));
  });

  test("runs in a real-time class where that is allowed, and its services do not", async (t) => {
    const directory = makeDirectory(t);
    const held = await hold(t, { priority: 10 });
    const problems = said(held, "ready").flatMap((ready) => ready.problems);
    const isRefused = problems.some((problem) => problem.startsWith("no real-time scheduling"));
    // Field 41 of /proc/PID/stat (proc(5)): 2 is SCHED_RR.
    const policy = (pid: number) => Number(readFileSync(`/proc/${pid}/stat`, "utf8").split(" ")[40]);
    assert.equal(policy(held.guard.pid ?? 0) === 2, !isRefused);
    held.guard.tell({ kind: "arm", token: 1, deadline: now() + FAR_MS });
    held.launch(1, { arguments: ["-c", `cat /proc/self/stat > ${join(directory, "stat")}; sleep 1000`] });
    await until(
      () => existsSync(join(directory, "stat")) && readFileSync(join(directory, "stat")).length > 0,
    );
    assert.equal(readFileSync(join(directory, "stat"), "utf8").split(" ")[40], "0");
    t.diagnostic(isRefused ? problems.join("; ") : "in the real-time class");
  });

  test("does the same as the one file that ships", async (t) => {
    const directory = makeDirectory(t);
    for (const { fileName, code } of await bundleInParts("packages/cluster/src/guard/main.ts", "guard.mjs"))
      writeFileSync(join(directory, fileName), code);
    const before = performance.now();
    const held = await hold(t, {}, join(directory, "guard.mjs"));
    const started = performance.now() - before;
    const rss = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${held.guard.pid}/status`, "utf8"))?.[1];
    t.diagnostic(`ready after ${started.toFixed(0)} ms, ${Math.round(Number(rss) / 1024)} MiB`);
    await serve(held);
    held.guard.tell({ kind: "kill", token: 1 });
    await until(() => said(held, "stopped").length === 1);
    assert.equal(held.running(), 0);
  });
});

suite("the guard gives the lease back", { skip }, () => {
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
    const held = await hold(t, { coordination });
    await serve(held);
    await held.guard.close();
    assert.equal(held.running(), 0);
    const given = await store.read("JOBS");
    assert.deepEqual(given.record, { ...record, node: null, write: WRITTEN_BY_GUARD });

    // What must not stand beside the next owner's could not be undone: nobody is invited.
    const mine = { ...record, token: 2 };
    const again = await store.swap("JOBS", { expected: given.revision, record: mine, takes: true });
    assert.ok(again.swapped);
    const unclean = await hold(t, { coordination });
    await serve(unclean, 2);
    const undo = [["/bin/false"]] as const;
    unclean.guard.tell({ kind: "touch", token: 2, resource: "address", undo, isExclusive: true });
    await until(() => said(unclean, "touched").length === 1);
    await unclean.guard.close();
    assert.equal(unclean.running(), 0);
    assert.deepEqual((await store.read("JOBS")).record, mine);

    // Somebody else owns by now: not touched.
    const later = await hold(t, { coordination });
    await serve(later, 3);
    const other = { node: "b", instance: "b#1", token: 3, write: 1, next: null };
    assert.ok((await store.swap("JOBS", { expected: again.revision, record: other, takes: true })).swapped);
    await later.guard.close();
    assert.deepEqual((await store.read("JOBS")).record, other);
  });
});
