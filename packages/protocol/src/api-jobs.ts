import { type Static, Type } from "typebox";
import { closed, Nullable, RevisionNumber, Time } from "./api-values.ts";

/**
 * The messages of the job service.
 *
 * A job server has one queue, named after the (virtual) server that serves it, and asks its hub in one kind of request:
 * the *exchange*. It says that the service lives (which renews its lease), what became of the steps it had, and how many
 * it could take; the answer says what was recorded and brings new steps. One round trip and one transaction for all of
 * it, so a step that ends and the next that begins cost one commit.
 *
 * Each claim of a step gets a number that only grows over the whole hub: its fencing token. A result counts only with
 * the newest one. A service that was away longer than its lease finds its claims refused, whatever it believes.
 */
/** One of these texts. The schema is a plain union; without the type it would be lost in the mapping. */
const oneOf = <const Texts extends readonly string[]>(texts: Texts) =>
  Type.Unsafe<Texts[number]>(Type.Union(texts.map((text) => Type.Literal(text))));

export const QueueName = Type.String({
  minLength: 1,
  maxLength: 255,
  pattern: "^[^\\u0000-\\u001f\\u007f]+$",
});
export const ClaimNumber = Type.Integer({
  minimum: 1,
  maximum: Number.MAX_SAFE_INTEGER,
  description: "fencing token of one claim of a step",
});
export const StepId = Type.Integer({ minimum: 1, maximum: Number.MAX_SAFE_INTEGER });
export const ProcessId = Type.Integer({ minimum: 1, maximum: Number.MAX_SAFE_INTEGER });
export const Priority = Type.Integer({ minimum: 1, maximum: 15, description: "15 first" });
const Name = Type.String({ minLength: 1, maxLength: 200 });
const Millis = Type.Integer({ minimum: 0, description: "milliseconds" });
/** Parameters are JSON values; a hidden one is masked in every answer but that to the service that works on the step. */
export const JobParameters = Type.Record(Type.String({ minLength: 1, maxLength: 200 }), Type.Unknown());

export const JOB_STEP_STATES = [
  "waiting", // for a predecessor
  "deferred", // ready at a later time
  "ready",
  "loaded", // claimed by a service, not begun
  "processing",
  "finished",
  "frozen", // waits for a person
  "missing", // its service no longer knew it, and it may not run twice unasked
  "over-limit", // too many processes of its kind at once; waits for a person
] as const;
export const StepStateSchema = oneOf(JOB_STEP_STATES);
export type JobStepState = (typeof JOB_STEP_STATES)[number];

/** How a finished step ended. `ignored`: with an error that counts as success; `skipped`: its branch was not taken. */
export const JOB_STEP_OUTCOMES = ["success", "error", "ignored", "skipped", "cancelled"] as const;
export const StepOutcomeSchema = oneOf(JOB_STEP_OUTCOMES);
export type JobStepOutcome = (typeof JOB_STEP_OUTCOMES)[number];

export const JOB_PROCESS_STATES = ["running", "finished", "failed", "stuck", "cancelled"] as const;
export const ProcessStateSchema = oneOf(JOB_PROCESS_STATES);
/** `stuck`: nothing can go on until a person decides on a frozen, missing or over-limit step. */
export type JobProcessState = (typeof JOB_PROCESS_STATES)[number];

/** What became of one claim. */
export const StepResultSchema = Type.Object(
  {
    step: StepId,
    claim: ClaimNumber,
    /** `given-back`: not begun, or stopped where that is safe; takes no try. `deferred`: to be asked again later. */
    outcome: oneOf(["success", "error", "given-back", "deferred"]),
    message: Type.Optional(Type.String({ maxLength: 65_536 })),
    /** Out-parameters: later steps of the process see them. */
    output: Type.Optional(JobParameters),
    /** With `deferred`: how long. */
    deferMs: Type.Optional(Millis),
    /** The error cannot be mended by another try. */
    permanent: Type.Optional(Type.Boolean()),
    startedAt: Type.Optional(Time),
    endedAt: Type.Optional(Time),
  },
  closed,
);
export type StepResult = Static<typeof StepResultSchema>;

