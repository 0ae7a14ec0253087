import { Readable } from "node:stream";
import {
  DbQueueSchema,
  DbQueueStopSchema,
  HubStatusSchema,
  InstallationListSchema,
  InstallationReportSchema,
  SettingsSchema,
  SetupSchema,
} from "@lockstep/protocol";
import { Type } from "typebox";
import { demandKnownSchema } from "../../db/migrate.ts";
import { listInstallations, recordReport } from "../../repository/installations.ts";
import { readSettings, writeSettings } from "../../repository/settings.ts";
import { readHubStatus } from "../../setup/status.ts";
import { patientJson, sendJsonText } from "../answers.ts";
import type { HubServer } from "../server.ts";
import type { HubServices } from "../services.ts";

const closed = { additionalProperties: false };

export function registerAdministration(app: HubServer, services: HubServices): void {
  registerSettings(app, services);
  registerDbQueue(app, services);
  registerInstallations(app, services);
  registerHub(app, services);
}

function registerSettings(app: HubServer, services: HubServices): void {
  const tags = ["settings"];
  app.get(
    "/v1/settings",
    { schema: { summary: "The configuration parameters", tags, response: { 200: SettingsSchema } } },
    async () => {
      services.repository();
      return await readSettings(services.pool);
    },
  );
  app.put(
    "/v1/settings",
    {
      schema: {
        summary: "Sets the configuration parameters that are named, all or none",
        tags,
        body: SettingsSchema,
        response: { 200: SettingsSchema },
      },
    },
    async (request) => {
      services.repository();
      await demandKnownSchema(services.pool);
      return await writeSettings(services.pool, request.body);
    },
  );
}

function registerDbQueue(app: HubServer, services: HubServices): void {
  const tags = ["dbqueue"];
  app.get(
    "/v1/dbqueue",
    {
      schema: {
        summary: "What waits, what runs, what was put off, and why",
        tags,
        response: { 200: DbQueueSchema },
      },
    },
    async () => await services.repository().dbqueue.status(),
  );
  app.put(
    "/v1/dbqueue/stopped",
    {
      schema: {
        summary: "Sets or lifts the emergency stop of all hubs",
        tags,
        body: DbQueueStopSchema,
        response: { 200: DbQueueSchema },
      },
    },
    async (request) => {
      const { dbqueue } = services.repository();
      await demandKnownSchema(services.pool);
      await dbqueue.setStopped(request.body.stopped, request.body.reason);
      return await dbqueue.status();
    },
  );
}

function registerInstallations(app: HubServer, services: HubServices): void {
  const tags = ["installations"];
  app.get(
    "/v1/installations",
    {
      schema: {
        summary: "What installations last reported of themselves",
        tags,
        response: { 200: InstallationListSchema },
      },
    },
    async () => {
      services.repository();
      return await listInstallations(services.pool);
    },
  );
  app.put(
    "/v1/installations/:id",
    {
      schema: {
        summary: "An installation reports",
        tags,
        params: Type.Object({ id: Type.String({ pattern: "^[A-Za-z0-9._-]{1,100}$" }) }, closed),
        body: InstallationReportSchema,
        response: { 204: Type.Null() },
      },
    },
    async (request, reply) => {
      services.repository();
      await recordReport(services.pool, request.params.id, request.body);
      return reply.code(204).send(null);
    },
  );
}

function registerHub(app: HubServer, services: HubServices): void {
  const tags = ["hub"];
  app.get(
    "/v1/status",
    { schema: { summary: "The hub itself", tags, response: { 200: HubStatusSchema } } },
    async () => await readHubStatus(services),
  );
  app.get(
    "/v1/setup",
    { schema: { summary: "The steps of the Configuration Wizard", tags, response: { 200: SetupSchema } } },
    async () => await services.setup.inspect(),
  );
  app.post(
    "/v1/setup",
    {
      schema: {
        summary: "Does the steps that are needed; can be repeated",
        tags,
        querystring: Type.Object({ apply: Type.Optional(Type.Boolean()) }, closed),
        response: { 200: SetupSchema },
      },
    },
    async (request, reply) => {
      if (request.query.apply === false) return await services.setup.inspect();
      const leave = await services.gates.changes.enter();
      // A migration of a large database takes its time, and goes on when whoever asked for it does not wait.
      const work = services.setup.apply().finally(leave);
      return sendJsonText(reply, Readable.from(patientJson(work, services.clock)));
    },
  );
  app.get(
    "/health",
    {
      config: { open: true, quiet: true },
      schema: {
        summary:
          "Whether the hub can serve: it reaches its database, and no newer hub has changed its schema",
        tags,
        response: { 200: Type.Object({ healthy: Type.Boolean() }, closed) },
      },
    },
    async () => {
      await demandKnownSchema(services.pool);
      return { healthy: true };
    },
  );
}
