import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { type Clock, systemClock } from "@lockstep/platform";
import type { ClaimedStep, StepResult } from "@lockstep/protocol/wire";
import type { Component, TaskContext, TaskResult } from "../components/types.ts";
import { createLogWriter } from "../log/writer.ts";
import { WorkerPool } from "../worker/worker-pool.ts";
import { Dispatcher, type StepFate } from "./dispatcher.ts";

const STEP: ClaimedStep = {
  id: 7,
  claim: 70,
  attempt: 1,
  idempotencyKey: "key",
  process: { id: 3, name: "p" },
  name: "s",
  component: "Odd",
  task: "Go",
  execution: "internal",
  parameters: {},
  hidden: [],
  priority: 5,
  timeLimitMs: null,
  onCrash: "rerun",
};

type Said =
  | { readonly kind: "end"; readonly result: StepResult | null; readonly fate: StepFate }
  | { readonly kind: "unstoppable"; readonly result: StepResult | null };

/** Runs one step in a dispatcher of its own. Resolves with the first thing that it says of it. */
function dispatch(
  t: TestContext,
  step: ClaimedStep,
  options: {
    readonly task?: (context: TaskContext) => Promise<TaskResult>;
    readonly program?: readonly string[];
    readonly clock?: Clock;
  },
): { readonly dispatcher: Dispatcher; readonly pool: WorkerPool; readonly said: Promise<Said> } {
  const directory = mkdtempSync(join(tmpdir(), "lockstep-dispatcher-"));
  const log = createLogWriter({
    config: {
      outputFile: join(directory, "log"),
      sizeBytesMax: 1e6,
      historySize: 1,
      severity: "Info",
      paramLengthMax: 100,
      jobLogLifeTimeMs: null,
      jobLogDirectory: directory,
    },
    debugMode: false,
    systemLog: { warning: () => {}, notice: () => {} },
  });
  const pool = new WorkerPool({
    program: options.program ?? ["/no/such/program"],
    service: "test",
    environment: () => ({}),
    reuseMax: () => 1,
    idleMs: () => 1000,
    uuid: () => `test-${process.pid}`,
    now: () => 0,
  });
  t.after(async () => {
    await pool.close();
    await log.close();
    rmSync(directory, { recursive: true, force: true });
  });
  const { run } = { run: options.task ?? (async () => ({ kind: "success" }) as const) };
  const plugins: Component[] = [
    { name: "Odd", tasks: { Go: { execution: "either", description: "", parameters: {}, run } } },
  ];
  const { promise, resolve } = Promise.withResolvers<Said>();
  const dispatcher = new Dispatcher({
    identity: { queue: "q", machine: "m", installation: null },
    hub: { process: async () => null, summary: async () => null, holdsStep: () => false },
    pool,
    log,
    directory,
    plugins: async () => plugins,
    pluginFiles: [],
    debug: () => true,
    environment: () => ({}),
    ...(options.clock === undefined ? {} : { clock: options.clock }),
    onEnd: (_, result, fate) => resolve({ kind: "end", result, fate }),
    onUnstoppable: (_, result) => resolve({ kind: "unstoppable", result }),
  });
  dispatcher.begin(step);
  return { dispatcher, pool, said: promise };
}

/** A task that nothing stops, and when it has begun. */
function endless(): { readonly task: () => Promise<never>; readonly began: Promise<void> } {
  const { promise, resolve } = Promise.withResolvers<void>();
  const task = () => {
    resolve();
    return new Promise<never>(() => {});
  };
  return { task, began: promise };
}

/** A clock whose timers run out as soon as they are set; `slept` says how long they were. */
function hastyClock(slept: number[] = []): Clock {
  return { ...systemClock, sleep: async (ms) => void slept.push(ms) };
}

test("a task inside the service that ignores its time limit takes the engine with it, and its result is kept", async (t) => {
  const step = { ...STEP, timeLimitMs: 20 };
  const clock: Clock = {
    ...systemClock,
    sleep: (ms, signal) => systemClock.sleep(ms === step.timeLimitMs ? ms : 0, signal),
  };
  const end = await dispatch(t, step, { task: endless().task, clock }).said;
  assert.equal(end.kind, "unstoppable");
  assert.equal(end.result?.outcome, "error");
  assert.match(end.result?.message ?? "", /^JOB_TIME_LIMIT: .*, and did not stop$/);
});