/** A step as its service gets it. */
export const ClaimedStepSchema = Type.Object(
  {
    id: StepId,
    claim: ClaimNumber,
    /** Counted from 1. */
    attempt: Type.Integer({ minimum: 1 }),
    /** The same for every try and every claim of this step: for the step's own effects. */
    idempotencyKey: Type.String(),
    process: Type.Object({ id: ProcessId, name: Name }, closed),
    name: Name,
    component: Name,
    task: Name,
    execution: Type.Union([Type.Literal("internal"), Type.Literal("external")]),
    parameters: JobParameters,
    /** Names of the parameters that must never be shown or logged. */
    hidden: Type.Array(Type.String()),
    /** Hidden values of the process within the parameters, which may hold more than these; left out: none. */
    secrets: Type.Optional(Type.Array(Type.String())),
    priority: Priority,
    timeLimitMs: Nullable(Millis),
    /** Of steps of Wait: how long ago it was first taken up since it was last decided, by the hub's clock. */
    waitedMs: Type.Optional(Millis),
    /** `freeze`: must not run twice unasked; may begin only when the hub has confirmed the start. */
    onCrash: Type.Union([Type.Literal("rerun"), Type.Literal("freeze")]),
  },
  closed,
);
export type ClaimedStep = Static<typeof ClaimedStepSchema>;

/** POST /v1/jobs/exchange. */
export const ExchangeSchema = Type.Object(
  {
    queue: QueueName,
    /** One run of the service program; a new one takes the queue over from the former, whose claims end. */
    instance: Type.String({ format: "uuid" }),
    /** Grows by one with each request of the instance. */
    sequence: Type.Integer({ minimum: 1 }),
    /** Up to here every request was answered or given up; a request that arrives later than that is refused. */
    answered: Type.Integer({ minimum: 0 }),
    /** Every claim that the service still has, in hand or with a result to deliver. */
    holding: Type.Array(ClaimNumber, { maxItems: 20_000 }),
    /** Claims on which work begins (`onCrash: rerun`: has begun). */
    started: Type.Array(ClaimNumber, { maxItems: 20_000 }),
    results: Type.Array(StepResultSchema, { maxItems: 5_000 }),
    /** How many more steps of each kind it can take. 0 and 0: nothing but word. */
    want: Type.Object(
      {
        internal: Type.Integer({ minimum: 0, maximum: 1_000 }),
        external: Type.Integer({ minimum: 0, maximum: 1_000 }),
      },
      closed,
    ),
    /** How long the hub may wait for a step before it answers; it answers at once where it has to say anything. */
    waitMs: Type.Integer({ minimum: 0, maximum: 30_000 }),
    /** The physical machine behind the queue; decides which queues wait for one another during an update. */
    machine: Type.String({ minLength: 1, maxLength: 255 }),
    /** The software revision of the service's installation; null: it belongs to none. */
    revision: Nullable(RevisionNumber),
    /** The installation's id as in InstallState.config; null: none. */
    installation: Nullable(Type.String({ maxLength: 100 })),
    version: Type.String({ maxLength: 100 }),
    /** Where its status page is. */
    statusUrl: Nullable(Type.String({ maxLength: 500 })),
    /** With a virtual server: the node and the term of its lease. A lower term is refused. */
    node: Type.Optional(Type.String({ maxLength: 255 })),
    term: Type.Optional(Type.Integer({ minimum: 0 })),
  },
  closed,
);
export type Exchange = Static<typeof ExchangeSchema>;

