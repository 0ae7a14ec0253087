/**
 * The words of the job service's own decisions (job-service.ts). What the shell does with bytes, processes and clocks is
 * left out: a step is a claim with the few properties that decide its fate.
 */

/** A step as the hub gave it. The wire's claimed step fits. */
export interface ServiceStep {
  readonly id: number;
  readonly claim: number;
  readonly component: string;
  readonly execution: "internal" | "external";
  readonly priority: number;
  /** `freeze`: must not run twice unasked, so it begins only when the hub has confirmed the start. */
  readonly onCrash: "rerun" | "freeze";
}

/** What became of a claim. The wire's step result fits. */
export interface ServiceResult {
  readonly step: number;
  readonly claim: number;
  readonly outcome: "success" | "error" | "given-back" | "deferred";
  readonly message?: string;
  readonly output?: Record<string, unknown>;
  readonly deferMs?: number;
  readonly permanent?: boolean;
  readonly startedAt?: number;
  readonly endedAt?: number;
}

/** What the hub says. The wire's answer fits. */
export interface ServiceAnswer {
  readonly leaseMs: number;
  readonly updating: boolean;
  readonly results: readonly {
    readonly claim: number;
    readonly verdict: "recorded" | "known" | "refused";
  }[];
  readonly confirmed: readonly number[];
  readonly lost: readonly number[];
  readonly steps: readonly ServiceStep[];
}

/** `queued`: fetched; `confirming`: has its slot and waits for the hub's word; `ended`: has a result to deliver. */
export type HeldStage = "queued" | "confirming" | "running" | "ended";

/** A claim that is ours as far as we know. */
export interface Held {
  readonly claim: number;
  readonly id: number;
  /** Null: of a former run, known by its result alone. */
  readonly step: ServiceStep | null;
  readonly stage: HeldStage;
  /** By the own monotonic clock. After it the hub may have given the step to somebody else. */
  readonly leaseUntil: number;
  /** The open request that says that work begins; `known`: the hub has confirmed it; null: not said yet. */
  readonly startSaid: number | "known" | null;
  readonly result: ServiceResult | null;
  readonly resultBytes: number;
  /** The open request that carries the result; null: none. */
  readonly resultIn: number | null;
  readonly endedAt: number;
  /** When it arrived; of a former run: 0. */
  readonly arrivedAt: number;
  /** When the work on it began; 0: not yet. */
  readonly begunAt: number;
  readonly journal: "none" | "asked" | "safe";
  /** Was told to stop so that it can be given back. */
  readonly givingBack: boolean;
}

/** A request without an answer so far. */
export interface OpenRequest {
  readonly sequence: number;
  readonly sentAt: number;
  readonly giveUpAt: number;
  /** 0: has to say something and is answered at once. */
  readonly waitMs: number;
  readonly holding: readonly number[];
  readonly started: readonly number[];
  readonly results: readonly number[];
  readonly want: SlotCount;
}

export interface SlotCount {
  readonly internal: number;
  readonly external: number;
}

export interface Drain {
  /** `stop`: everything ends by the limit. `update`: steps that may not run twice are waited for. */
  readonly for: "stop" | "update";
  readonly limitAt: number;
  /** The effect `drained` was given. */
  readonly done: boolean;
}

