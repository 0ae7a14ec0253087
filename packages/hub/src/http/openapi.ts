import swagger from "@fastify/swagger";
import {
  AssignRequestSchema,
  BundleRequestSchema,
  ChangedPathsSchema,
  CheckVersionSchema,
  ComponentLimitListSchema,
  ComponentLimitSchema,
  DbQueueSchema,
  DbQueueStopSchema,
  ErrorSchema,
  FileListSchema,
  HubStatusSchema,
  InstallationListSchema,
  InstallationReportSchema,
  JobServerChangeSchema,
  JobServerListSchema,
  JobServerSchema,
  JobStopSchema,
  LoadComparisonSchema,
  LoadRequestSchema,
  LoadResultSchema,
  LoadRevisionSchema,
  ProcessDetailSchema,
  ProcessListSchema,
  ProcessSummarySchema,
  ReactivatedSchema,
  ReactivateSchema,
  RemoveRequestSchema,
  RevertResultSchema,
  RevisionDiffSchema,
  RevisionListSchema,
  RevisionSchema,
  ScheduleListSchema,
  ScheduleSchema,
  ScheduleStateSchema,
  SemaphoreSchema,
  SettingsSchema,
  SetupSchema,
  StartedProcessSchema,
  StartProcessSchema,
  StoredTemplateSchema,
  TargetsSchema,
  TemplateListSchema,
} from "@lockstep/protocol";
import type { FastifyInstance } from "fastify";

/** The named components of the OpenAPI document: a route that uses one of these very objects refers to it by name. */
const COMPONENTS: Readonly<Record<string, object>> = {
  AssignRequest: AssignRequestSchema,
  BundleRequest: BundleRequestSchema,
  ChangedPaths: ChangedPathsSchema,
  DbQueue: DbQueueSchema,
  DbQueueStop: DbQueueStopSchema,
  Error: ErrorSchema,
  FileList: FileListSchema,
  HubStatus: HubStatusSchema,
  InstallationList: InstallationListSchema,
  InstallationReport: InstallationReportSchema,
  LoadComparison: LoadComparisonSchema,
  LoadRequest: LoadRequestSchema,
  LoadResult: LoadResultSchema,
  LoadRevision: LoadRevisionSchema,
  RemoveRequest: RemoveRequestSchema,
  RevertResult: RevertResultSchema,
  Revision: RevisionSchema,
  RevisionDiff: RevisionDiffSchema,
  RevisionList: RevisionListSchema,
  Semaphore: SemaphoreSchema,
  Settings: SettingsSchema,
  Setup: SetupSchema,
  CheckVersion: CheckVersionSchema,
  ComponentLimit: ComponentLimitSchema,
  ComponentLimitList: ComponentLimitListSchema,
  JobServer: JobServerSchema,
  JobServerChange: JobServerChangeSchema,
  JobServerList: JobServerListSchema,
  JobStop: JobStopSchema,
  ProcessDetail: ProcessDetailSchema,
  ProcessList: ProcessListSchema,
  ProcessSummary: ProcessSummarySchema,
  Reactivate: ReactivateSchema,
  Reactivated: ReactivatedSchema,
  Schedule: ScheduleSchema,
  ScheduleList: ScheduleListSchema,
  ScheduleState: ScheduleStateSchema,
  StartProcess: StartProcessSchema,
  StartedProcess: StartedProcessSchema,
  StoredTemplate: StoredTemplateSchema,
  TemplateList: TemplateListSchema,
  Targets: TargetsSchema,
};

/** Sets up the OpenAPI 3.1 document, made from the schemas that requests are validated with. Call before the routes. */
export async function registerOpenApi(app: FastifyInstance, version: string): Promise<void> {
  const names = new Map(Object.entries(COMPONENTS).map(([name, schema]) => [schema, name]));
  for (const [name, schema] of Object.entries(COMPONENTS)) app.addSchema({ ...schema, $id: name });
  const refer = (value: unknown): unknown => {
    if (typeof value !== "object" || value === null) return value;
    const name = names.get(value);
    return name === undefined ? value : { $ref: `${name}#` };
  };
  await app.register(swagger, {
    openapi: {
      openapi: "3.1.0",
      info: {
        title: "Lockstep hub",
        version,
        description:
          "Everything that the loader, the updaters and administrators ask of a hub. Times are milliseconds since " +
          "1970 in UTC, sizes are bytes, digests are SHA-256 in lower-case hex.",
      },
      components: { securitySchemes: { token: { type: "http", scheme: "bearer" } } },
      security: [{ token: [] }],
    },
    refResolver: {
      buildLocalReference: (json, _base, _fragment, index) =>
        typeof json.$id === "string" ? json.$id : `Schema${index}`,
    },
    transform: ({ schema, url }) => {
      // Routes without a schema are shown with their address alone.
      const source: Record<string, unknown> = { ...schema };
      if (source.body !== undefined) source.body = refer(source.body);
      const responses =
        typeof source.response === "object" && source.response !== null ? source.response : {};
      source.response = {
        ...Object.fromEntries(Object.entries(responses).map(([status, value]) => [status, refer(value)])),
        "4xx": { description: "An error, by its code", ...(refer(ErrorSchema) as object) },
      };
      return { schema: source, url };
    },
  });
}
