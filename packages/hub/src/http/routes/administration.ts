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
import { listInstallations, recordReport } from "../../repository/installations.ts";
import { readSettings, writeSettings } from "../../repository/settings.ts";
import { readHubStatus } from "../../setup/status.ts";
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
    async (request) => {
      if (request.query.apply === false) return await services.setup.inspect();
      // A migration of a large database takes its time, and nothing travels meanwhile.
      request.raw.socket.setTimeout(0);
      return await services.gates.changes.through(() => services.setup.apply());
    },
  );
  app.get(
    "/health",
    {
      config: { open: true, quiet: true },
      schema: {
        summary: "Whether the hub can serve",
        tags,
        response: { 200: Type.Object({ healthy: Type.Boolean() }, closed) },
      },
    },
    async () => {
      await services.pool.query("select 1");
      return { healthy: true };
    },
  );
}
