import { type Static, Type } from "typebox";
import {
  Bytes,
  closed,
  Nullable,
  PathSchema,
  RevisionNumber,
  Sha256Schema,
  TargetSchema,
} from "./api-values.ts";

/** The messages of a load: what the Software Loader says, and what the hub answers. */
export const LoadKindSchema = Type.Union([
  Type.Literal("version"),
  Type.Literal("service-pack"),
  Type.Literal("hotfix"),
  Type.Literal("custom"),
]);
export type LoadKind = Static<typeof LoadKindSchema>;

const LoadFileSchema = Type.Object(
  {
    path: PathSchema,
    size: Bytes,
    sha256: Sha256Schema,
    mode: Type.Integer({ minimum: 0, maximum: 0o777 }),
    /** Absent: what the repository has; none for a new file. */
    version: Type.Optional(Nullable(Type.String({ maxLength: 200 }))),
    /** Absent: what the repository has; false for a new file. */
    backup: Type.Optional(Type.Boolean()),
    /** Deploy targets; null keeps those that the repository has (none for a new file). */
    targets: Nullable(Type.Array(TargetSchema, { maxItems: 1000 })),
  },
  closed,
);

/** What a load says: the module, its roles and packages, and every file of it. */
export const LoadRequestSchema = Type.Object(
  {
    module: Type.Object(
      {
        id: Type.String({ minLength: 1, maxLength: 64 }),
        version: Type.String({ minLength: 1, maxLength: 100 }),
        name: Nullable(Type.String({ maxLength: 200 })),
        requires: Type.Array(
          Type.Object(
            {
              module: Type.String({ maxLength: 64 }),
              min: Nullable(Type.String({ maxLength: 100 })),
              max: Nullable(Type.String({ maxLength: 100 })),
            },
            closed,
          ),
        ),
      },
      closed,
    ),
    kind: LoadKindSchema,
    note: Nullable(Type.String({ maxLength: 2000 })),
    /** Null: the module brings no description, so declared roles and packages stay as they are. */
    declared: Nullable(
      Type.Object(
        {
          roles: Type.Array(
            Type.Object(
              {
                path: Type.String({ maxLength: 1024 }),
                description: Type.String({ maxLength: 2000 }),
                selectable: Type.Boolean(),
                packages: Type.Array(
                  Type.Object(
                    { package: Type.String(), subdirectory: Type.String({ maxLength: 1024 }) },
                    closed,
                  ),
                ),
              },
              closed,
            ),
          ),
          packages: Type.Array(
            Type.Object(
              {
                /** MODULE/Package */
                name: Type.String({ maxLength: 200 }),
                description: Type.String({ maxLength: 2000 }),
                selectable: Type.Boolean(),
                requires: Type.Array(Type.String({ maxLength: 200 })),
              },
              closed,
            ),
          ),
        },
        closed,
      ),
    ),
    files: Type.Array(LoadFileSchema),
    /** Accept a `version` load whose version is lower than the one in the repository. */
    allowDowngrade: Type.Boolean(),
  },
  closed,
);
export type LoadRequest = Static<typeof LoadRequestSchema>;
export type LoadFile = Static<typeof LoadFileSchema>;

/** How a file of a load stands to the repository (behaviour 44). */
export const LoadStatusSchema = Type.Union([
  Type.Literal("unknown"),
  Type.Literal("never-loaded"),
  Type.Literal("changed"),
  Type.Literal("equal"),
]);
export type LoadStatus = Static<typeof LoadStatusSchema>;

/** POST /v1/loads/compare: the answer to a LoadRequest; changes nothing. */
export const LoadComparisonSchema = Type.Object(
  {
    /** One status per file of the request, in its order. */
    statuses: Type.Array(LoadStatusSchema),
    /** Files whose deploy targets, mode, version text or backup mark would change although the content is equal. */
    attributeChanges: Type.Integer(),
    /** Paths that this load would remove. */
    removed: Type.Array(PathSchema),
    /** Contents that the hub lacks and that must travel. */
    missing: Type.Array(Sha256Schema),
    /** Files that would belong to no deploy target, so that no installation gets them. */
    undistributed: Type.Integer(),
    /** Why the load would be refused; empty where it would not. */
    refusals: Type.Array(Type.Object({ where: Type.String(), problem: Type.String() }, closed)),
    notices: Type.Array(Type.String()),
    /** Version of the module that the repository holds now, or null. */
    currentVersion: Nullable(Type.String()),
  },
  closed,
);
export type LoadComparison = Static<typeof LoadComparisonSchema>;

/**
 * POST /v1/loads takes a content stream: one document (LoadRequest), then the missing contents.
 * The answer comes when everything is committed.
 */
export const LoadResultSchema = Type.Object(
  {
    load: Type.Integer(),
    module: Type.String(),
    added: Type.Integer(),
    changed: Type.Integer(),
    removed: Type.Integer(),
    equal: Type.Integer(),
    contents: Type.Integer({ description: "contents that were new to the repository" }),
    contentBytes: Bytes,
    storedBytes: Bytes,
    /** The software revision before the DBQueue Processor has seen this load. */
    revisionBefore: RevisionNumber,
    /** False where nothing changed, so that the software revision will not move. */
    changes: Type.Boolean(),
  },
  closed,
);
export type LoadResult = Static<typeof LoadResultSchema>;

/** GET /v1/loads/{id}/revision?wait=S: which revision carries the load; null while the DBQueue is not done with it. */
export const LoadRevisionSchema = Type.Object({ revision: Nullable(RevisionNumber) }, closed);
export type LoadRevision = Static<typeof LoadRevisionSchema>;
