import type { HubClient } from "@lockstep/client";
import { type Held, type StopReason, UPDATE_COMPONENT, usedSlots } from "@lockstep/core";
import type { Random } from "@lockstep/platform";
import {
  type ClaimedStep,
  type ExchangeAnswer,
  isLockstepError,
  type LockstepError,
  type ProcessDetail,
  type ProcessSummary,
  type StepResult,
} from "@lockstep/protocol/wire";
import type { Component, StepHub } from "../components/types.ts";
import type { DestinationConfig, ServiceConfig } from "../config/types.ts";
import { Dispatcher, type StepFate } from "../dispatch/dispatcher.ts";
import { type ExchangeIdentity, exchange } from "../exchange/hub-exchange.ts";
import { QueueLoop, type QueueShell } from "../exchange/queue-loop.ts";
import type { ResultJournal } from "../journal/result-journal.ts";
import type { LogWriter } from "../log/types.ts";
import type { QueueState, ShownStep, StepCounters, WorkerState } from "../status/types.ts";
import { WorkerPool } from "../worker/worker-pool.ts";

/** One queue of the engine: its loop with the hub, its steps and workers, and what there is to say about them. */
export interface QueueServiceOptions {
  readonly hub: HubClient;
  readonly identity: Omit<ExchangeIdentity, "queue" | "statusUrl">;
  readonly statusUrl: () => string | null;
  readonly installation: string | null;
  readonly journal: ResultJournal;
  readonly config: () => ServiceConfig;
  readonly destination: () => DestinationConfig;
  readonly log: LogWriter;
  readonly program: readonly string[];
  readonly mark: string;
  readonly directory: string;
  readonly plugins: () => Promise<readonly Component[]>;
  readonly now: () => number;
  readonly leaseClock: () => number;
  readonly random: Random;
  readonly onUpdate: (queue: QueueService, step: ClaimedStep, revision: number) => void;
  readonly onDrained: (queue: QueueService, why: "stop" | "update") => void;
  readonly onReplaced: (queue: QueueService, error: LockstepError) => void;
  /** The engine has to end for it; what came of the step is written down by then. */
  readonly onUnstoppable: (step: ClaimedStep) => void;
  readonly onAnswer: () => void;
}

const STEPS_SHOWN_MAX = 100;
const JOURNAL_DELAY_MS = 200;
const PROCESS_BYTES_MAX = 64 * 1024 * 1024;

