import { Readable } from "node:stream";
import {
  DbQueueSchema,
  DbQueueStopSchema,
  HubStatusSchema,
  SettingsSchema,
  SetupSchema,
} from "@lockstep/protocol";
import { Type } from "typebox";
import { demandKnownSchema } from "../../db/migrate.ts";
import { readSettings, writeSettings } from "../../repository/settings.ts";
import { readHubStatus } from "../../setup/status.ts";
import { patientJson, sendJsonText } from "../answers.ts";
import type { HubServer } from "../server.ts";
import type { HubServices } from "../services.ts";

const closed = { additionalProperties: false };

export function registerAdministration(app: HubServer, services: HubServices): void {
  registerSettings(app, services);
  registerDbQueue(app, services);
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
