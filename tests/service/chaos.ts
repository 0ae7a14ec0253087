/**
 * Many steps, and a hand that keeps killing: services, their engines, their workers and the hub, with SIGKILL, at
 * moments that a seed draws. Afterwards the checker of the testing package judges what hub and steps wrote down.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import type { TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { JobTemplate, ProcessDetail, ProcessSummary, TemplateStep } from "@lockstep/protocol";
import { type Declared, type Effect, judgeHistory, Prng } from "@lockstep/testing";
import type { TestServer } from "../support/postgres.ts";
import { HubProcess } from "./hub-process.ts";
import {
  call,
  configure,
  familyOf,
  killQuietly,
  readJob,
  runService,
  type TestService,
  temporaryDirectory,
} from "./service-world.ts";

export const CHAOS_PLUGIN = resolve(import.meta.dirname, "chaos.internal.mjs");
const QUEUES = ["\\CHAOS-1", "\\CHAOS-2", "\\CHAOS-3"];
const NAME = "chaos";

export interface ChaosOptions {
  readonly seed: number;
  /** At least; whole processes of twenty steps. */
  readonly steps: number;
  readonly kills: number;
  /** Longest pause between two kills, in milliseconds. */
  readonly pauseMs: number;
  readonly progress?: (text: string) => void;
}

export interface ChaosReport {
  readonly steps: number;
  readonly kills: Readonly<Record<string, number>>;
  readonly runs: Readonly<Record<string, number>>;
  readonly states: Readonly<Record<string, number>>;
  readonly problems: readonly string[];
}

export interface ChaosWork {
  /** The file in which the steps write what they do. */
  readonly effects: string;
  readonly queues: readonly string[];
  /** The longest step. */
  readonly millisMax: number;
}

/** One process: chains, a fan with a join, retries, an error branch, an exclusive object, and what may not run twice. */
export function chaosTemplate(
  { effects, queues, millisMax }: ChaosWork,
  random: Prng,
  number: number,
): JobTemplate {
  const draw = (below: number) => random.uint32() % below;
  const step = (name: string, more: Partial<TemplateStep> & { errors?: number } = {}): TemplateStep => {
    const { errors = 0, ...rest } = more;
    const isOutside = draw(3) === 0;
    return {
      name,
      component: "Chaos",
      task: isOutside ? "Outside" : "Inside",
      execution: isOutside ? "external" : "internal",
      queue: queues[draw(queues.length)] ?? "",
      parameters: { effects, millis: draw(millisMax), errors },
      crashes: 100,
      ...rest,
    };
  };
  const fan = Array.from({ length: 6 }, (_, index) => `fan ${index}`);
  const chain = Array.from({ length: 5 }, (_, index) => `chain ${index}`);
  return {
    name: NAME,
    steps: [
      step("begin", { onSuccess: ["retry", "once", "ledger"] }),
      step("retry", { errors: 2, retries: 3, onSuccess: fan }),
      ...fan.map((name) => step(name, { onSuccess: ["join"] })),
      step("join", { onSuccess: ["fails"] }),
      step("fails", { errors: 9, onSuccess: ["never"], onError: ["mends"] }),
      step("never"),
      step("mends", { onSuccess: [chain[0] ?? ""] }),
      ...chain.map((name, index) => {
        const next = chain[index + 1];
        return step(name, next === undefined ? {} : { onSuccess: [next] });
      }),
      step("once", { onCrash: "freeze" }),
      step("ledger", { exclusiveObject: ledgerOf(number) }),
      step("poison", {
        errors: 9,
        retries: 1,
        freezeOnError: number % 5 === 0,
        ignoreErrors: number % 5 !== 0,
      }),
    ],
  };
}

