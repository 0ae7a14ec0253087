import {
  type Held,
  heldClaims,
  nextServiceWake,
  type ServiceAnswer,
  type ServiceEffect,
  type ServiceEvent,
  type ServiceQueue,
  type ServiceQueueOptions,
  type ServiceRequest,
  type StopReason,
  startServiceQueue,
  stepServiceQueue,
  workerDeadline,
} from "@lockstep/core";
import {
  type ClaimedStep,
  type ExchangeAnswer,
  isLockstepError,
  LockstepError,
  type StepResult,
} from "@lockstep/protocol/wire";
import type { ResultJournal } from "../journal/result-journal.ts";

/**
 * One queue at work: the decisions of core/job-service.ts with a clock, a connection and a disk around them. It carries
 * out what was decided and tells what happened, and decides nothing itself.
 */
export interface QueueLoopOptions {
  readonly exchange: (request: ServiceRequest, signal: AbortSignal) => Promise<ExchangeAnswer>;
  readonly journal: ResultJournal;
  /** Looked at anew each time, so that a changed configuration takes effect. */
  readonly limits: () => ServiceQueueOptions;
  /** The clock of leases, in milliseconds. */
  readonly now: () => number;
  readonly random: () => number;
  readonly shell: QueueShell;
}

/** What the loop asks of whoever runs steps. No call may throw or wait. */
export interface QueueShell {
  begin(step: ClaimedStep): void;
  stop(claim: number, reason: StopReason): void;
  /** The work on a claim may go on until then, by the clock of leases. */
  extend(claim: number, deadline: number): void;
  /** The claim has left without a result of its own. */
  dropped(step: ClaimedStep | null, claim: number, reason: StopReason): void;
  update(step: ClaimedStep): void;
  drained(why: "stop" | "update"): void;
  replaced(error: LockstepError): void;
  received(steps: readonly ClaimedStep[]): void;
  answered(answer: ExchangeAnswer): void;
  failed(error: LockstepError): void;
  journalFailed(error: LockstepError): void;
  journalWorks(): void;
}

/** Work in hand is looked at this often: timers stand still while the machine sleeps. */
const WATCH_MS = 1000;

export class QueueLoop {
  readonly #options: QueueLoopOptions;
  readonly #steps = new Map<number, { readonly step: ClaimedStep; readonly arrivedAt: number }>();
  readonly #requests = new Map<number, AbortController>();
  readonly #events: ServiceEvent[] = [];
  readonly #deadlines = new Map<number, number>();
  #state: ServiceQueue;
  #timer: NodeJS.Timeout | undefined;
  /** By the clock of leases. */
  #timerAt = 0;
  /** When the newest event was taken. */
  #now = 0;
  #isTaking = false;
  #closed = false;
  #lastRefusal: LockstepError | null = null;

  /** `left`: results of a former run. */
  constructor(left: readonly StepResult[], options: QueueLoopOptions) {
    this.#options = options;
    this.#state = startServiceQueue(left);
  }

  get state(): ServiceQueue {
    return this.#state;
  }

  /** A step that is in hand. */
  step(claim: number): ClaimedStep | undefined {
    return this.#steps.get(claim)?.step;
  }

  /** When a step that is in hand came, by the clock of leases. */
  arrivedAt(claim: number): number | undefined {
    return this.#steps.get(claim)?.arrivedAt;
  }

