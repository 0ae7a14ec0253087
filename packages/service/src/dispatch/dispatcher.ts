import type { StopReason } from "@lockstep/core";
import { type Clock, systemClock } from "@lockstep/platform";
import { type ClaimedStep, LockstepError, type StepResult } from "@lockstep/protocol/wire";
import { StopOrder } from "../components/stop-order.ts";
import { after, timeLimitError } from "../components/time-limit.ts";
import type { Component, ServiceIdentity, StepHub } from "../components/types.ts";
import type { LogWriter, StepLogFile } from "../log/types.ts";
import type { Worker, WorkerEnd, WorkerPool } from "../worker/worker-pool.ts";

/**
 * Runs the steps of one queue: internal ones here, external ones in workers. It begins and stops what it is told to, and
 * says exactly once of each step that began that its work is over, whatever became of it; or that it is not over, and
 * cannot be stopped.
 */
export interface DispatcherOptions {
  readonly identity: ServiceIdentity;
  readonly hub: StepHub;
  readonly pool: WorkerPool;
  readonly log: LogWriter;
  readonly directory: string;
  readonly plugins: () => Promise<readonly Component[]>;
  readonly pluginFiles: readonly string[];
  /** ComponentDebugMode. */
  readonly debug: () => boolean;
  readonly environment: () => Readonly<Record<string, string>>;
  readonly clock?: Clock;
  /** Null: it was stopped, or its worker died, and nobody knows how far it came. */
  readonly onEnd: (step: ClaimedStep, result: StepResult | null, how: StepFate) => void;
  /**
   * Work that cannot be stopped goes on inside this very process: only its end ends it. Its result may be told from then
   * on, by another run; null: somebody else decides what becomes of it.
   */
  readonly onUnstoppable: (step: ClaimedStep, result: StepResult | null) => void;
}

export interface StepFate {
  readonly startedAt: number;
  readonly endedAt: number;
  readonly message: string;
  readonly workerCrashed: boolean;
  readonly timedOut: boolean;
}

interface Work {
  readonly step: ClaimedStep;
  readonly file: StepLogFile;
  readonly startedAt: number;
  readonly order: StopOrder;
  worker: Worker | null;
  /** By the clock of leases. */
  deadline: number;
  stopped: StopReason | null;
}

/** A task inside the service gets so long to end after it was told to. It must be over before the lease is. */
const ABORT_GRACE_MS = 1000;
/** And so long after its time limit, because one that does not stop takes the whole engine with it. */
const INSIDE_LIMIT_GRACE_MS = 10_000;
/** A worker watches the time limit itself and can say more about it; after that it is ended. */
const LIMIT_GRACE_MS = 4000;
const CLEAN_STOP_MS = 5000;

export class Dispatcher {
  readonly #options: DispatcherOptions;
  readonly #clock: Clock;
  #runner: Promise<typeof import("../components/run-step.ts")> | null = null;
  readonly #works = new Map<number, Work>();
  readonly #early = new Map<number, number>();

