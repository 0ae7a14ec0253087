import { type Static, Type } from "typebox";
import {
  Bytes,
  closed,
  Nullable,
  PathSchema,
  RevisionNumber,
  Sha256Schema,
  TargetSchema,
  Time,
} from "./api-values.ts";

export * from "./api-jobs.ts";
export * from "./api-jobs-admin.ts";
export * from "./api-load.ts";
export { LoadNumber, RevisionNumber, Sha256Schema } from "./api-values.ts";

/**
 * The hub's HTTP interface as schemas: the hub validates with them and writes its OpenAPI document from them, every
 * client takes its types from them. Closed objects: an unknown member is refused, not ignored.
 */

/** GET /v1/revision: the semaphore. The ETag is `"<revision>"`; `?after=N&wait=S` answers as soon as it differs from N. */
export const SemaphoreSchema = Type.Object(
  {
    revision: RevisionNumber,
    /** The parameter Common/AutoUpdate: false stops every automatic update. */
    autoUpdate: Type.Boolean(),
    /** How long an installation should wait until it asks again, in seconds. */
    pollSeconds: Type.Integer({ minimum: 1 }),
    /** Limits for what installations fetch (the parameters Common/Transfer/...), where some are set. */
    transfer: Type.Optional(
      Type.Object(
        {
          bytesPerSecond: Type.Optional(Type.Integer({ minimum: 0 })),
          window: Type.Optional(Type.String()),
          windowFromBytes: Type.Optional(Type.Integer({ minimum: 0 })),
          atOnce: Type.Optional(Type.Integer({ minimum: 1 })),
        },
        closed,
      ),
    ),
  },
  closed,
);
export type Semaphore = Static<typeof SemaphoreSchema>;

export const ManifestRefSchema = Type.Object(
  {
    target: TargetSchema,
    sha256: Sha256Schema,
    size: Bytes,
    files: Type.Integer({ minimum: 0 }),
    bytes: Bytes,
  },
  closed,
);

/** GET /v1/revisions/{number}: one software revision with its manifests. */
export const RevisionSchema = Type.Object(
  {
    number: RevisionNumber,
    digest: Sha256Schema,
    createdAt: Time,
    manifests: Type.Array(ManifestRefSchema),
    updateArchive: Nullable(Type.Object({ sha256: Sha256Schema, size: Bytes }, closed)),
    /** Packages that each package needs, all the way down: what `--package` brings along. */
    packageClosure: Type.Record(Type.String(), Type.Array(Type.String())),
    /** Roles that can be chosen by hand; all others are set by programs. */
    selectableRoles: Type.Array(Type.String()),
    selectablePackages: Type.Array(Type.String()),
  },
  closed,
);
export type RevisionDocument = Static<typeof RevisionSchema>;

/** GET /v1/revisions: newest first. */
export const RevisionListSchema = Type.Object(
  {
    current: RevisionNumber,
    revisions: Type.Array(
      Type.Object(
        {
          number: RevisionNumber,
          createdAt: Time,
          files: Type.Integer(),
          bytes: Bytes,
          added: Type.Integer(),
          changed: Type.Integer(),
          removed: Type.Integer(),
          /** The loads that led to it, oldest first: "NXT 16.4.6 (version)". */
          releases: Type.Array(Type.String()),
        },
        closed,
      ),
    ),
  },
  closed,
);
export type RevisionList = Static<typeof RevisionListSchema>;

const DiffFile = Type.Object(
  {
    path: PathSchema,
    kind: Type.Union([Type.Literal("added"), Type.Literal("changed"), Type.Literal("removed")]),
    from: Nullable(
      Type.Object(
        { size: Bytes, sha256: Sha256Schema, mode: Type.Integer(), targets: Type.Array(TargetSchema) },
        closed,
      ),
    ),
    to: Nullable(
      Type.Object(
        { size: Bytes, sha256: Sha256Schema, mode: Type.Integer(), targets: Type.Array(TargetSchema) },
        closed,
      ),
    ),
  },
  closed,
);

/** GET /v1/revisions/diff?from=41&to=42 */
export const RevisionDiffSchema = Type.Object(
  {
    from: RevisionNumber,
    to: RevisionNumber,
    files: Type.Array(DiffFile),
  },
  closed,
);
export type RevisionDiff = Static<typeof RevisionDiffSchema>;