export const ExchangeAnswerSchema = Type.Object(
  {
    sequence: Type.Integer(),
    /** Counted from when the request was SENT; after it the service must stop working on its claims. */
    leaseMs: Millis,
    /** The semaphore. */
    revision: RevisionNumber,
    /** The server is being updated: it gets update steps only. */
    updating: Type.Boolean(),
    /** Why it gets no steps at the moment, for people: paused, switched off, waits for another queue; null: it does. */
    withheld: Nullable(Type.String()),
    results: Type.Array(
      Type.Object(
        {
          claim: ClaimNumber,
          /** `known`: recorded before. `refused`: the claim is no longer the newest; nothing was recorded. */
          verdict: oneOf(["recorded", "known", "refused"]),
        },
        closed,
      ),
    ),
    /** Of `started`: those that may go on. The others are no longer this service's. */
    confirmed: Type.Array(ClaimNumber),
    /** Of `holding`: claims that ended meanwhile; the service stops working on them. */
    lost: Type.Array(ClaimNumber),
    steps: Type.Array(ClaimedStepSchema),
  },
  closed,
);
export type ExchangeAnswer = Static<typeof ExchangeAnswerSchema>;

/** One step of a template. Names are unique within the template. */
export const TemplateStepSchema = Type.Object(
  {
    name: Name,
    component: Name,
    task: Name,
    /** `\\SERVER` or any queue; `${name}` is replaced by a parameter of the process. */
    queue: Type.String({ minLength: 1, maxLength: 255 }),
    /** Texts may hold `${parameter}` (of the process) and `${step.output}` (of an earlier step). */
    parameters: Type.Optional(JobParameters),
    hidden: Type.Optional(Type.Array(Type.String())),
    execution: Type.Optional(Type.Union([Type.Literal("internal"), Type.Literal("external")])),
    /** Steps that follow a success, and an error. A step with several predecessors waits for all of them. */
    onSuccess: Type.Optional(Type.Array(Name)),
    onError: Type.Optional(Type.Array(Name)),
    priority: Type.Optional(Priority),
    /** Tries after the first that failed. */
    retries: Type.Optional(Type.Integer({ minimum: 0, maximum: 1_000 })),
    /** Wait between two tries, in seconds; grows twofold each time up to a day with `backOff`. */
    retryDelaySeconds: Type.Optional(Type.Integer({ minimum: 0, maximum: 86_400 })),
    backOff: Type.Optional(Type.Boolean()),
    /** The first try not before so many seconds after it became ready. */
    delaySeconds: Type.Optional(Type.Integer({ minimum: 0, maximum: 31_536_000 })),
    ignoreErrors: Type.Optional(Type.Boolean()),
    /** After the last try: wait for a person instead of going on with `onError`. */
    freezeOnError: Type.Optional(Type.Boolean()),
    onCrash: Type.Optional(Type.Union([Type.Literal("rerun"), Type.Literal("freeze")])),
    /** Services that may die over this step before it is frozen. */
    crashes: Type.Optional(Type.Integer({ minimum: 1, maximum: 100 })),
    timeLimitSeconds: Type.Optional(Type.Integer({ minimum: 1, maximum: 31_536_000 })),
    /** One step at a time over the whole hub among those with the same text here. */
    exclusiveObject: Type.Optional(Type.String({ minLength: 1, maxLength: 500 })),
  },
  closed,
);
export type TemplateStep = Static<typeof TemplateStepSchema>;

export const TemplateSchema = Type.Object(
  {
    name: Type.String({ pattern: "^[A-Za-z0-9][A-Za-z0-9._/-]{0,199}$" }),
    description: Type.Optional(Type.String({ maxLength: 2_000 })),
    parameters: Type.Optional(
      Type.Record(
        Type.String({ pattern: "^[A-Za-z_][A-Za-z0-9_]{0,99}$" }),
        Type.Object(
          {
            required: Type.Optional(Type.Boolean()),
            default: Type.Optional(Type.Unknown()),
            hidden: Type.Optional(Type.Boolean()),
            description: Type.Optional(Type.String()),
          },
          closed,
        ),
      ),
    ),
    priority: Type.Optional(Priority),
    /** More processes of this template at once than that: the further ones are over limit. */
    limit: Type.Optional(Type.Integer({ minimum: 1 })),
    steps: Type.Array(TemplateStepSchema, { minItems: 1, maxItems: 10_000 }),
  },
  closed,
);
export type JobTemplate = Static<typeof TemplateSchema>;