export interface ServiceQueue {
  readonly sequence: number;
  /** Whether this run of the service was ever answered. */
  readonly heard: boolean;
  /** As the hub said last; before that, a guess that is only used for time limits of requests. */
  readonly leaseMs: number;
  readonly open: readonly OpenRequest[];
  readonly held: ReadonlyMap<number, Held>;
  /** Work that was told to stop and whose claim is gone; its slot is in use until it has really ended. */
  readonly stopping: ReadonlyMap<number, "internal" | "external">;
  readonly drain: Drain | null;
  /** The hub is away; the next try is not before `retryAt`, or, with null, under way. */
  readonly away: { readonly failures: number; readonly retryAt: number | null } | null;
  /**
   * Requests that were to wait and came back at once with nothing, one after the other, and until when the next one
   * rests: a proxy, or a hub that does not wait, must not be asked without a pause.
   */
  readonly hollow: { readonly count: number; readonly restUntil: number } | null;
  /** How many steps of each kind are fetched ahead of the free slots, so that short ones need no round trip each. */
  readonly ahead: SlotCount;
  /** Results could not be written down; the next try is at this time. Until then no step begins. */
  readonly journalRetryAt: number | null;
  readonly updating: boolean;
  /** Another service has taken the queue over. */
  readonly replaced: boolean;
  /** Something changed that the hub must learn at once. */
  readonly speakUp: boolean;
}

export interface ServiceQueueOptions {
  readonly slots: SlotCount;
  /** Fetched steps that have not begun. */
  readonly requestQueueLimit: number;
  /** Results that wait for the hub; beyond it no step begins. */
  readonly resultQueueLimit: number;
  /** The longest pause between two requests. */
  readonly requestIntervalMs: number;
  /** A result that the hub has not taken by then is written down. */
  readonly journalDelayMs: number;
}

export type ServiceEvent =
  | { readonly kind: "tick" }
  | { readonly kind: "answer"; readonly sequence: number; readonly answer: ServiceAnswer }
  | {
      readonly kind: "failed";
      readonly sequence: number;
      /**
       * `away`: no usable answer. `stale`: the hub has heard later ones. `replaced`: another run or another service has
       * the queue.
       */
      readonly reason: "away" | "stale" | "replaced";
      readonly retryAfterMs: number | null;
      /** Drawn evenly from 0 (included) to 1 (excluded). */
      readonly random: number;
    }
  /** The work on a claim is over. Null: it has nothing to say, because it was stopped. */
  | {
      readonly kind: "ended";
      readonly claim: number;
      readonly result: ServiceResult | null;
      /** About how long the result is on the wire. */
      readonly bytes: number;
    }
  | { readonly kind: "journalled"; readonly claims: readonly number[] }
  | { readonly kind: "journal-failed"; readonly claims: readonly number[] }
  | { readonly kind: "drain"; readonly for: "stop" | "update"; readonly limitMs: number }
  | { readonly kind: "resume" };

export type StopReason = "lease" | "lost" | "drain" | "replaced";

/** To be carried out in this order; what stops work comes first. */
export type ServiceEffect =
  | { readonly kind: "stop"; readonly claim: number; readonly reason: StopReason }
  /** The answer is of no use any more. */
  | { readonly kind: "cancel"; readonly sequence: number }
  /** Write these down; none: try whether it can be done again. */
  | { readonly kind: "journal"; readonly results: readonly ServiceResult[] }
  /** The hub has these. */
  | { readonly kind: "forget"; readonly claims: readonly number[] }
  /** The claim has left this service without a result of its own. */
  | { readonly kind: "dropped"; readonly claim: number; readonly reason: StopReason }
  | { readonly kind: "begin"; readonly claim: number }
  /** An update step begins: the shell says `ended` where there is nothing to update, else it lets every queue drain. */
  | { readonly kind: "update"; readonly claim: number }
  | { readonly kind: "send"; readonly request: ServiceRequest }
  | { readonly kind: "drained"; readonly for: "stop" | "update" }
  | { readonly kind: "replaced" };

/** What the exchange says; the shell adds who says it. */
export interface ServiceRequest {
  readonly sequence: number;
  readonly answered: number;
  readonly holding: readonly number[];
  readonly started: readonly number[];
  readonly results: readonly ServiceResult[];
  readonly want: SlotCount;
  readonly waitMs: number;
  /** By the own monotonic clock: an answer that comes later counts as none. */
  readonly giveUpAt: number;
}

export interface ServiceTransition {
  readonly state: ServiceQueue;
  readonly effects: readonly ServiceEffect[];
}