/** POST /v1/revisions/{number}/revert: makes the set of a former revision the current one again, as a new revision. */
export const RevertResultSchema = Type.Object(
  {
    /** Ask GET /v1/loads/{id}/revision for the revision that carries it, as for a load. */
    load: Type.Integer(),
    /** The revision whose set is put back. */
    to: RevisionNumber,
    added: Type.Integer(),
    changed: Type.Integer(),
    removed: Type.Integer(),
    revisionBefore: RevisionNumber,
    /** False where the repository holds that set already. */
    changes: Type.Boolean(),
  },
  closed,
);
export type RevertResult = Static<typeof RevertResultSchema>;

/** GET /v1/files: file revisions as the repository holds them. */
export const FileRowSchema = Type.Object(
  {
    path: PathSchema,
    module: Type.String(),
    size: Nullable(Bytes),
    sha256: Nullable(Sha256Schema),
    mode: Type.Integer(),
    version: Nullable(Type.String()),
    backup: Type.Boolean(),
    targets: Type.Array(TargetSchema),
    loadedAt: Nullable(Time),
  },
  closed,
);
export type FileRow = Static<typeof FileRowSchema>;
export const FileListSchema = Type.Object(
  {
    files: Type.Array(FileRowSchema),
    /** Pass as `after` to go on; null at the end. */
    next: Nullable(Type.String()),
  },
  closed,
);
export type FileList = Static<typeof FileListSchema>;

/** POST /v1/files/assign: changes the deploy targets of files that match a glob. */
export const AssignRequestSchema = Type.Object(
  {
    match: Type.String({ minLength: 1, maxLength: 4096 }),
    add: Type.Array(TargetSchema),
    remove: Type.Array(TargetSchema),
    /** Replace all targets by `add`. */
    only: Type.Boolean(),
  },
  closed,
);
export type AssignRequest = Static<typeof AssignRequestSchema>;

/** POST /v1/files/remove */
export const RemoveRequestSchema = Type.Object(
  { match: Type.String({ minLength: 1, maxLength: 4096 }) },
  closed,
);
export type RemoveRequest = Static<typeof RemoveRequestSchema>;

/** Answer of assign and remove. */
export const ChangedPathsSchema = Type.Object({ paths: Type.Array(PathSchema) }, closed);
export type ChangedPaths = Static<typeof ChangedPathsSchema>;

/** GET /v1/roles and /v1/packages in one: the deploy targets of the repository. */
export const TargetsSchema = Type.Object(
  {
    roles: Type.Array(
      Type.Object(
        {
          path: Type.String(),
          description: Type.String(),
          selectable: Type.Boolean(),
          files: Type.Integer(),
          packages: Type.Array(Type.String()),
        },
        closed,
      ),
    ),
    packages: Type.Array(
      Type.Object(
        {
          name: Type.String(),
          description: Type.String(),
          selectable: Type.Boolean(),
          requires: Type.Array(Type.String()),
          files: Type.Integer(),
        },
        closed,
      ),
    ),
  },
  closed,
);
export type Targets = Static<typeof TargetsSchema>;

/** GET /v1/dbqueue: what waits, what runs, what was put off, and why. */
export const DbQueueSchema = Type.Object(
  {
    stopped: Type.Boolean(),
    stoppedReason: Nullable(Type.String()),
    tasks: Type.Array(
      Type.Object(
        {
          task: Type.String(),
          sortOrder: Type.Integer(),
          waiting: Type.Integer(),
          processing: Type.Integer(),
          deferred: Type.Integer(),
          oldestAt: Nullable(Time),
          /** Why nothing of it runs just now: a predecessor, the emergency stop, a deferral. */
          blockedBy: Nullable(Type.String()),
          lastError: Nullable(Type.String()),
        },
        closed,
      ),
    ),
    journal: Type.Array(
      Type.Object({ at: Time, task: Type.String(), event: Type.String(), detail: Type.String() }, closed),
    ),
  },
  closed,
);
export type DbQueue = Static<typeof DbQueueSchema>;

/** PUT /v1/dbqueue/stopped */
export const DbQueueStopSchema = Type.Object(
  { stopped: Type.Boolean(), reason: Nullable(Type.String({ maxLength: 500 })) },
  closed,
);
export type DbQueueStop = Static<typeof DbQueueStopSchema>;

/** GET and PUT /v1/settings: the configuration parameters (domain: Common | AutoUpdate ...). */
export const SettingsSchema = Type.Record(
  Type.String(),
  Type.Union([Type.String(), Type.Boolean(), Type.Number()]),
);
export type Settings = Static<typeof SettingsSchema>;

/** POST /v1/bundle: contents by hash, answered as one content stream, in the order asked for. */
export const BundleRequestSchema = Type.Object(
  { sha256: Type.Array(Sha256Schema, { minItems: 1, maxItems: 100_000 }) },
  closed,
);
export type BundleRequest = Static<typeof BundleRequestSchema>;

