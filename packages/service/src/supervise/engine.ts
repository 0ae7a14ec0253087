import { createHash } from "node:crypto";
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { HubClient, resolveToken } from "@lockstep/client";
import { counted } from "@lockstep/core";
import { afterOwnTime, type Random, systemClock, systemRandom } from "@lockstep/platform";
import {
  type ClaimedStep,
  isLockstepError,
  LockstepError,
  readClusterOrigin,
  type StepResult,
} from "@lockstep/protocol/wire";
import type { Component } from "../components/types.ts";
import type { ServiceConfig } from "../config/types.ts";
import { type ConfigWatch, watchServiceConfig } from "../config/watch.ts";
import { bootClock } from "../exchange/boot-clock.ts";
import { ResultJournal } from "../journal/result-journal.ts";
import { createSystemLog } from "../log/system-log.ts";
import type { LogWriter } from "../log/types.ts";
import { createLogWriter } from "../log/writer.ts";
import { openStatusPage, type StatusPage } from "../status/server.ts";
import type { ServicePhase, ServiceState } from "../status/types.ts";
import { killMarked, SERVICE_VARIABLE } from "../worker/marked-processes.ts";
import { findInstallation, type OwnInstallation, readRevision } from "./installation.ts";
import { QueueService } from "./queue-service.ts";
import {
  dropUpdateRecord,
  lockState,
  readUpdateRecord,
  UPDATE_STATUS,
  writeUpdateRecord,
} from "./state-files.ts";

/**
 * The engine: everything between the hub and the steps, in one process that the supervisor starts, and starts again.
 *
 * It ends in three ways, told apart by its exit status: because it was told to (0), because an update is to be done,
 * for which nothing of it may run (UPDATE_STATUS), and because something is wrong.
 */
export interface EngineOptions {
  readonly configFile: string;
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** How this program starts itself: the words before `worker`. */
  readonly program: readonly string[];
  readonly version: string;
  /** Aborted when it is to drain. */
  readonly signal: AbortSignal;
  /** Told once when it serves, with the address of its status page and how long it may drain. */
  readonly onReady: (url: string | null, drainMs: number) => void;
  readonly random?: Random;
}

/** Something inside this process cannot be stopped, or nobody knows what happened. */
const FAULT_STATUS = 70;
/** After the limit of the drain, for what is being stopped then. */
const DRAIN_GRACE_MS = 8000;
const LOCK_POLL_MS = 250;
/** A queue that another service took over is tried again after this; each time in vain it takes twice as long. */
const REPLACED_MS = { first: 60_000, max: 3_600_000 };

/**
 * Serves every queue of the configuration until it is told to end. Resolves with the exit status.
 * Throws SERVICE_CONFIG_UNREADABLE, SERVICE_CONFIG_INVALID, SERVICE_ALREADY_RUNNING, JOB_JOURNAL_FAILED, USAGE.
 */
export async function runEngine(options: EngineOptions): Promise<number> {
  let engine: Engine | null = null;
  const watch = await watchServiceConfig({
    file: options.configFile,
    environment: options.environment,
    onChange: (config, awaitingRestart) => engine?.reconfigure(config, awaitingRestart),
    onRefused: (faults) => engine?.refuse(faults),
  });
  try {
    const config = watch.config();
    const { stateDirectory, drainMs } = config.service;
    using _lock = await lockWhenFree(stateDirectory, drainMs + DRAIN_GRACE_MS, options.signal);
    const systemLog = createSystemLog({ environment: options.environment, stderr: process.stderr });
    const log = createLogWriter({
      config: config.log,
      debugMode: config.service.debugMode,
      systemLog,
      origin: readClusterOrigin(options.environment),
    });
    try {
      engine = new Engine(options, watch, log);
      return await engine.run();
    } finally {
      await engine?.close();
      await log.close();
    }
  } finally {
    await watch.stop();
  }
}

/** An engine whose supervisor was killed drains by itself, and may still be at it. */
async function lockWhenFree(
  stateDirectory: string,
  waitMs: number,
  signal: AbortSignal,
): Promise<Disposable> {
  const until = systemClock.monotonic() + waitMs;
  while (true) {
    try {
      return lockState(stateDirectory);
    } catch (error) {
      const isTaken = isLockstepError(error, "SERVICE_ALREADY_RUNNING");
      if (!isTaken || signal.aborted || systemClock.monotonic() > until) throw error;
      await systemClock.sleep(LOCK_POLL_MS, signal);
    }
  }
}

