/**
 * The job service on a virtual server, and a hand that makes it fail over, in every way that there is, while processes of
 * many steps run. Afterwards it is judged by what the hub recorded, what the steps wrote down, what stands in the log on
 * the shared volume, what the settings are, and what ran on which machine at each moment.
 */
import { hash } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import type { TestContext } from "node:test";
import { CHECKPOINT_KEYS, CHECKPOINT_MANIFEST, newestManifestKey } from "@lockstep/core";
import type { ProcessDetail, ProcessSummary, StepDetail } from "@lockstep/protocol";
import { type Effect, findLogFaults, judgeHistory, Prng } from "@lockstep/testing";
import { startTestHub, type TestHub } from "../hub/support/test-hub.ts";
import {
  CHAOS_PLUGIN,
  chaosTemplate,
  declaredOf,
  ledgerOf,
  readEffects,
  remaining,
  tally,
} from "../service/chaos.ts";
import { call, readJob, startJob } from "../service/service-world.ts";
import type { TestServer } from "../support/postgres.ts";
import { JobLab } from "./job-lab.ts";

const NODES = ["alpha", "beta", "gamma"];
const PLUGIN = resolve(import.meta.dirname, "job-work.internal.mjs");
const KINDS = ["move", "node", "service", "drain", "daemon", "guard"] as const;
type Kind = (typeof KINDS)[number];
/** So many steps are there to be done at any time. */
const STEPS_WAITING = 300;
const MARKER = "marker";

export interface JobClusterOptions {
  readonly seed: number;
  readonly failovers: number;
  readonly progress?: (text: string) => void;
}

export interface JobClusterReport {
  readonly steps: number;
  readonly states: Readonly<Record<string, number>>;
  readonly runs: Readonly<Record<string, number>>;
  readonly kinds: Readonly<Record<string, number>>;
  /** From the blow, or the command, to the first step that the next instance of the service claimed, in milliseconds. */
  readonly firstStepMs: Readonly<Record<string, readonly number[]>>;
  readonly terms: number;
  readonly logRecords: number;
  readonly samples: number;
  readonly problems: readonly string[];
}

/** Runs it all and judges it. Throws only what the harness itself cannot go on from. */
export async function runJobCluster(
  t: TestContext,
  server: TestServer,
  etcd: string,
  options: JobClusterOptions,
): Promise<JobClusterReport> {
  const random = new Prng(options.seed);
  const draw = (below: number) => random.uint32() % below;
  const hub = await startTestHub(t, server);
  const lab = await JobLab.open(etcd, NODES);
  t.after(() => lab.close());
  const work = new Work(hub, lab, random);
  await work.refill();
  await lab.found();
  await register(hub, lab);
  options.progress?.("the cluster stands, the service is registered");

  const problems: string[] = [];
  const kinds: Record<string, number> = {};
  const firstStepMs: Record<string, number[]> = {};
  let owner = await lab.untilOnline(0);
  await work.untilWorking();
  for (let number = 1; number <= options.failovers; number++) {
    await work.refill();
    await work.keep(number);
    owner = await lab.until("the setting is in the store", async () => {
      // A machine that stood still may have lost it meanwhile.
      const present = await lab.untilOnline(owner.token - 1);
      return (await storedSetting(lab, MARKER)) === hashOf(lab, present.node, MARKER) ? present : null;
    });
    // At some moment of the work.
    await new Promise((wake) => setTimeout(wake, draw(1500)));
    const kind =
      KINDS[options.failovers <= KINDS.length ? (number - 1) % KINDS.length : draw(KINDS.length)] ?? "move";
    const others = NODES.filter((node) => node !== owner.node);
    const target = others[draw(others.length)] ?? "";
    const former = await work.instance();
    const startedAt = Date.now();
    const restore = await blow(lab, kind, owner.node, target);
    const next = await lab.untilOnline(owner.token);
    const took = await work.firstClaimAfter(former);
    firstStepMs[kind] = [...(firstStepMs[kind] ?? []), took - startedAt];
    kinds[kind] = (kinds[kind] ?? 0) + 1;
    if (kind === "move" && next.node !== target)
      problems.push(`move ${number} to ${target} ended on ${next.node}`);
    if (!readSetting(lab, next.node, MARKER).startsWith(`${number} `))
      problems.push(
        `failover ${number} (${kind}): ${next.node} has the setting ${readSetting(lab, next.node, MARKER)}`,
      );
    await restore();
    options.progress?.(
      `${number}: ${kind} ${owner.node} -> ${next.node}, first step after ${took - startedAt} ms`,
    );
    owner = next;
  }
  await work.finish();
  await lab.until("equal settings (I7)", async () => {
    const here = hashOf(lab, owner.node, MARKER);
    return here === (await storedSetting(lab, MARKER)) ? true : null;
  });
  // In order, so that the last records are there.
  await lab.ask("alpha", "cluster", "virtual-server", "offline", "JOBS");
  await lab.until("nothing of the service is left", () => (lab.serving().length === 0 ? true : null));

  const details = await work.details();
  const steps = details.flatMap((detail) => detail.steps);
  const logs = readLogs(lab.shared);
  problems.push(
    ...judgeHistory({
      processes: details,
      effects: work.effects(),
      declared: ({ process }, step) => declaredOf(step, work.ledgers.get(process.id) ?? null),
    }),
    ...findLogFaults(logs, { mayBeTorn: true }),
    ...lab.together.map((nodes) => `the service ran at once on ${nodes}`),
    ...unlogged(steps, logs),
  );
  return {
    steps: steps.length,
    states: tally(steps.map(({ state, outcome }) => outcome ?? state)),
    runs: tally(steps.flatMap(({ runs }) => runs.map(({ outcome }) => outcome ?? "open"))),
    kinds,
    firstStepMs,
    terms: owner.token,
    logRecords: logs.join("").split("\n").length - 1,
    samples: lab.samples,
    problems,
  };
}