  holdsStep(id: number): boolean {
    return [...this.#state.held.values()].some((held) => held.id === id);
  }

  start(): void {
    this.take({ kind: "tick" });
  }

  /** The work on a claim is over. */
  end(claim: number, result: StepResult | null): void {
    const bytes = result === null ? 0 : JSON.stringify(result).length;
    this.take({ kind: "ended", claim, result, bytes });
  }

  take(event: ServiceEvent): void {
    if (this.#closed) return;
    // What an effect brings about is an event of its own, after all effects of this one.
    this.#events.push(event);
    if (this.#isTaking) return;
    this.#isTaking = true;
    try {
      for (let next = this.#events.shift(); next !== undefined; next = this.#events.shift()) this.#step(next);
    } finally {
      this.#isTaking = false;
    }
    if (!this.#closed) this.#wait();
  }

  /** Ends without another word; what is open is let go. */
  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    for (const controller of this.#requests.values()) controller.abort();
  }

  #step(event: ServiceEvent): void {
    this.#now = this.#options.now();
    const { state, effects } = stepServiceQueue(this.#state, event, this.#now, this.#options.limits());
    this.#state = state;
    // Before anything begins: whoever begins must know until when. The end of a step changes no other one's lease.
    if (event.kind === "ended") {
      for (const effect of effects)
        if (effect.kind === "begin") this.#extend(this.#state.held.get(effect.claim));
    } else for (const held of heldClaims(state).in("running").values()) this.#extend(held);
    for (const effect of effects) this.#carryOut(effect);
    // A step that ends stays in hand until its result was heard.
    if (event.kind !== "ended") this.#clean();
  }

  #extend(held: Held | undefined): void {
    if (held === undefined) return;
    const deadline = workerDeadline(this.#state, held);
    if (this.#deadlines.get(held.claim) === deadline) return;
    this.#deadlines.set(held.claim, deadline);
    this.#options.shell.extend(held.claim, deadline);
  }

  #clean(): void {
    for (const claim of this.#steps.keys())
      if (!this.#state.held.has(claim) && !this.#state.stopping.has(claim)) {
        this.#steps.delete(claim);
        this.#deadlines.delete(claim);
      }
  }

  #wait(): void {
    const wake = nextServiceWake(this.#state, this.#options.limits());
    if (wake === null) return;
    const now = this.#now;
    const works = this.#deadlines.size > 0;
    const at = works ? Math.min(wake, now + WATCH_MS) : wake;
    // One that comes earlier than it need looks for the next time by itself; setting it anew takes longer than that.
    if (this.#timer !== undefined && this.#timerAt <= at) return;
    clearTimeout(this.#timer);
    this.#timerAt = at;
    this.#timer = setTimeout(
      () => {
        this.#timer = undefined;
        this.take({ kind: "tick" });
      },
      Math.max(0, Math.ceil(at - now)),
    );
  }

  #carryOut(effect: ServiceEffect): void {
    const { shell } = this.#options;
    switch (effect.kind) {
      case "send":
        void this.#send(effect.request);
        return;
      case "cancel":
        this.#requests.get(effect.sequence)?.abort();
        shell.failed(
          new LockstepError("HUB_UNREACHABLE", "the hub did not answer an exchange in time", {
            hint: "The request is given up and the next one follows; steps that were under way come again.",
          }),
        );
        return;
      case "begin": {
        const step = this.step(effect.claim);
        if (step !== undefined) shell.begin(step);
        return;
      }
      case "update": {
        const step = this.step(effect.claim);
        if (step !== undefined) shell.update(step);
        return;
      }
      case "stop":
        shell.stop(effect.claim, effect.reason);
        return;
      case "dropped":
        shell.dropped(this.step(effect.claim) ?? null, effect.claim, effect.reason);
        return;
      case "journal":
        void this.#write(effect.results);
        return;
      case "forget":
        this.#options.journal.forget(effect.claims);
        return;
      case "drained":
        shell.drained(effect.for);
        return;
      case "replaced":
        shell.replaced(
          this.#lastRefusal ??
            new LockstepError("JOB_INSTANCE_REPLACED", "another service has taken the queue over"),
        );
        return;
    }
  }

  async #write(results: readonly StepResult[]): Promise<void> {
    const claims = results.map(({ claim }) => claim);
    try {
      await this.#options.journal.write(results);
      this.#options.shell.journalWorks();
      this.take({ kind: "journalled", claims });
    } catch (error) {
      if (!isLockstepError(error)) throw error;
      this.#options.shell.journalFailed(error);
      this.take({ kind: "journal-failed", claims });
    }
  }

  async #send(request: ServiceRequest): Promise<void> {
    const { sequence } = request;
    const controller = new AbortController();
    this.#requests.set(sequence, controller);
    try {
      const answer = await this.#options.exchange(request, controller.signal);
      if (this.#closed || controller.signal.aborted) return;
      this.#takeAnswer(sequence, answer);
    } catch (error) {
      if (this.#closed || controller.signal.aborted) return;
      this.#takeFailure(sequence, error);
    } finally {
      this.#requests.delete(sequence);
    }
  }

  #takeAnswer(sequence: number, answer: ExchangeAnswer): void {
    const isOpen = this.#state.open.some((each) => each.sequence === sequence);
    const arrivedAt = this.#options.now();
    if (isOpen) for (const step of answer.steps) this.#steps.set(step.claim, { step, arrivedAt });
    this.take({ kind: "answer", sequence, answer: answer satisfies ServiceAnswer });
    if (!isOpen) return;
    this.#options.shell.answered(answer);
    const taken = answer.steps.filter(({ claim }) => this.#steps.has(claim));
    if (taken.length > 0) this.#options.shell.received(taken);
  }

  #takeFailure(sequence: number, cause: unknown): void {
    const error = isLockstepError(cause)
      ? cause
      : new LockstepError("INTERNAL", `an exchange failed: ${String(cause)}`, { cause });
    const replaced = isLockstepError(error, "JOB_INSTANCE_REPLACED", "JOB_TERM_STALE");
    const stale = isLockstepError(error, "JOB_REQUEST_STALE");
    if (replaced) this.#lastRefusal = error;
    if (!stale && !replaced) this.#options.shell.failed(error);
    this.take({
      kind: "failed",
      sequence,
      reason: replaced ? "replaced" : stale ? "stale" : "away",
      retryAfterMs: error.retryAfterSeconds === undefined ? null : error.retryAfterSeconds * 1000,
      random: this.#options.random(),
    });
  }
}