  constructor(options: DispatcherOptions) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
  }

  /** When the work on a claim began. */
  startedAt(claim: number): number | null {
    return this.#works.get(claim)?.startedAt ?? null;
  }

  begin(step: ClaimedStep): void {
    const work: Work = {
      step,
      file: this.#options.log.openStep(step),
      startedAt: this.#clock.now(),
      order: new StopOrder(),
      worker: null,
      deadline: this.#early.get(step.claim) ?? 0,
      stopped: null,
    };
    this.#early.delete(step.claim);
    this.#works.set(step.claim, work);
    void (step.execution === "internal" ? this.#runInside(work) : this.#runOutside(work));
  }

  extend(claim: number, deadline: number): void {
    const work = this.#works.get(claim);
    if (work === undefined) {
      this.#early.set(claim, deadline);
      return;
    }
    work.deadline = deadline;
    work.worker?.extend(deadline);
  }

  stop(claim: number, reason: StopReason): void {
    const work = this.#works.get(claim);
    if (work === undefined || work.stopped !== null) return;
    work.stopped = reason;
    const error = stopError(reason);
    work.order.give(error);
    if (work.worker === null) return;
    if (reason !== "drain") {
      work.worker.kill();
      return;
    }
    const { worker } = work;
    worker.stop(error.message);
    setTimeout(() => {
      if (this.#works.get(claim) === work) worker.kill();
    }, CLEAN_STOP_MS).unref();
  }

  async #runInside(work: Work): Promise<void> {
    const { step, file } = work;
    const { identity, hub, directory, environment, plugins, log } = this.#options;
    // Loaded with the first step; asked for anew with each one, it costs as much as the step itself.
    this.#runner ??= import("../components/run-step.ts");
    const { runStep } = await this.#runner;
    const { result, leftBehind } = await runStep(step, {
      service: identity,
      hub,
      stop: work.order,
      log: file,
      directory,
      plugins: await plugins(),
      debug: this.#options.debug(),
      environment: environment(),
      clock: this.#clock,
      abortGraceMs: ABORT_GRACE_MS,
      limitGraceMs: INSIDE_LIMIT_GRACE_MS,
      onHide: (value) => log.hide(value),
    });
    if (leftBehind) {
      // The claim stays ours until the work is over, which is when this process is.
      this.#writeEnd(work, result, result.message ?? "");
      this.#options.onUnstoppable(step, isOurs(work) ? result : null);
    } else this.#finish(work, result, { timedOut: isTimedOut(work, result, this.#clock.now()) });
  }

  async #runOutside(work: Work): Promise<void> {
    const { step, file } = work;
    const { identity, pool, directory, pluginFiles, environment, log } = this.#options;
    let worker: Worker;
    try {
      worker = pool.take();
    } catch (error) {
      this.#finish(work, this.#failed(work, `no worker could be started: ${String(error)}`), {});
      return;
    }
    work.worker = worker;
    const ended = new AbortController();
    if (step.timeLimitMs !== null)
      after(step.timeLimitMs + LIMIT_GRACE_MS, this.#clock, ended.signal, () => worker.kill());
    const end = await worker.run(
      {
        kind: "run",
        step,
        service: identity,
        directory,
        plugins: pluginFiles,
        debug: this.#options.debug(),
        environment: { ...environment(), ...worker.marker },
        deadline: work.deadline,
      },
      {
        log: (level, text) => file[level](text),
        hide: (value) => log.hide(value),
      },
    );
    ended.abort();
    this.#takeWorkerEnd(work, worker, end);
  }

  #takeWorkerEnd(work: Work, worker: Worker, end: WorkerEnd): void {
    const { step } = work;
    const { pool } = this.#options;
    const now = this.#clock.now();
    const over = step.timeLimitMs !== null && now - work.startedAt >= step.timeLimitMs;
    if (end.kind === "ended") {
      // What a step left behind that ran into its limit must not go on either.
      if (end.terminate || over || work.stopped !== null) worker.kill();
      else pool.giveBack(worker);
      this.#finish(work, end.result, { timedOut: isTimedOut(work, end.result, now) });
    } else if (over && work.stopped === null) {
      this.#finish(work, this.#failed(work, timeLimitError(step.timeLimitMs ?? 0).message), {
        timedOut: true,
      });
    } else if (end.kind === "not-started") {
      this.#finish(work, this.#failed(work, `its worker ${end.how}`), {});
    } else {
      const crashed = work.stopped === null;
      if (crashed) work.file.error(`the worker process ${end.how} in the middle of the step`);
      this.#finish(work, null, { workerCrashed: crashed, message: `its worker ${end.how}` });
    }
  }

  #failed(work: Work, message: string): StepResult {
    const { id, claim } = work.step;
    return {
      step: id,
      claim,
      outcome: "error",
      message,
      startedAt: work.startedAt,
      endedAt: this.#clock.now(),
    };
  }

  #finish(
    work: Work,
    result: StepResult | null,
    fate: { readonly timedOut?: boolean; readonly workerCrashed?: boolean; readonly message?: string },
  ): void {
    this.#works.delete(work.step.claim);
    const message = result?.message ?? fate.message ?? "";
    this.#writeEnd(work, result, message);
    this.#options.onEnd(work.step, result, {
      startedAt: work.startedAt,
      endedAt: this.#clock.now(),
      message,
      workerCrashed: fate.workerCrashed ?? false,
      timedOut: fate.timedOut ?? false,
    });
  }

  #writeEnd(work: Work, result: StepResult | null, message: string): void {
    const isLost = result === null || !isOurs(work);
    work.file.end({
      queue: this.#options.identity.queue,
      state: isLost ? "lost" : result.outcome,
      message: isLost && work.stopped !== null ? stopError(work.stopped).message : message,
      output: result?.output,
    });
  }
}

/** Nobody has taken the claim away, and what came of it is ours to say. */
const isOurs = ({ stopped }: Work) => stopped === null || stopped === "drain";

const isTimedOut = ({ step, startedAt }: Work, result: StepResult, now: number) =>
  step.timeLimitMs !== null && result.outcome === "error" && now - startedAt >= step.timeLimitMs;

function stopError(reason: StopReason): LockstepError {
  switch (reason) {
    case "lease":
      return new LockstepError("JOB_LEASE_LOST", "the hub was away for longer than the lease of this step", {
        hint: "The hub gives the step out again, or freezes it where it must not run twice.",
      });
    case "lost":
      return new LockstepError("JOB_LEASE_LOST", "the hub has given the step away, or it was ended by hand");
    case "replaced":
      return new LockstepError("JOB_INSTANCE_REPLACED", "another service has taken the queue over");
    case "drain":
      return new LockstepError("INTERRUPTED", "the service ends");
  }
}