export class QueueService implements QueueShell {
  readonly queue: string;
  readonly pool: WorkerPool;
  readonly #options: QueueServiceOptions;
  readonly #dispatcher: Dispatcher;
  #loop: QueueLoop;
  /** Steps that have left, the newest last, and up to twice as many as are shown. */
  readonly #recent: ShownStep[] = [];
  readonly #counters: { -readonly [Name in keyof StepCounters]: number } = {
    claimed: 0,
    succeeded: 0,
    failed: 0,
    deferred: 0,
    givenBack: 0,
    lost: 0,
    timedOut: 0,
    workerCrashes: 0,
    exchanges: 0,
    exchangesFailed: 0,
  };
  #answer: ExchangeAnswer | null = null;
  #answeredAt: number | null = null;
  #error: { readonly atMs: number; readonly code: string; readonly message: string } | null = null;
  #journalProblem: string | null = null;
  #reachable: boolean | null = null;

  constructor(options: QueueServiceOptions) {
    this.#options = options;
    const destination = options.destination();
    this.queue = destination.queue;
    this.pool = new WorkerPool({
      program: options.program,
      service: options.mark,
      environment: () => this.#destination.externalSlotEnvironment,
      reuseMax: () => this.#destination.externalSlotReuseMax,
      idleMs: () => this.#destination.externalIdleMs,
      uuid: () => options.random.uuid(),
      now: options.now,
    });
    this.#loop = this.#makeLoop(options.identity.instance);
    this.#dispatcher = new Dispatcher({
      identity: {
        queue: this.queue,
        machine: options.identity.machine,
        installation: options.installation,
      },
      hub: this.#stepHub(),
      pool: this.pool,
      log: options.log,
      directory: options.directory,
      plugins: options.plugins,
      pluginFiles: options.config().service.plugins,
      debug: () => options.config().service.componentDebugMode,
      environment: () => this.#destination.externalSlotEnvironment,
      onEnd: (step, result, fate) => this.#takeEnd(step, result, fate),
      onUnstoppable: (step, result) => void this.#takeUnstoppable(step, result),
    });
  }

  get loop(): QueueLoop {
    return this.#loop;
  }

  /** Serves the queue again, under another name, after it was taken over. */
  beginAnew(instance: string): void {
    this.#loop.close();
    this.#loop = this.#makeLoop(instance);
    this.#loop.start();
  }

  get #destination(): DestinationConfig {
    return this.#options.destination();
  }

  /** Claims of update steps that wait for the engine. */
  get updates(): readonly Held[] {
    return [...this.loop.state.held.values()].filter(
      ({ step, stage }) => step?.component === UPDATE_COMPONENT && stage === "running",
    );
  }

  // What the loop asks for.

  begin(step: ClaimedStep): void {
    this.#dispatcher.begin(step);
  }

  stop(claim: number, reason: StopReason): void {
    const step = this.loop.step(claim);
    if (step?.component === UPDATE_COMPONENT) queueMicrotask(() => this.loop.end(claim, null));
    else this.#dispatcher.stop(claim, reason);
  }

  extend(claim: number, deadline: number): void {
    if (this.loop.step(claim)?.component !== UPDATE_COMPONENT) this.#dispatcher.extend(claim, deadline);
  }

  dropped(step: ClaimedStep | null, claim: number, reason: StopReason): void {
    if (reason === "drain") return;
    this.#counters.lost += 1;
    const what = step === null ? `claim ${claim}` : `step ${step.id} (${step.name})`;
    this.#options.log.warning(`${this.queue}: ${what} is no longer this service's: ${REASONS[reason]}`);
    if (step !== null) this.#show(step, "lost", REASONS[reason], null, this.#options.now());
  }

  update(step: ClaimedStep): void {
    this.#options.onUpdate(this, step, this.#answer?.revision ?? 0);
  }

  drained(why: "stop" | "update"): void {
    // After what is still being done for this event.
    queueMicrotask(() => this.#options.onDrained(this, why));
  }

  replaced(error: LockstepError): void {
    this.#setError(error);
    this.#options.onReplaced(this, error);
  }

  received(steps: readonly ClaimedStep[]): void {
    this.#counters.claimed += steps.length;
  }

  answered(answer: ExchangeAnswer): void {
    if (this.#reachable !== true)
      this.#options.log.info(`${this.queue}: the hub ${this.#options.hub.url} answers`);
    if (answer.withheld !== null && answer.withheld !== this.#answer?.withheld)
      this.#options.log.info(`${this.queue}: no steps at the moment: ${answer.withheld}`);
    this.#reachable = true;
    this.#answer = answer;
    this.#answeredAt = this.#options.now();
    this.#error = null;
    for (const { claim, verdict } of answer.results)
      if (verdict === "refused")
        this.#options.log.warning(
          `${this.queue}: the result of claim ${claim} came too late and does not count`,
        );
    this.#options.onAnswer();
  }

  failed(error: LockstepError): void {
    this.#counters.exchangesFailed += 1;
    // Once, not with each try.
    if (this.#error?.code !== error.code)
      this.#options.log.warning(
        `${this.queue}: ${error.code}: ${error.message}${error.hint === undefined ? "" : ` ${error.hint}`}`,
      );
    this.#reachable = false;
    this.#setError(error);
  }

  journalFailed(error: LockstepError): void {
    if (this.#journalProblem !== error.message)
      this.#options.log.serious(`${this.queue}: ${error.code}: ${error.message} ${error.hint ?? ""}`);
    this.#journalProblem = error.message;
  }

  journalWorks(): void {
    if (this.#journalProblem !== null) this.#options.log.info(`${this.queue}: results can be kept again`);
    this.#journalProblem = null;
  }

  // What others ask.

  describe(): QueueState {
    const { state } = this.loop;
    const { hub, leaseClock } = this.#options;
    const used = usedSlots(state);
    const held = [...state.held.values()];
    const leases = held.filter(({ stage }) => stage !== "ended").map(({ leaseUntil }) => leaseUntil);
    const results = held.filter(({ stage }) => stage === "ended");
    const oldest = results.flatMap(({ result }) => result?.endedAt ?? []);
    return {
      queue: this.queue,
      hub: {
        url: hub.url,
        reachable: this.#reachable,
        lastAnswerAtMs: this.#answeredAt,
        revision: this.#answer?.revision ?? null,
        lastError: this.#error,
      },
      leaseLeftMs: leases.length === 0 ? null : Math.max(0, Math.min(...leases) - leaseClock()),
      updating: this.#answer?.updating ?? false,
      withheld: this.#journalProblem ?? this.#answer?.withheld ?? null,
      internal: { used: used.internal, total: this.#destination.internalSlots },
      external: { used: used.external, total: this.#destination.externalSlots },
      waiting: held.filter(({ stage }) => stage === "queued").length,
      results: {
        waiting: results.length,
        limit: this.#destination.resultQueueLimit,
        oldestAtMs: oldest.length === 0 ? null : Math.min(...oldest),
      },
      counters: { ...this.#counters },
    };
  }

  describeWorkers(): WorkerState[] {
    return this.pool.workers.flatMap(({ pid, step, uses, startedAt }) =>
      pid === undefined ? [] : [{ pid, queue: this.queue, step, uses, startedAtMs: startedAt }],
    );
  }

  describeSteps(): ShownStep[] {
    const inHand = [...this.loop.state.held.values()].flatMap(({ claim, stage }) => {
      const step = this.loop.step(claim);
      if (step === undefined || stage === "ended") return [];
      const startedAt = this.#dispatcher.startedAt(claim);
      return [this.#shown(step, stage === "running" ? "processing" : "waiting", "", startedAt, null)];
    });
    return [...inHand, ...this.#recent.slice(-STEPS_SHOWN_MAX).reverse()];
  }

  async close(): Promise<void> {
    this.loop.close();
    await this.pool.close();
    await this.#options.journal.close();
  }

  #makeLoop(instance: string): QueueLoop {
    const options = this.#options;
    // Of a former run, and of an update that it ended for.
    return new QueueLoop(options.journal.results, {
      exchange: (request, signal) => {
        this.#counters.exchanges += 1;
        const identity = { ...options.identity, instance, queue: this.queue, statusUrl: options.statusUrl() };
        return exchange(options.hub, identity, request, signal);
      },
      journal: options.journal,
      limits: () => {
        const destination = this.#destination;
        return {
          slots: { internal: destination.internalSlots, external: destination.externalSlots },
          requestQueueLimit: destination.requestQueueLimit,
          resultQueueLimit: destination.resultQueueLimit,
          requestIntervalMs: destination.requestIntervalMs,
          journalDelayMs: JOURNAL_DELAY_MS,
        };
      },
      now: options.leaseClock,
      random: () => options.random.next(),
      shell: this,
    });
  }

  #takeEnd(step: ClaimedStep, result: StepResult | null, fate: StepFate): void {
    const counters = this.#counters;
    if (fate.timedOut) counters.timedOut += 1;
    if (fate.workerCrashed) counters.workerCrashes += 1;
    if (result?.outcome === "success") counters.succeeded += 1;
    else if (result?.outcome === "error") counters.failed += 1;
    else if (result?.outcome === "deferred") counters.deferred += 1;
    else if (result?.outcome === "given-back") counters.givenBack += 1;
    if (result !== null) this.#show(step, result.outcome, fate.message, fate.startedAt, fate.endedAt);
    this.loop.end(step.claim, result);
  }

  /** The next run tells the result, under the claim that this one holds to its end. */
  async #takeUnstoppable(step: ClaimedStep, result: StepResult | null): Promise<void> {
    try {
      if (result !== null) await this.#options.journal.write([result]);
    } catch (error) {
      if (!isLockstepError(error)) throw error;
      this.journalFailed(error);
    }
    this.#options.onUnstoppable(step);
  }

  #show(
    step: ClaimedStep,
    state: ShownStep["state"],
    message: string,
    startedAt: number | null,
    endedAt: number | null,
  ): void {
    this.#recent.push(this.#shown(step, state, message, startedAt, endedAt));
    // Many at once: with each step, all others would be moved by one place.
    if (this.#recent.length > 2 * STEPS_SHOWN_MAX)
      this.#recent.splice(0, this.#recent.length - STEPS_SHOWN_MAX);
  }

  #shown(
    step: ClaimedStep,
    state: ShownStep["state"],
    message: string,
    startedAtMs: number | null,
    endedAtMs: number | null,
  ): ShownStep {
    const { id, claim, attempt, process, name, component, task, execution, priority } = step;
    const { now, leaseClock } = this.#options;
    const arrivedAt = this.loop.arrivedAt(claim);
    const claimedAtMs =
      arrivedAt === undefined ? (startedAtMs ?? now()) : Math.round(now() - (leaseClock() - arrivedAt));
    const { queue } = this;
    const base = {
      id,
      claim,
      attempt,
      queue,
      process,
      name,
      component,
      task,
      execution,
      priority,
      state,
      message,
    };
    return { ...base, claimedAtMs, startedAtMs, endedAtMs };
  }

  #setError({ code, message }: LockstepError): void {
    this.#error = { atMs: this.#options.now(), code, message };
  }

  #stepHub(): StepHub {
    const { connection } = this.#options.hub;
    const read = async (path: string, signal: AbortSignal): Promise<unknown> => {
      const answer = await connection.read({ method: "GET", path, signal, accept: [404] }, PROCESS_BYTES_MAX);
      return answer.status === 404 ? null : JSON.parse(answer.body.toString("utf8"));
    };
    return {
      holdsStep: (id) => this.loop.holdsStep(id),
      process: async (id, signal) => (await read(`/v1/jobs/processes/${id}`, signal)) as ProcessDetail | null,
      summary: async (id, signal) =>
        (await read(`/v1/jobs/processes/${id}/summary`, signal)) as ProcessSummary | null,
    };
  }
}

const REASONS: Record<StopReason, string> = {
  lease: "its lease has run out because the hub was away, or this service stood still",
  lost: "the hub has taken it back, or its worker has died",
  drain: "the service ends",
  replaced: "another service has taken the queue over",
};