class Engine {
  readonly #options: EngineOptions;
  readonly #watch: ConfigWatch;
  readonly #log: LogWriter;
  readonly #random: Random;
  readonly #startedAt = systemClock.now();
  readonly #instance: string;
  readonly #installation: OwnInstallation | null;
  readonly #revision: number | null;
  readonly #drained = new Map<QueueService, "stop" | "update">();
  readonly #ended: Promise<number>;
  #end: (status: number) => void = () => {};
  readonly #takeovers = new Map<string, number>();
  #queues: QueueService[] = [];
  #page: StatusPage | null = null;
  #phase: ServicePhase = "starting";
  #detail: string | null = null;
  #wantedRevision = 0;
  #plugins: Promise<readonly Component[]> | null = null;

  constructor(options: EngineOptions, watch: ConfigWatch, log: LogWriter) {
    this.#options = options;
    this.#watch = watch;
    this.#log = log;
    this.#random = options.random ?? systemRandom;
    this.#instance = this.#random.uuid();
    this.#installation = findInstallation(watch.config().file);
    // What no revision file says is out of date, which is something else than belonging to no installation.
    this.#revision = this.#installation === null ? null : (readRevision(this.#installation) ?? 0);
    this.#ended = new Promise((resolve) => {
      this.#end = resolve;
    });
  }

  async run(): Promise<number> {
    const config = this.#watch.config();
    const { stateDirectory } = config.service;
    for (const fault of this.#watch.warnings)
      if (fault.severity === "warning")
        this.#log.warning(`${config.file}:${fault.line}: ${fault.key}: ${fault.problem}`);
    const mark = createHash("sha256").update(stateDirectory).digest("hex").slice(0, 32);
    // Whatever a former run left running works on claims that are about to be given to others.
    const left = killMarked(SERVICE_VARIABLE, mark);
    if (left > 0)
      this.#log.warning(
        `ended ${counted(left, "process", "processes")} that a former run of the service had left`,
      );
    const work = join(stateDirectory, "work");
    await rm(work, { recursive: true, force: true });
    await mkdir(work, { recursive: true, mode: 0o700 });
    const hub = await this.#connect(config);
    const updates = this.#resultsOfUpdate(stateDirectory);
    this.#page = await openStatusPage({
      config: config.status,
      stateDirectory,
      environment: this.#options.environment,
      log: this.#log,
      state: () => this.describe(),
    });
    for (const { queue } of config.destinations) {
      const journal = await ResultJournal.open(stateDirectory, queue);
      const told = updates.get(queue) ?? [];
      if (told.length > 0) await journal.write(told);
      this.#queues.push(this.#makeQueue(queue, hub, journal, mark, work));
    }
    dropUpdateRecord(stateDirectory);
    this.#phase = "running";
    for (const queue of this.#queues) queue.loop.start();
    const { signal } = this.#options;
    signal.addEventListener("abort", () => this.#drain("stop"), { once: true });
    if (signal.aborted) this.#drain("stop");
    this.#log.info(`the service serves ${this.#queues.map(({ queue }) => queue).join(", ") || "no queue"}`, {
      version: this.#options.version,
      revision: this.#revision,
    });
    this.#options.onReady(this.#page.url, config.service.drainMs);
    const status = await this.#ended;
    this.#phase = "stopped";
    return status;
  }

  reconfigure(config: ServiceConfig, awaitingRestart: readonly string[]): void {
    this.#log.configure(config.log, config.service.debugMode);
    void this.#page?.authenticate(config.status.authentication).catch((error: unknown) => {
      this.#log.serious(`the changed authentication of the status page cannot be used: ${String(error)}`);
    });
    this.#log.info(
      "the changed configuration is in force",
      awaitingRestart.length === 0 ? {} : { awaitingRestart },
    );
    for (const { loop } of this.#queues) loop.take({ kind: "tick" });
  }

  refuse(faults: readonly string[]): void {
    for (const fault of faults) this.#log.serious(`the changed configuration is not taken over: ${fault}`);
  }

  describe(): ServiceState {
    return {
      phase: this.#phase,
      detail: this.#detail,
      startedAtMs: this.#startedAt,
      version: this.#options.version,
      machine: this.#watch.config().service.machine,
      instance: this.#instance,
      installation: this.#installation?.id ?? null,
      revision: this.#revision,
      config: this.#watch.state(),
      queues: this.#queues.map((queue) => queue.describe()),
      workers: this.#queues.flatMap((queue) => queue.describeWorkers()),
      steps: this.#queues.flatMap((queue) => queue.describeSteps()),
    };
  }

  async close(): Promise<void> {
    await Promise.all(this.#queues.map((queue) => queue.close()));
    await this.#page?.close();
  }

  async #connect(config: ServiceConfig): Promise<HubClient> {
    const { environment } = this.#options;
    const { hub, tokenFile, caFile } = config.provider;
    const file = tokenFile ?? (environment.LOCKSTEP_TOKEN ? null : (this.#installation?.tokenFile ?? null));
    const token = await resolveToken({ tokenFile: file, environment });
    if (token !== null) this.#log.hide(token);
    return new HubClient({
      url: hub,
      token,
      caFile,
      // Each queue has a request that waits and may have another one; steps ask the hub as well.
      connectionsMax: 2 * config.destinations.length + 4,
    });
  }

  #makeQueue(
    queue: string,
    hub: HubClient,
    journal: ResultJournal,
    mark: string,
    work: string,
  ): QueueService {
    const { program, version } = this.#options;
    const destination = () => {
      const found = this.#watch.config().destinations.find((each) => each.queue === queue);
      if (found !== undefined) last = found;
      return last;
    };
    let last = this.#watch.config().destinations.find((each) => each.queue === queue);
    return new QueueService({
      hub,
      identity: {
        // One for each queue: each has its own sequence of requests.
        instance: this.#random.uuid(),
        machine: this.#watch.config().service.machine,
        revision: this.#revision,
        installation: this.#installation?.id ?? null,
        version,
        ...readClusterOrigin(this.#options.environment),
      },
      statusUrl: () => this.#page?.url ?? null,
      installation: this.#installation?.directory ?? null,
      journal,
      config: () => this.#watch.config(),
      destination: () => {
        const found = destination();
        if (found === undefined) throw new LockstepError("INTERNAL", `the queue ${queue} is not configured`);
        return found;
      },
      log: this.#log,
      program: [...program, "worker"],
      mark,
      directory: work,
      plugins: () => {
        this.#plugins ??= this.#loadPlugins();
        return this.#plugins;
      },
      now: () => systemClock.now(),
      leaseClock: bootClock,
      random: this.#random,
      onUpdate: (from, step, revision) => this.#takeUpdate(from, step, revision),
      onDrained: (from, why) => this.#takeDrained(from, why),
      onReplaced: (from, error) => this.#takeReplaced(from, error),
      onUnstoppable: (step) => {
        this.#log.serious(
          `step ${step.id} (${step.name}) does not stop; the service starts anew, because its work must not go on`,
        );
        this.#finish(FAULT_STATUS);
      },
      onAnswer: () => this.#resumeWithoutUpdate(),
    });
  }

  async #loadPlugins(): Promise<readonly Component[]> {
    const { plugins } = this.#watch.config().service;
    if (plugins.length === 0) return [];
    const { loadPlugins } = await import("../components/plugins.ts");
    const { components, problems } = await loadPlugins(plugins, "internal");
    for (const problem of problems) this.#log.serious(`${problem.message} ${problem.hint ?? ""}`);
    return components;
  }

  #takeReplaced(from: QueueService, error: LockstepError): void {
    this.#log.serious(`${from.queue}: ${error.code}: ${error.message} ${error.hint ?? ""}`);
    this.#detail = `${from.queue}: ${error.message}`;
    if (this.#queues.every(({ loop }) => loop.state.replaced)) this.#phase = "failed";
    this.#takeover(from);
  }

  /** Whoever took the queue over may be gone again. Two services that both live take turns ever more seldom. */
  #takeover(from: QueueService): void {
    const turn = this.#takeovers.get(from.queue) ?? 0;
    this.#takeovers.set(from.queue, turn + 1);
    const pause =
      Math.min(REPLACED_MS.first * 2 ** Math.min(turn, 10), REPLACED_MS.max) * (0.5 + this.#random.next());
    const timer = setTimeout(() => {
      if (this.#phase !== "running" && this.#phase !== "failed") return;
      from.beginAnew(this.#random.uuid());
      this.#phase = "running";
      this.#detail = null;
    }, pause);
    timer.unref();
  }

  // The end.

  #drain(why: "stop" | "update"): void {
    if (this.#phase === "draining" || (why === "update" && this.#phase === "updating")) return;
    this.#phase = why === "stop" ? "draining" : "updating";
    const { drainMs } = this.#watch.config().service;
    this.#log.info(
      why === "stop"
        ? `the service ends; running steps have ${drainMs / 1000} s`
        : `the service ends for the update to software revision ${this.#wantedRevision}`,
    );
    this.#drained.clear();
    for (const { loop } of this.#queues) loop.take({ kind: "drain", for: why, limitMs: drainMs });
    if (why === "stop")
      // Whoever stood still beyond the limit has handed nothing over yet. The end of this process calls it off.
      afterOwnTime(drainMs + DRAIN_GRACE_MS, () => {
        this.#log.warning(
          "not everything could be handed over in time; the hub finds out when the lease ends",
        );
        this.#finish(0);
      });
    if (this.#queues.length === 0) this.#finish(0);
  }

  #takeDrained(from: QueueService, why: "stop" | "update"): void {
    this.#drained.set(from, why);
    const isDrained = (queue: QueueService) => queue.loop.state.replaced || this.#drained.get(queue) === why;
    if (!this.#queues.every(isDrained)) return;
    if (why === "stop") this.#finish(0);
    else if (this.#phase === "updating") this.#endForUpdate();
  }

  #finish(status: number): void {
    this.#end(status);
  }

  // The update.

  #takeUpdate(from: QueueService, step: ClaimedStep, known: number): void {
    const asked = step.parameters.revision;
    const revision = typeof asked === "number" ? Math.max(asked, known) : known;
    const base = {
      step: step.id,
      claim: step.claim,
      startedAt: systemClock.now(),
      endedAt: systemClock.now(),
    };
    if (this.#installation === null) {
      const message = "this service belongs to no installation";
      queueMicrotask(() =>
        from.loop.end(step.claim, { ...base, outcome: "error", message, permanent: true }),
      );
    } else if (this.#revision !== null && this.#revision >= revision) {
      const message = `software revision ${this.#revision} is installed`;
      queueMicrotask(() => from.loop.end(step.claim, { ...base, outcome: "success", message }));
    } else {
      this.#wantedRevision = Math.max(this.#wantedRevision, revision);
      queueMicrotask(() => this.#drain("update"));
    }
  }

  /** The step that asked for the update may be gone again: its lease ran out while running steps were waited for. */
  #resumeWithoutUpdate(): void {
    if (this.#phase !== "updating" || this.#queues.some(({ updates }) => updates.length > 0)) return;
    this.#log.info("the update is no longer asked for; the service goes on");
    this.#resume();
  }

  #resume(): void {
    this.#phase = "running";
    this.#drained.clear();
    for (const { loop } of this.#queues) loop.take({ kind: "resume" });
  }

  #endForUpdate(): void {
    const steps = this.#queues.flatMap(({ queue, updates }) =>
      updates.map(({ id, claim }) => ({ queue, step: id, claim })),
    );
    if (steps.length === 0) {
      this.#resumeWithoutUpdate();
      return;
    }
    try {
      writeUpdateRecord(this.#watch.config().service.stateDirectory, {
        format: "lockstep-job-update/1",
        revision: this.#wantedRevision,
        steps,
        startedAt: systemClock.now(),
        outcome: null,
      });
    } catch (error) {
      const message = `the update cannot be written down: ${error instanceof Error ? error.message : String(error)}`;
      this.#log.serious(message);
      const now = systemClock.now();
      // The hub asks again after a while. Until then nothing here may wait for an update that does not come.
      for (const { loop, updates } of this.#queues)
        for (const { id, claim } of updates)
          loop.end(claim, { step: id, claim, outcome: "error", message, startedAt: now, endedAt: now });
      this.#resume();
      return;
    }
    this.#finish(UPDATE_STATUS);
  }

  /** What came of the update for which a former run ended, told under its claims. */
  #resultsOfUpdate(stateDirectory: string): Map<string, StepResult[]> {
    const results = new Map<string, StepResult[]>();
    const record = readUpdateRecord(stateDirectory);
    if (record === null) return results;
    const done = this.#revision !== null && this.#revision >= record.revision;
    const said = record.outcome?.message ?? "the service was started without it";
    const message = done
      ? `software revision ${this.#revision} is installed`
      : `software revision ${record.revision} is not installed: ${said}`;
    this.#log[done ? "info" : "serious"](message);
    for (const { queue, step, claim } of record.steps)
      results.set(queue, [
        ...(results.get(queue) ?? []),
        {
          step,
          claim,
          outcome: done ? "success" : "error",
          message,
          startedAt: record.startedAt,
          endedAt: systemClock.now(),
        },
      ]);
    return results;
  }
}