/** POST /v1/jobs/processes: starts a process from a template by name, or from one that is given here. */
export const StartProcessSchema = Type.Object(
  {
    template: Type.Union([Type.String({ minLength: 1, maxLength: 200 }), TemplateSchema]),
    parameters: Type.Optional(JobParameters),
    priority: Type.Optional(Priority),
    /** Not before; milliseconds since 1970, up to the year 9999. */
    startAt: Type.Optional(Type.Integer({ minimum: 0, maximum: 253_402_300_799_999 })),
    /** The same key twice starts one process; the second answer is the first's. */
    idempotencyKey: Type.Optional(Type.String({ minLength: 1, maxLength: 200 })),
  },
  closed,
);
export type StartProcess = Static<typeof StartProcessSchema>;

export const ProcessSummarySchema = Type.Object(
  {
    id: ProcessId,
    name: Name,
    /** Null: it was started from a template that is not stored. */
    template: Nullable(Type.String()),
    state: ProcessStateSchema,
    priority: Priority,
    createdAt: Time,
    finishedAt: Nullable(Time),
    /** Steps by state; states with none are left out. */
    steps: Type.Record(Type.String(), Type.Integer()),
    startedBy: Type.String(),
  },
  closed,
);
export type ProcessSummary = Static<typeof ProcessSummarySchema>;

export const StepRunSchema = Type.Object(
  {
    claim: ClaimNumber,
    attempt: Type.Integer(),
    queue: QueueName,
    machine: Type.String(),
    claimedAt: Time,
    startedAt: Nullable(Time),
    endedAt: Nullable(Time),
    /** Null: still under way. `lost`: its service died or lost it. */
    outcome: Nullable(oneOf(["success", "error", "given-back", "deferred", "lost"])),
    message: Type.String(),
  },
  closed,
);
export type StepRun = Static<typeof StepRunSchema>;

export const StepDetailSchema = Type.Object(
  {
    id: StepId,
    process: ProcessId,
    name: Name,
    component: Name,
    task: Name,
    queue: QueueName,
    execution: Type.Union([Type.Literal("internal"), Type.Literal("external")]),
    state: StepStateSchema,
    outcome: Nullable(StepOutcomeSchema),
    priority: Priority,
    /** Hidden ones read `<HIDDEN>`. */
    parameters: JobParameters,
    output: JobParameters,
    onSuccess: Type.Array(StepId),
    onError: Type.Array(StepId),
    readyAt: Nullable(Time),
    /** Tries that ended with an error. */
    errors: Type.Integer(),
    crashes: Type.Integer(),
    message: Type.String(),
    /** The newest hundred, oldest first. */
    runs: Type.Array(StepRunSchema),
  },
  closed,
);
export type StepDetail = Static<typeof StepDetailSchema>;

/** GET /v1/jobs/processes/{id}. */
export const ProcessDetailSchema = Type.Object(
  { process: ProcessSummarySchema, parameters: JobParameters, steps: Type.Array(StepDetailSchema) },
  closed,
);
export type ProcessDetail = Static<typeof ProcessDetailSchema>;

