import {
  LockstepError,
  ProcessDetailSchema,
  ProcessId,
  ProcessListSchema,
  ProcessStateSchema,
  ProcessSummarySchema,
  ReactivatedSchema,
  ReactivateSchema,
  StartedProcessSchema,
  StartProcessSchema,
  StoredTemplateSchema,
  TemplateListSchema,
  TemplateSchema,
} from "@lockstep/protocol";
import { checkTemplateDocument } from "@lockstep/protocol/job-template-file";
import { Type } from "typebox";
import { withTransaction } from "../../db/connect.ts";
import { listProcesses, readProcess, readProcessDetail } from "../../jobs/list.ts";
import { cancelProcess, reactivate } from "../../jobs/reactivate.ts";
import { startProcess } from "../../jobs/start.ts";
import {
  listTemplates,
  putTemplate,
  readTemplate,
  removeTemplate,
  showTemplate,
} from "../../jobs/templates.ts";
import { actorOf } from "../actor.ts";
import type { HubServer } from "../server.ts";
import type { HubServices } from "../services.ts";

const closed = { additionalProperties: false };
/** Ten thousand steps. */
const TEMPLATE_BYTES_MAX = 16 * 2 ** 20;
const TemplateName = Type.Object({ name: Type.String({ minLength: 1, maxLength: 200 }) }, closed);
const ProcessNumber = Type.Object({ id: ProcessId }, closed);

/** What people ask of the job service: templates and processes. */
export function registerJobs(app: HubServer, services: HubServices): void {
  registerTemplates(app, services);
  registerProcesses(app, services);
  registerDecisions(app, services);
}

function registerTemplates(app: HubServer, services: HubServices): void {
  const tags = ["job templates"];
  app.get(
    "/v1/jobs/templates",
    { schema: { summary: "The stored templates", tags, response: { 200: TemplateListSchema } } },
    async () => {
      services.repository();
      return await listTemplates(services.pool);
    },
  );
  app.get(
    "/v1/jobs/templates/:name",
    {
      schema: {
        summary: "One template, hidden values masked",
        tags,
        params: TemplateName,
        response: { 200: StoredTemplateSchema },
      },
    },
    async (request) => {
      services.repository();
      return await showTemplate(services.pool, request.params.name);
    },
  );
  app.put(
    "/v1/jobs/templates/:name",
    {
      // Of a template people want to hear more than that its form is wrong.
      attachValidation: true,
      bodyLimit: TEMPLATE_BYTES_MAX,
      schema: {
        summary: "Checks a template whole and stores it",
        tags,
        params: TemplateName,
        body: TemplateSchema,
        response: { 200: StoredTemplateSchema },
      },
    },
    async (request) => {
      services.repository();
      const template = checkTemplateDocument(request.body, "the template");
      if (request.validationError !== undefined) throw request.validationError;
      if (template.name !== request.params.name)
        throw new LockstepError("REQUEST_INVALID", "the address names another template", {
          expected: template.name,
          found: request.params.name,
        });
      return await putTemplate(services.pool, template, actorOf(request));
    },
  );
  app.delete(
    "/v1/jobs/templates/:name",
    {
      schema: {
        summary: "Removes a template; its processes go on",
        tags,
        params: TemplateName,
        response: { 204: Type.Null() },
      },
    },
    async (request, reply) => {
      services.repository();
      await removeTemplate(services.pool, request.params.name);
      return reply.code(204).send(null);
    },
  );
}

function registerProcesses(app: HubServer, services: HubServices): void {
  const tags = ["job processes"];
  app.post(
    "/v1/jobs/processes",
    {
      attachValidation: true,
      bodyLimit: TEMPLATE_BYTES_MAX,
      schema: {
        summary: "Starts a process, once for each idempotency key",
        tags,
        body: StartProcessSchema,
        response: { 200: StartedProcessSchema },
      },
    },
    async (request) => {
      services.repository();
      const given = (request.body as { template?: unknown } | null)?.template;
      const inline =
        typeof given === "object" && given !== null ? checkTemplateDocument(given, "the template") : null;
      if (request.validationError !== undefined) throw request.validationError;
      const { template: wanted, parameters, priority, startAt, idempotencyKey } = request.body;
      const name = typeof wanted === "string" ? wanted : null;
      const template = inline ?? (await readTemplate(services.pool, name ?? ""));
      const order = {
        template,
        storedAs: name,
        parameters: parameters ?? {},
        priority,
        startAt,
        idempotencyKey,
        startedBy: actorOf(request),
      };
      // One statement as a rule: a transaction around it would be time that the first step waits.
      const { process, created, overLimit } =
        template.limit === undefined
          ? await startProcess(services.pool, order)
          : await withTransaction(services.pool, async ({ client }) => await startProcess(client, order));
      return { process: await readProcess(services.pool, process), created, overLimit };
    },
  );
  app.get(
    "/v1/jobs/processes",
    {
      schema: {
        summary: "Processes, the newest first",
        tags,
        querystring: Type.Object(
          {
            state: Type.Optional(ProcessStateSchema),
            template: Type.Optional(Type.String({ minLength: 1, maxLength: 300 })),
            text: Type.Optional(
              Type.String({
                minLength: 1,
                maxLength: 200,
                description: "a part of the name, of who started it, or of a step's message",
              }),
            ),
            before: Type.Optional(ProcessId),
            limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 1_000 })),
          },
          closed,
        ),
        response: { 200: ProcessListSchema },
      },
    },
    async (request) => {
      services.repository();
      return await listProcesses(services.pool, request.query);
    },
  );
  app.get(
    "/v1/jobs/processes/:id",
    {
      schema: {
        summary: "One process with its steps and every try",
        tags,
        params: ProcessNumber,
        response: { 200: ProcessDetailSchema },
      },
    },
    async (request) => {
      services.repository();
      return await readProcessDetail(services.pool, request.params.id);
    },
  );
  app.get(
    "/v1/jobs/processes/:id/summary",
    {
      config: { quiet: true },
      schema: {
        summary: "One process, its steps only counted",
        tags,
        params: ProcessNumber,
        response: { 200: ProcessSummarySchema },
      },
    },
    async (request) => {
      services.repository();
      return await readProcess(services.pool, request.params.id);
    },
  );
}

function registerDecisions(app: HubServer, services: HubServices): void {
  const tags = ["job processes"];
  app.post(
    "/v1/jobs/processes/:id/cancel",
    {
      schema: {
        summary: "Ends a process; services stop working on its steps",
        tags,
        params: ProcessNumber,
        response: { 200: ProcessSummarySchema },
      },
    },
    async (request) => {
      services.repository();
      await cancelProcess(services.pool, request.params.id, actorOf(request));
      return await readProcess(services.pool, request.params.id);
    },
  );
  app.post(
    "/v1/jobs/reactivate",
    {
      schema: {
        summary: "Lets frozen, missing and over-limit steps go on; with dryRun it only says which",
        tags,
        body: ReactivateSchema,
        response: { 200: ReactivatedSchema },
      },
    },
    async (request) => {
      services.repository();
      return await reactivate(services.pool, request.body, actorOf(request));
    },
  );
}
