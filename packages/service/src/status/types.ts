/**
 * What the service says of itself: one snapshot, made by the engine whenever somebody asks, shown on the status page,
 * in /status.json and in /metrics. All values are plain data. Times are milliseconds since 1970, UTC.
 */
export interface ServiceState {
  readonly phase: ServicePhase;
  /** Why, where the phase alone does not say it: "waits for 3 running steps". */
  readonly detail: string | null;
  readonly startedAtMs: number;
  /** The version of Lockstep. */
  readonly version: string;
  readonly machine: string;
  /** One run of the engine: the `instance` of its exchanges. */
  readonly instance: string;
  readonly installation: string | null;
  /** The software revision of the service's own installation; null: it belongs to none. */
  readonly revision: number | null;
  /** The configuration as it is in force. */
  readonly config: ConfigState;
  readonly queues: readonly QueueState[];
  readonly workers: readonly WorkerState[];
  /** The steps in hand, and the last that ended (newest first, at most STEPS_SHOWN_MAX or so). */
  readonly steps: readonly ShownStep[];
}

/** `failed`: cannot go on without a person, `detail` says why. */
export type ServicePhase = "starting" | "running" | "updating" | "draining" | "stopped" | "failed";

export interface ConfigState {
  readonly file: string;
  readonly loadedAtMs: number;
  /** Keys that were changed in the file and take effect at the next start. */
  readonly awaitingRestart: readonly string[];
  /** Faults of the file as it is now, where it could not be taken over; the former stays in force. */
  readonly refused: readonly string[];
}

export interface QueueState {
  readonly queue: string;
  readonly hub: HubState;
  /** Milliseconds until the lease ends; null: none is held. */
  readonly leaseLeftMs: number | null;
  /** The hub gives update steps only. */
  readonly updating: boolean;
  /** Why the hub gives no steps at the moment; null: it does. */
  readonly withheld: string | null;
  readonly internal: SlotState;
  readonly external: SlotState;
  /** Fetched steps that have not begun. */
  readonly waiting: number;
  readonly results: ResultBufferState;
  readonly counters: StepCounters;
}

export interface HubState {
  readonly url: string;
  /** Null: not asked yet. */
  readonly reachable: boolean | null;
  readonly lastAnswerAtMs: number | null;
  /** The semaphore as last heard. */
  readonly revision: number | null;
  readonly lastError: { readonly atMs: number; readonly code: string; readonly message: string } | null;
}

export interface SlotState {
  readonly used: number;
  readonly total: number;
}

/** Results that the hub has not confirmed yet. */
export interface ResultBufferState {
  readonly waiting: number;
  readonly limit: number;
  readonly oldestAtMs: number | null;
}

/** Since the start of the engine; they only grow. */
export interface StepCounters {
  readonly claimed: number;
  readonly succeeded: number;
  readonly failed: number;
  readonly deferred: number;
  readonly givenBack: number;
  /** Claims that the hub took away: lease run out, or a newer claim. */
  readonly lost: number;
  readonly timedOut: number;
  readonly workerCrashes: number;
  /** Exchanges with the hub, and those that failed. */
  readonly exchanges: number;
  readonly exchangesFailed: number;
}

export interface WorkerState {
  readonly pid: number;
  readonly queue: string;
  /** The step it works on; null: idle. */
  readonly step: number | null;
  /** Steps so far. */
  readonly uses: number;
  readonly startedAtMs: number;
}

export interface ShownStep {
  readonly id: number;
  readonly claim: number;
  readonly attempt: number;
  readonly queue: string;
  readonly process: { readonly id: number; readonly name: string };
  readonly name: string;
  readonly component: string;
  readonly task: string;
  readonly execution: "internal" | "external";
  readonly priority: number;
  readonly state: ShownStepState;
  /** Masked. */
  readonly message: string;
  readonly claimedAtMs: number;
  readonly startedAtMs: number | null;
  readonly endedAtMs: number | null;
}

export type ShownStepState =
  | "waiting"
  | "processing"
  | "success"
  | "error"
  | "deferred"
  | "given-back"
  | "lost";