test("one that ignores the end of its lease does so too, without a result that could be told", async (t) => {
  const { task, began } = endless();
  const { dispatcher, said } = dispatch(t, STEP, { task, clock: hastyClock() });
  await began;
  dispatcher.stop(STEP.claim, "lease");
  assert.deepEqual(await said, { kind: "unstoppable", result: null });
});

test("one that the end of the service finds at work, and that ignores it, did not fail", async (t) => {
  const { task, began } = endless();
  const { dispatcher, said } = dispatch(t, STEP, { task, clock: hastyClock() });
  await began;
  dispatcher.stop(STEP.claim, "drain");
  const end = await said;
  assert.deepEqual([end.kind, end.result?.outcome], ["unstoppable", "given-back"]);
});

test("a task that stops at its time limit ends, and nothing else with it", async (t) => {
  const task = ({ signal }: TaskContext) =>
    new Promise<never>((_, reject) => {
      signal.throwIfAborted();
      signal.addEventListener("abort", () => reject(signal.reason));
    });
  const end = await dispatch(t, { ...STEP, timeLimitMs: 20 }, { task }).said;
  assert.deepEqual([end.kind, end.result?.outcome], ["end", "error"]);
  assert.match(end.result?.message ?? "", /^JOB_TIME_LIMIT/);
});

test("a worker that cannot be started is an error of the step, told as such", async (t) => {
  const end = await dispatch(t, { ...STEP, execution: "external" }, {}).said;
  assert.equal(end.kind, "end");
  assert.match(end.result?.message ?? "", /^its worker could not be started: .*ENOENT/);
});

test("a worker that dies is a crash, whatever its last words", async (t) => {
  const program = [process.execPath, "-e", "process.exit(3)"];
  const end = await dispatch(t, { ...STEP, execution: "external" }, { program }).said;
  assert.ok(end.kind === "end" && end.result === null && end.fate.workerCrashed);
  assert.equal(end.fate.message, "its worker ended with status 3");
});

test("what a worker said before it died counts, also where it comes after the news of its death", async (t) => {
  const result = JSON.stringify({ step: STEP.id, claim: STEP.claim, outcome: "success", message: "done" });
  const words = `{"kind":"end","terminate":false,"result":${result}}`;
  // It dies as soon as there is somebody who will say them for it: with its channel, and without the mark of its environment.
  const script = `said=$(env -i words="$1" sh -c '(sleep 0.3; printf "%s\\n" "$words" >&3) > /dev/null & echo')`;
  const program = ["sh", "-c", script, "sh", words];
  const end = await dispatch(t, { ...STEP, execution: "external" }, { program }).said;
  assert.deepEqual([end.kind, end.result?.message], ["end", "done"]);
});

test("a time limit of forty days is not cut short by the longest timer that there is", async (t) => {
  const slept: number[] = [];
  const days = 40 * 86_400_000;
  const program = [process.execPath, "-e", "setInterval(() => {}, 1000)"];
  const step = { ...STEP, execution: "external", timeLimitMs: days } as const;
  const { said } = dispatch(t, step, { program, clock: hastyClock(slept) });
  await said;
  assert.ok(slept.length === 1 && (slept[0] ?? 0) > days, String(slept));
});

/** A worker that says this, and what its step ended with. */
async function hear(t: TestContext, saying: string): Promise<Said> {
  const script = `process.once("message", ({ step: { id: step, claim } }) => {
    const end = (result) => process.send({ kind: "end", terminate: false, result });
    ${saying}
    end({ step, claim, outcome: "success", message: "mine" });
  })`;
  return await dispatch(t, { ...STEP, execution: "external" }, { program: [process.execPath, "-e", script] })
    .said;
}

test("what a plug-in says on the channel of its worker is not taken for words of the worker", async (t) => {
  const strange = [
    'for (const each of ["ready", null, 5, [], {}, { kind: "end" }]) process.send(each);',
    'process.send({ kind: "log", level: "end", text: "" }); process.send({ kind: "log", level: "info", text: 5 });',
    'process.send({ kind: "hide" });',
    'end({ step, claim: claim + 1, outcome: "success" }); end({ step: step + 1, claim, outcome: "success" });',
    'end({ step, claim, outcome: "done" }); end({ step, claim, outcome: "error", message: {} });',
  ];
  for (const saying of strange) {
    const end = await hear(t, saying);
    assert.deepEqual([end.kind, end.result?.message], ["end", "mine"], saying);
  }
});
