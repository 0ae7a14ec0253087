import { type Static, Type } from "typebox";
import {
  ComponentLimitSchema,
  JobServerSchema,
  ProcessId,
  ProcessSummarySchema,
  QueueName,
  ReactivateSchema,
  ScheduleSchema,
  StepId,
  StepStateSchema,
  TemplateSchema,
} from "./api-jobs.ts";
import { closed, Nullable, RevisionNumber, Time } from "./api-values.ts";

/**
 * What people ask of the job service: lists, and what became of their orders. The messages of a job server are in
 * api-jobs.ts. Hidden values read `<HIDDEN>` in all of these.
 */

/** GET and PUT /v1/jobs/templates/{name}. A hidden value that is put as `<HIDDEN>` stays what it was. */
export const StoredTemplateSchema = Type.Object(
  { template: TemplateSchema, changedAt: Time, changedBy: Type.String() },
  closed,
);
export type StoredTemplate = Static<typeof StoredTemplateSchema>;

/** GET /v1/jobs/templates. */
export const TemplateListSchema = Type.Object(
  {
    templates: Type.Array(
      Type.Object(
        {
          name: Type.String(),
          description: Type.String(),
          /** Names of its parameters; those that must be given end in `*`. */
          parameters: Type.Array(Type.String()),
          steps: Type.Integer(),
          limit: Nullable(Type.Integer()),
          /** Processes of it that have not ended. */
          running: Type.Integer(),
          changedAt: Time,
        },
        closed,
      ),
    ),
  },
  closed,
);
export type TemplateList = Static<typeof TemplateListSchema>;

/** POST /v1/jobs/processes. */
export const StartedProcessSchema = Type.Object(
  {
    process: ProcessSummarySchema,
    /** False: the idempotency key was used before, and this is the process that it started. */
    created: Type.Boolean(),
    /** As many processes of this template as are allowed run already; this one waits for a person. */
    overLimit: Type.Boolean(),
  },
  closed,
);
export type StartedProcess = Static<typeof StartedProcessSchema>;

/** GET /v1/jobs/processes: the newest first. */
export const ProcessListSchema = Type.Object(
  {
    processes: Type.Array(ProcessSummarySchema),
    /** `before` of the next page; null: this was the last one. */
    next: Nullable(ProcessId),
  },
  closed,
);
export type ProcessList = Static<typeof ProcessListSchema>;

/** What POST /v1/jobs/reactivate did, or would do. */
export const ReactivatedSchema = Type.Object(
  {
    dryRun: Type.Boolean(),
    as: ReactivateSchema.properties.as,
    steps: Type.Array(
      Type.Object(
        {
          id: StepId,
          process: ProcessId,
          processName: Type.String(),
          name: Type.String(),
          queue: QueueName,
          /** Before. */
          state: StepStateSchema,
          message: Type.String(),
          /** Why it stays as it is; null: it was (or would be) reactivated. */
          refused: Nullable(Type.String()),
        },
        closed,
      ),
    ),
    /** There are more such steps than are taken at once; ask again. */
    more: Type.Boolean(),
  },
  closed,
);
export type Reactivated = Static<typeof ReactivatedSchema>;

/** PUT /v1/jobs/stopped: the emergency stop of all job services. */
export const JobStopSchema = Type.Object(
  { stopped: Type.Boolean(), reason: Nullable(Type.String({ maxLength: 500 })) },
  closed,
);
export type JobStop = Static<typeof JobStopSchema>;

/** GET /v1/jobs/servers. */
export const JobServerListSchema = Type.Object(
  {
    /** The semaphore, to hold the servers' revisions against. */
    revision: RevisionNumber,
    stopped: Type.Boolean(),
    stoppedReason: Nullable(Type.String()),
    servers: Type.Array(JobServerSchema),
  },
  closed,
);
export type JobServerList = Static<typeof JobServerListSchema>;

/** GET /v1/jobs/schedules. */
export const ScheduleStateSchema = Type.Object(
  {
    schedule: ScheduleSchema,
    /** Null: switched off. */
    nextAt: Nullable(Time),
    /** The due time that was dealt with last. */
    lastAt: Nullable(Time),
    lastProcess: Nullable(ProcessId),
    /** Why the last due time, or one before it, started no process. */
    lastProblem: Nullable(Type.String()),
  },
  closed,
);
export type ScheduleState = Static<typeof ScheduleStateSchema>;
export const ScheduleListSchema = Type.Object({ schedules: Type.Array(ScheduleStateSchema) }, closed);
export type ScheduleList = Static<typeof ScheduleListSchema>;

/** GET /v1/jobs/components: those that have a limit. */
export const ComponentLimitListSchema = Type.Object({ limits: Type.Array(ComponentLimitSchema) }, closed);
export type ComponentLimitList = Static<typeof ComponentLimitListSchema>;

/** POST /v1/jobs/servers/{queue}/check-version. */
export const CheckVersionSchema = Type.Object(
  {
    /** The process with the update step; null: there is nothing to update. */
    process: Nullable(ProcessId),
    /** Why there is none, or that there was one already. */
    detail: Type.String(),
  },
  closed,
);
export type CheckVersion = Static<typeof CheckVersionSchema>;