/** POST /v1/jobs/reactivate: frozen, missing and over-limit steps go on. At least one condition is needed. */
export const ReactivateSchema = Type.Object(
  {
    /** `step`: again. `chain`: its whole process again, from the first step. `success`, `error`: as if it had ended so. */
    as: oneOf(["step", "chain", "success", "error"]),
    where: Type.Object(
      {
        steps: Type.Optional(Type.Array(StepId, { minItems: 1, maxItems: 10_000 })),
        process: Type.Optional(ProcessId),
        template: Type.Optional(Type.String()),
        queue: Type.Optional(QueueName),
        component: Type.Optional(Name),
        task: Type.Optional(Name),
        state: Type.Optional(oneOf(["frozen", "missing", "over-limit"])),
        /** A part of the message. */
        message: Type.Optional(Type.String({ minLength: 1 })),
      },
      { ...closed, minProperties: 1 },
    ),
    /** Only say which. */
    dryRun: Type.Optional(Type.Boolean()),
  },
  closed,
);
export type Reactivate = Static<typeof ReactivateSchema>;

/** GET /v1/jobs/servers: what administrators ask first. */
export const JobServerSchema = Type.Object(
  {
    queue: QueueName,
    machine: Type.String(),
    /** With a virtual server: the node that it is on, and the term of its lease. */
    node: Nullable(Type.String()),
    term: Nullable(Type.Integer()),
    version: Type.String(),
    revision: Nullable(RevisionNumber),
    /** `silent`: its lease has run out. `never`: known by name alone. */
    state: oneOf(["serving", "updating", "paused", "disabled", "silent", "never"]),
    withheld: Nullable(Type.String()),
    lastFetchAt: Nullable(Time),
    /** Why it was paused, by whoever did. */
    pauseReason: Nullable(Type.String()),
    noAutoUpdate: Type.Boolean(),
    updateServer: Type.Boolean(),
    disabled: Type.Boolean(),
    statusUrl: Nullable(Type.String()),
    steps: Type.Record(Type.String(), Type.Integer()),
  },
  closed,
);
export type JobServer = Static<typeof JobServerSchema>;
/** PUT /v1/jobs/servers/{queue}: flags of one server; what is left out stays. Makes the entry where there is none. */
export const JobServerChangeSchema = Type.Object(
  {
    paused: Type.Optional(Nullable(Type.String({ minLength: 1, maxLength: 500 }))),
    disabled: Type.Optional(Type.Boolean()),
    noAutoUpdate: Type.Optional(Type.Boolean()),
    updateServer: Type.Optional(Type.Boolean()),
  },
  closed,
);
export type JobServerChange = Static<typeof JobServerChangeSchema>;

/** PUT /v1/jobs/schedules/{name}. */
export const ScheduleSchema = Type.Object(
  {
    name: Type.String({ pattern: "^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$" }),
    template: Type.String({ minLength: 1, maxLength: 200 }),
    parameters: Type.Optional(JobParameters),
    /** Five or six fields. */
    cron: Type.String({ minLength: 1, maxLength: 200 }),
    /** An IANA name, such as Europe/Berlin. */
    timeZone: Type.Optional(Type.String({ maxLength: 100 })),
    enabled: Type.Optional(Type.Boolean()),
    /** Start one process for times that were missed while no hub ran; otherwise they are skipped. */
    catchUp: Type.Optional(Type.Boolean()),
    /** Start none while the last one still runs. */
    skipWhileRunning: Type.Optional(Type.Boolean()),
  },
  closed,
);
export type JobSchedule = Static<typeof ScheduleSchema>;

/** PUT /v1/jobs/components/{component}: how many of its steps may run at once over the whole hub. */
export const ComponentLimitSchema = Type.Object(
  {
    component: Name,
    /** 0: no limit. n: so many. -1: one at a time, on one job server. */
    maxInstance: Type.Integer({ minimum: -1, maximum: 1_000_000 }),
    /** By task: -1: one at a time and no other task of the component beside it; 0: the component's limit counts. */
    tasks: Type.Optional(Type.Record(Name, Type.Integer({ minimum: -1, maximum: 1_000_000 }))),
  },
  closed,
);
export type ComponentLimit = Static<typeof ComponentLimitSchema>;