/** Does what makes it fail over. Returns how the former state comes back. */
async function blow(lab: JobLab, kind: Kind, owner: string, target: string): Promise<() => Promise<void>> {
  const nothing = () => Promise.resolve();
  switch (kind) {
    case "move":
      await lab.ask(target, "cluster", "move", "JOBS", "--to", target);
      return nothing;
    case "drain":
      await lab.ask(target, "cluster", "drain", owner);
      return async () => {
        await lab.ask(target, "cluster", "resume", owner);
      };
    case "service":
    case "guard":
      await lab.kill(owner, kind);
      return nothing;
    case "daemon":
      await lab.kill(owner, kind);
      return () => lab.startDaemon(owner);
    case "node":
      await lab.powerOff(owner);
      return async () => {
        await lab.boot(owner);
        await lab.startDaemon(owner);
      };
  }
}

/** The same installation on every machine, its configuration pushed, and the service registered, as in the manual. */
async function register(hub: TestHub, lab: JobLab): Promise<void> {
  const text = configOf(hub, lab, 4);
  for (const node of NODES) {
    writeFileSync(join(lab.ownApp(node), "JobService.toml"), text);
    writeFileSync(join(lab.ownApp(node), "hub-token"), hub.token, { mode: 0o600 });
    mkdirSync(join(lab.ownApp(node), "settings"));
  }
  const config = join(lab.app, "JobService.toml");
  await lab.ask(
    "alpha",
    ...["cluster", "virtual-server", "add", "JOBS", "--service", config, "--failover-limit", "9999/6"],
    ...["--policy", "service.restartThreshold=0"],
  );
  const file = join(lab.directory, "pushed.toml");
  writeFileSync(file, configOf(hub, lab, 5));
  await lab.ask("beta", "cluster", "config", "push", "JOBS", file);
}

const configOf = (hub: TestHub, lab: JobLab, slots: number) => `[JobProvider]
Hub = "${hub.url}"
TokenFile = "hub-token"

[[JobServiceDestination]]
Queue = "JOBS"
InternalSlots = ${slots}
ExternalSlots = 2

[Service]
DrainSeconds = 3
Plugins = [${JSON.stringify(CHAOS_PLUGIN)}, ${JSON.stringify(PLUGIN)}]

[FileLogWriter]
OutPutFile = "${lab.shared}/JobService.log"
LogSeverity = "Info"
MaxLogSize = 1
HistorySize = 1000

[HTTPStatus]
Port = 0
`;

/** Processes and steps, put in as they are worked off. */
class Work {
  readonly ledgers = new Map<number, string>();
  readonly #hub: TestHub;
  readonly #lab: JobLab;
  readonly #random: Prng;
  readonly #effects: string;
  readonly #markers: number[] = [];
  #number = 0;