/** PUT /v1/installations/{id}: what an installation last saw of itself (observed). */
export const InstallationReportSchema = Type.Object(
  {
    host: Type.String({ maxLength: 255 }),
    directory: Type.String({ maxLength: 4096 }),
    roles: Type.Array(Type.String({ maxLength: 1024 })),
    packages: Type.Array(Type.String({ maxLength: 200 })),
    revision: Nullable(RevisionNumber),
    outcome: Type.Union([
      Type.Literal("in-step"),
      Type.Literal("updated"),
      Type.Literal("failed"),
      Type.Literal("rolled-back"),
      Type.Literal("postponed"),
    ]),
    /** Error code and message of the last run, or null. */
    problem: Nullable(Type.String({ maxLength: 4000 })),
    autoUpdate: Type.Boolean(),
    updaterVersion: Type.String({ maxLength: 100 }),
    /** The head of the log of releases that it was shown. */
    releaseLog: Type.Optional(
      Nullable(Type.Object({ epoch: RevisionNumber, size: RevisionNumber, head: Sha256Schema }, closed)),
    ),
    /** The first record of its update.log that does not follow the one before it; nothing where each does. */
    logAltered: Type.Optional(
      Type.Object(
        {
          file: Type.String({ pattern: "^update\\.log(\\.[0-9])?$" }),
          line: Type.Integer({ minimum: 1 }),
          /** The link that the record has to have, and the one that it has. */
          expected: Nullable(Sha256Schema),
          found: Nullable(Sha256Schema),
        },
        closed,
      ),
    ),
  },
  closed,
);
export type InstallationReport = Static<typeof InstallationReportSchema>;

export const InstallationListSchema = Type.Object(
  {
    installations: Type.Array(
      Type.Intersect([
        Type.Object({ id: Type.String(), seenAt: Time, changedAt: Time }),
        Type.Object(InstallationReportSchema.properties),
      ]),
    ),
  },
  closed,
);
export type InstallationList = Static<typeof InstallationListSchema>;

/** GET /v1/status: the hub itself. */
export const HubStatusSchema = Type.Object(
  {
    version: Type.String(),
    hub: Type.String({ description: "id of this hub process" }),
    schema: Type.Integer(),
    database: Type.String({ description: "embedded or external, with the server's version" }),
    startedAt: Time,
    revision: RevisionNumber,
    files: Type.Integer(),
    contents: Type.Integer(),
    storedBytes: Bytes,
    development: Type.Boolean(),
    /** Whether `lockstep setup` still has something to do, and what. */
    setup: Type.Array(Type.String()),
    /** The certificate with which it serves, of several in its file the one that ends first; null: plain HTTP. */
    certificate: Type.Optional(
      Type.Union([
        Type.Object(
          {
            subject: Type.String(),
            notBefore: Time,
            expiresAt: Time,
            secondsLeft: Type.Integer({ description: "by the clock of the hub; negative: so long expired" }),
          },
          closed,
        ),
        Type.Null(),
      ]),
    ),
    /** Queues that one running service took from another, without a cluster's word, in the last two hours. */
    rivals: Type.Optional(
      Type.Array(
        Type.Object(
          { queue: Type.String(), machine: Type.String(), former: Type.String(), at: Time },
          closed,
        ),
      ),
    ),
  },
  closed,
);
export type HubStatus = Static<typeof HubStatusSchema>;

/** The body of every answer that is an error; `code` is one of docs/reference/errors.md. */
export const ErrorSchema = Type.Object(
  {
    error: Type.Object(
      {
        code: Type.String(),
        message: Type.String(),
        expected: Type.Optional(Type.Union([Type.String(), Type.Number()])),
        found: Type.Optional(Type.Union([Type.String(), Type.Number()])),
        hint: Type.Optional(Type.String()),
        faults: Type.Optional(
          Type.Array(Type.Object({ where: Type.String(), problem: Type.String() }, closed)),
        ),
      },
      closed,
    ),
  },
  closed,
);

/**
 * GET /v1/setup: the steps of the Configuration Wizard, done or to do, in order. POST /v1/setup does those that are
 * needed (`?apply=false`: only shows them) and can be repeated.
 */
export const SetupSchema = Type.Object(
  {
    steps: Type.Array(
      Type.Object(
        {
          id: Type.String(),
          title: Type.String(),
          state: Type.Union([Type.Literal("done"), Type.Literal("needed"), Type.Literal("failed")]),
          detail: Type.String(),
        },
        closed,
      ),
    ),
  },
  closed,
);
export type Setup = Static<typeof SetupSchema>;
