import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { closeSync, constants, existsSync, openSync, readFileSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import type { TemplateStep } from "@lockstep/protocol";
import { startTestHub } from "../hub/support/test-hub.ts";
import { usePostgres } from "../support/postgres.ts";
import {
  call,
  configure,
  type HubAddress,
  isAlive,
  killQuietly,
  logOf,
  readJob,
  runService,
  servers,
  startJob,
  startService,
  temporaryDirectory,
  until,
  untilEnded,
} from "./service-world.ts";

const server = usePostgres();
const QUEUE = "\\A";

/** A step that says who it is, waits to be let go, and says that it was done. */
function waitingStep(directory: string, more: Partial<TemplateStep> = {}): TemplateStep {
  return {
    name: "waits",
    component: "Command",
    task: "Script",
    queue: QUEUE,
    parameters: {
      shell: "sh",
      script: 'echo $$ >> "$1/begun"; while [ ! -e "$1/go" ]; do sleep 0.05; done; echo done >> "$1/done"',
      arguments: [directory],
    },
    ...more,
  };
}

const linesOf = (file: string) =>
  existsSync(file)
    ? readFileSync(file, "utf8")
        .split("\n")
        .filter((line) => line !== "")
    : [];

const begun = (directory: string, times = 1) =>
  until(() => {
    const lines = linesOf(join(directory, "begun"));
    return lines.length >= times ? lines.map(Number) : null;
  });

async function letGo(directory: string): Promise<void> {
  writeFileSync(join(directory, "go"), "");
}

async function setLease(hub: HubAddress, seconds: number): Promise<void> {
  await call(hub, "PUT", "/v1/settings", { "Common/Jobs/LeaseSeconds": seconds });
}

function runsOf(detail: Awaited<ReturnType<typeof readJob>>) {
  return detail.steps.flatMap(({ runs }) => runs.map(({ outcome }) => outcome));
}

test("a worker that is killed in the middle of a step: what may run again does, the rest waits for a person", async (t) => {
  const hub = await startTestHub(t, server);
  const service = await startService(t, hub, { queues: [QUEUE] });
  for (const onCrash of ["rerun", "freeze"] as const) {
    const directory = temporaryDirectory(t);
    const id = await startJob(hub, `worker-${onCrash}`, [waitingStep(directory, { onCrash })]);
    const [script = 0] = await begun(directory);
    for (const pid of service.workers()) killQuietly(pid);
    await until(() => !isAlive(script));
    if (onCrash === "rerun") {
      await begun(directory, 2);
      await letGo(directory);
    }
    const detail = await untilEnded(hub, id);
    assert.equal(detail.process.state, onCrash === "rerun" ? "finished" : "stuck", logOf(service.directory));
    assert.deepEqual(runsOf(detail), onCrash === "rerun" ? ["lost", "success"] : ["lost"]);
    assert.equal(linesOf(join(directory, "begun")).length, onCrash === "rerun" ? 2 : 1);
    assert.equal(linesOf(join(directory, "done")).length, onCrash === "rerun" ? 1 : 0);
  }
  assert.equal(await service.stop(), 0);
});

test("an engine that is killed takes its workers along, and is started again", async (t) => {
  const hub = await startTestHub(t, server);
  const service = await startService(t, hub, { queues: [QUEUE] });
  const again = temporaryDirectory(t);
  const once = temporaryDirectory(t);
  const rerun = await startJob(hub, "rerun", [waitingStep(again)]);
  const freeze = await startJob(hub, "freeze", [waitingStep(once, { onCrash: "freeze" })]);
  const scripts = [...(await begun(again)), ...(await begun(once))];
  const engine = service.engine() ?? 0;
  const workers = service.workers();
  assert.equal(workers.length, 2);
  killQuietly(engine);
  await until(() => [...workers, ...scripts].every((pid) => !isAlive(pid)));
  await begun(again, 2);
  assert.notEqual(service.engine(), engine);
  await letGo(again);
  assert.deepEqual(runsOf(await untilEnded(hub, rerun)), ["lost", "success"]);
  const frozen = await untilEnded(hub, freeze);
  assert.equal(frozen.steps[0]?.state, "frozen");
  assert.equal(linesOf(join(once, "begun")).length, 1);
  assert.equal(await service.stop(), 0);
});

test("a service that stands still beyond its lease: its worker is dead by then, another has the step, and its word counts no more", async (t) => {
  const hub = await startTestHub(t, server);
  // Long enough that nobody loses it who is only slow.
  await setLease(hub, 20);
  const directory = temporaryDirectory(t);
  const frozen = await startService(t, hub, { queues: [QUEUE], machine: "machine-1" });
  const id = await startJob(hub, "frozen", [waitingStep(directory)]);
  const [script = 0] = await begun(directory);
  const engine = frozen.engine() ?? 0;
  killQuietly(engine, "SIGSTOP");
  t.after(() => killQuietly(engine, "SIGCONT"));
  // Nobody is there to end it but itself.
  await until(() => !isAlive(script));
  // It ends what it started, and then itself.
  await until(() => frozen.workers().length === 0);
  // Before the hub takes it for gone it would send the other one away, for a third of the new lease.
  await until(async () => (await servers(hub)).every(({ state }) => state === "silent"));
  await setLease(hub, 300);
  const other = await startService(t, hub, { queues: [QUEUE], machine: "machine-2" });
  await begun(directory, 2);
  killQuietly(engine, "SIGCONT");
  await until(() => /JOB_INSTANCE_REPLACED|JOB_QUEUE_TAKEN/.test(logOf(frozen.directory)));
  await letGo(directory);
  const detail = await untilEnded(hub, id);
  assert.deepEqual(runsOf(detail), ["lost", "success"]);
  assert.equal(detail.steps[0]?.runs.at(-1)?.machine, "machine-2");
  assert.equal(linesOf(join(directory, "done")).length, 1);
  assert.equal(await other.stop(), 0);
  assert.equal(await frozen.stop(), 0);
});

test("told to end, a service lets running steps finish, gives back what takes too long, and what was not begun", async (t) => {
  const hub = await startTestHub(t, server);
  const long = temporaryDirectory(t);
  const short = temporaryDirectory(t);
  const home = temporaryDirectory(t);
  const options = { queues: [QUEUE], directory: home, service: "DrainSeconds = 20" };
  const service = await startService(t, hub, options);
  const slow = await startJob(hub, "long", [waitingStep(long)]);
  const quick = await startJob(hub, "short", [waitingStep(short)]);
  const [first = 0] = await begun(long);
  await begun(short);
  const ending = service.stop();
  await until(() => /the service ends/.test(logOf(home)));
  await letGo(short);
  // The request that tells it is newer than the one that waited for steps, so that one brings none any more.
  await until(async () => runsOf(await readJob(hub, quick)).some((outcome) => outcome !== null));
  const later = await startJob(hub, "later", [{ ...waitingStep(short), name: "later" }]);
  assert.equal(await ending, 0, service.stderr());
  await until(() => !isAlive(first));
  assert.deepEqual(runsOf(await readJob(hub, quick)), ["success"]);
  const given = await readJob(hub, slow);
  assert.deepEqual([given.steps[0]?.state, runsOf(given)], ["ready", ["given-back"]]);
  assert.deepEqual((await readJob(hub, later)).steps[0]?.runs, []);
  const next = await startService(t, hub, options);
  await begun(long, 2);
  await letGo(long);
  assert.equal((await untilEnded(hub, slow)).process.state, "finished");
  assert.equal((await untilEnded(hub, later)).process.state, "finished");
  assert.equal(await next.stop(), 0);
});

test("the time limit ends everything that a step started, also what went into a session of its own", async (t) => {
  const hub = await startTestHub(t, server);
  const service = await startService(t, hub, { queues: [QUEUE] });
  const script = 'setsid sh -c \'echo $$ > "$1/grandchild"; sleep 600\' sh "$1" & sleep 600';
  let grandchild = 0;
  // A limit that comes before there is a grandchild shows nothing of it.
  for (let seconds = 1; grandchild === 0; seconds *= 4) {
    const directory = temporaryDirectory(t);
    const id = await startJob(hub, "limit", [
      waitingStep(directory, {
        timeLimitSeconds: seconds,
        parameters: { shell: "sh", script, arguments: [directory] },
      }),
    ]);
    const detail = await untilEnded(hub, id);
    assert.equal(detail.steps[0]?.outcome, "error");
    assert.match(detail.steps[0]?.message ?? "", /JOB_TIME_LIMIT|time limit/);
    grandchild = linesOf(join(directory, "grandchild")).map(Number)[0] ?? 0;
  }
  await until(() => !isAlive(grandchild));
  assert.equal(await service.stop(), 0);
});

test("results that were won while the hub was away are told once it is back, also by the next run of the service", async (t: TestContext) => {
  const database = await server.database(t);
  const { HubProcess } = await import("./hub-process.ts");
  const hub = await HubProcess.start(t, database);
  // It lasts over the outage, however long everybody takes to start.
  await setLease(hub, 300);
  const directory = temporaryDirectory(t);
  const home = temporaryDirectory(t);
  const service = await startService(t, hub, { queues: [QUEUE], directory: home });
  const id = await startJob(hub, "outage", [
    waitingStep(directory, { onSuccess: ["after"] }),
    { name: "after", component: "Command", task: "Run", queue: QUEUE, parameters: { program: "true" } },
  ]);
  await begun(directory);
  await hub.kill();
  await letGo(directory);
  await until(() => linesOf(join(directory, "done")).length > 0);
  await until(() => /success/.test(logOf(home)) && journalOf(home).includes('"r"'));
  await service.kill();
  await hub.restart();
  const next = await startService(t, hub, { queues: [QUEUE], directory: home });
  const detail = await untilEnded(hub, id);
  assert.equal(detail.process.state, "finished");
  assert.deepEqual(
    detail.steps.map(({ runs }) => runs.map(({ outcome }) => outcome)),
    [["success"], ["success"]],
  );
  assert.equal(linesOf(join(directory, "begun")).length, 1);
  await until(() => !journalOf(home).includes('"r"'));
  assert.equal(await next.stop(), 0);
});

function journalOf(home: string): string {
  const state = join(home, "state");
  const { readdirSync } = process.getBuiltinModule("node:fs");
  const names = existsSync(state) ? readdirSync(state).filter((name) => name.startsWith("results-")) : [];
  return names.map((name) => readFileSync(join(state, name), "utf8")).join("");
}

test("a step inside the service that ignores its time limit is ended with the engine, and the next one tells its result", async (t) => {
  const hub = await startTestHub(t, server);
  const directory = temporaryDirectory(t);
  writeFileSync(
    join(directory, "deaf.internal.mjs"),
    `const Go = { execution: "internal", description: "", parameters: {}, run: () => new Promise(() => {}) };
     export const components = [{ name: "Deaf", tasks: { Go } }];`,
  );
  const service = await startService(t, hub, {
    queues: [QUEUE],
    directory,
    service: 'DrainSeconds = 1\nPlugins = ["deaf.internal.mjs"]',
  });
  const engine = service.engine();
  const job = await startJob(hub, "p", [
    { name: "s", component: "Deaf", task: "Go", queue: QUEUE, execution: "internal", timeLimitSeconds: 1 },
  ]);
  const { process, steps } = await untilEnded(hub, job);
  assert.equal(process.state, "failed");
  assert.match(steps[0]?.message ?? "", /^JOB_TIME_LIMIT: .*, and did not stop$/);
  assert.deepEqual([steps[0]?.errors, steps[0]?.crashes], [1, 0]);
  assert.notEqual(service.engine(), engine);
  assert.ok(engine !== null && !isAlive(engine), "the engine still works on it");
  assert.equal(await service.stop(), 0);
});

test("a volume of logs that hangs keeps no service from ending", async (t) => {
  const hub = await startTestHub(t, server);
  const directory = temporaryDirectory(t);
  const pipe = join(directory, "pipe");
  execFileSync("mkfifo", [pipe]);
  // Full, and never read: whoever writes into it waits for ever.
  const end = openSync(pipe, constants.O_RDWR | constants.O_NONBLOCK);
  t.after(() => closeSync(end));
  const chunk = Buffer.alloc(4096);
  assert.throws(() => {
    while (true) writeSync(end, chunk);
  }, /EAGAIN/);
  const file = configure(hub, directory, { queues: [QUEUE], service: "DrainSeconds = 1" });
  writeFileSync(file, readFileSync(file, "utf8").replace('"service.log"', '"pipe"'));
  const service = await runService(t, directory, file);
  const step: TemplateStep = {
    name: "s",
    component: "Command",
    task: "Run",
    queue: QUEUE,
    parameters: { program: "true" },
  };
  const job = await startJob(hub, "p", [step]);
  assert.equal((await untilEnded(hub, job)).process.state, "finished");
  assert.equal(await service.stop(), 0, service.stderr());
  assert.match(service.stderr(), /pipe does not answer; the service ends without \d+ of its records/);
});