  constructor(hub: TestHub, lab: JobLab, random: Prng) {
    this.#hub = hub;
    this.#lab = lab;
    this.#random = random;
    this.#effects = join(lab.directory, "effects");
    writeFileSync(this.#effects, "");
  }

  async refill(): Promise<void> {
    while ((await remaining(this.#hub.database)) < STEPS_WAITING) {
      const number = this.#number++;
      const work = { effects: this.#effects, queues: ["JOBS"], millisMax: 400 };
      const { process } = await call<{ process: ProcessSummary }>(this.#hub, "POST", "/v1/jobs/processes", {
        template: chaosTemplate(work, this.#random, number),
      });
      this.ledgers.set(process.id, ledgerOf(number));
    }
  }

  /** Lets the service change its settings, and waits until it has. */
  async keep(number: number): Promise<void> {
    const parameters = { file: join(this.#lab.app, "settings", MARKER), text: String(number) };
    const task = { component: "Setting", task: "Write", execution: "internal" } as const;
    const step = { name: "keep", ...task, queue: "JOBS", priority: 9, parameters };
    const id = await startJob(this.#hub, "keep", [{ ...step, crashes: 100 }]);
    this.#markers.push(id);
    await this.#lab.until("the setting is written", async () => {
      const { process, steps } = await readJob(this.#hub, id);
      if (process.state !== "finished" && process.state !== "running") throw new Error(JSON.stringify(steps));
      return process.state === "finished" ? true : null;
    });
  }

  /** The run of the service that the hub knows. */
  async instance(): Promise<string> {
    const { rows } = await this.#hub.pool.query<{ instance: string }>(
      "select instance::text from job_server where queue = 'JOBS'",
    );
    return rows[0]?.instance ?? "";
  }

  /** When another run than this one had its first step, by the clock of this machine. */
  async firstClaimAfter(former: string): Promise<number> {
    return this.#lab.until("a step on the next owner", async () => {
      const { rows } = await this.#hub.pool.query<{ at: Date | null }>(
        `select min(claimed_at) as at from job_run where instance <> $1
           and claim > (select coalesce(max(claim), 0) from job_run where instance = $1)`,
        [former],
      );
      return rows[0]?.at?.getTime() ?? null;
    });
  }

  async untilWorking(): Promise<void> {
    await this.#lab.until("the first steps", () => (this.effects().length > 0 ? true : null));
  }

  async finish(): Promise<void> {
    await this.#lab.until("every step done", async () =>
      (await remaining(this.#hub.database)) === 0 ? true : null,
    );
  }

  details(): Promise<ProcessDetail[]> {
    return Promise.all([...this.ledgers.keys()].map((id) => readJob(this.#hub, id)));
  }

  effects(): Effect[] {
    return readEffects(this.#effects);
  }
}

const readSetting = (lab: JobLab, node: string, name: string): string => {
  try {
    return readFileSync(join(lab.ownApp(node), "settings", name), "utf8");
  } catch {
    return "";
  }
};

const hashOf = (lab: JobLab, node: string, name: string): string =>
  hash("sha256", readSetting(lab, node, name), "hex");

/** SHA-256 of a setting as the store has it; null: it has none. */
async function storedSetting(lab: JobLab, name: string): Promise<string | null> {
  const found = await lab.coordination.readValues("JOBS", CHECKPOINT_KEYS.manifests);
  const parsed = CHECKPOINT_MANIFEST.parse(found.get(newestManifestKey(found.keys()) ?? "") ?? "");
  if (!parsed.ok) return null;
  const entry = parsed.value.entries.find(({ path }) => path === name);
  return entry?.sha256 ?? null;
}

/** The log and its backups, oldest first. */
function readLogs(directory: string): string[] {
  const numbers = readdirSync(directory)
    .map((name) => /^JobService\.log(?:\.(\d+))?$/.exec(name))
    .filter((match) => match !== null)
    .map((match) => (match[1] === undefined ? 0 : Number(match[1])));
  return numbers
    .sort((a, b) => b - a)
    .map((each) =>
      readFileSync(join(directory, each === 0 ? "JobService.log" : `JobService.log.${each}`), "utf8"),
    );
}

/** Ends that the hub recorded and no record of the log tells; only a service that was killed may owe a few. */
function unlogged(steps: readonly StepDetail[], logs: readonly string[]): string[] {
  const text = logs.join("");
  const missing = steps.filter(
    ({ id, runs }) =>
      runs.some(({ outcome }) => outcome === "success") && !text.includes(` - ${id}: success`),
  );
  return missing.length > steps.length / 20
    ? [`${missing.length} of ${steps.length} steps ended well and the log does not know of them`]
    : [];
}