/** Runs it all and judges it. Throws only what the harness itself cannot go on from. */
export async function runChaos(
  t: TestContext,
  server: TestServer,
  options: ChaosOptions,
): Promise<ChaosReport> {
  const random = new Prng(options.seed);
  const database = await server.database(t, { max: 4 });
  const hub = await HubProcess.start(t, database);
  await call(hub, "PUT", "/v1/settings", { "Common/Jobs/LeaseSeconds": 5 });
  const directory = temporaryDirectory(t);
  const effects = join(directory, "effects");
  writeFileSync(effects, "");
  const ledgers = new Map<number, string>();
  const work = { effects, queues: QUEUES, millisMax: 12 };
  const perProcess = chaosTemplate(work, new Prng(1), 0).steps.length;
  const processes = Math.ceil(options.steps / perProcess);
  for (let number = 0; number < processes; number++) {
    const { process } = await call<{ process: ProcessSummary }>(hub, "POST", "/v1/jobs/processes", {
      template: chaosTemplate(work, random, number),
    });
    ledgers.set(process.id, ledgerOf(number));
  }
  options.progress?.(`${processes} processes with ${processes * perProcess} steps are in the queue`);

  const services = await Promise.all(
    QUEUES.map(async (queue, index) => {
      const own = join(directory, `service-${index}`);
      const file = configure(hub, own, {
        queues: [queue],
        machine: `machine-${index}`,
        service: `DrainSeconds = 5\nPlugins = [${JSON.stringify(CHAOS_PLUGIN)}]`,
      });
      return { own, file, running: await runService(t, own, file) };
    }),
  );
  const kills: Record<string, number> = {};
  const counted = (what: string) => {
    kills[what] = (kills[what] ?? 0) + 1;
  };
  const pick = () => services[random.uint32() % services.length];
  for (let kill = 0; kill < options.kills; ) {
    await sleep(random.uint32() % options.pauseMs);
    const chosen = pick();
    if (chosen === undefined) continue;
    const dice = random.uint32() % 20;
    if (dice < 3) {
      counted("hub");
      await hub.kill();
      await sleep(random.uint32() % 1500);
      await hub.restart();
    } else if (dice < 8) {
      counted("service");
      await chosen.running.kill();
      chosen.running = await runService(t, chosen.own, chosen.file);
    } else if (dice < 14) {
      const engine = await waitFor(() => chosen.running.engine());
      counted("engine");
      killQuietly(engine);
    } else {
      const worker = chosen.running.workers()[0];
      if (worker === undefined) continue;
      counted("worker");
      killQuietly(worker);
    }
    kill++;
    if (kill % 20 === 0) options.progress?.(`${kill} kills, ${await remaining(database)} steps to go`);
  }
  for (let left = await remaining(database), told = left; left > 0; left = await remaining(database)) {
    await sleep(100);
    if (told - left > options.steps / 10) {
      told = left;
      options.progress?.(`${left} steps to go`);
    }
  }
  for (const { running } of services) await running.stop();
  const details: ProcessDetail[] = [];
  for (const id of ledgers.keys()) details.push(await readJob(hub, id));
  const problems = judgeHistory({
    processes: details,
    effects: readEffects(effects),
    declared: ({ process }, step) => declaredOf(step, ledgers.get(process.id) ?? null),
  });
  const steps = details.flatMap((detail) => detail.steps);
  return {
    steps: steps.length,
    kills,
    runs: tally(steps.flatMap(({ runs }) => runs.map(({ outcome }) => outcome ?? "open"))),
    states: tally(steps.map(({ state, outcome }) => outcome ?? state)),
    problems: [...problems, ...leftOver(services.map(({ running }) => running))],
  };
}

export const ledgerOf = (number: number) => `ledger ${number % 7}`;

/** What the template says of a step. */
export const declaredOf = ({ name }: { readonly name: string }, ledger: string | null): Declared => ({
  onCrash: name === "once" ? "freeze" : "rerun",
  exclusiveObject: name === "ledger" ? ledger : null,
});

/** Steps that can still go on by themselves. */
export async function remaining(database: Awaited<ReturnType<TestServer["database"]>>): Promise<number> {
  const { rows } = await database.pool.query<{ count: number }>(
    `select count(*) as count from job_step s where state in ('ready', 'deferred', 'loaded', 'processing')
       or (state = 'waiting' and not exists (
         select from job_step h where h.process_id = s.process_id and h.state in ('frozen', 'missing', 'over-limit')))`,
  );
  return Number(rows[0]?.count);
}

export function readEffects(file: string): Effect[] {
  const found = new Map<string, Effect[]>();
  for (const line of readFileSync(file, "utf8").split("\n")) {
    const [what, step, claim, at] = line.split(" ");
    if (claim === undefined || step === undefined) continue;
    const key = `${step} ${claim}`;
    const list = found.get(key) ?? [];
    found.set(key, list);
    if (what === "begin") list.push({ step: Number(step), claim: Number(claim), from: Number(at), to: null });
    else {
      const last = list.pop();
      if (last !== undefined) list.push({ ...last, to: Number(at) });
    }
  }
  return [...found.values()].flat();
}

function leftOver(services: readonly TestService[]): string[] {
  return services.flatMap(({ process }) =>
    familyOf(process.pid ?? 0).map((pid) => `process ${pid} of a service that was stopped is still there`),
  );
}

export function tally(values: readonly string[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const value of values) counts[value] = (counts[value] ?? 0) + 1;
  return counts;
}

async function waitFor<T>(look: () => T | null): Promise<T> {
  for (;;) {
    const found = look();
    if (found !== null) return found;
    await sleep(20);
  }
}
