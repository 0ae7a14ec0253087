import {
  CheckVersionSchema,
  ComponentLimitListSchema,
  ComponentLimitSchema,
  JobServerChangeSchema,
  JobServerListSchema,
  JobServerSchema,
  JobStopSchema,
  LockstepError,
  QueueName,
  ScheduleListSchema,
  ScheduleSchema,
  ScheduleStateSchema,
} from "@lockstep/protocol";
import { Type } from "typebox";
import { listLimits, putLimit } from "../../jobs/limits.ts";
import { listSchedules, putSchedule, removeSchedule } from "../../jobs/schedules.ts";
import { changeServer, checkVersion, listServers, setStop } from "../../jobs/servers.ts";
import { actorOf } from "../actor.ts";
import type { HubServer } from "../server.ts";
import type { HubServices } from "../services.ts";

const closed = { additionalProperties: false };

/** Running the job service: its servers, the emergency stop, limits and schedules. */
export function registerJobOperation(app: HubServer, services: HubServices): void {
  registerServers(app, services);
  registerLimits(app, services);
  registerSchedules(app, services);
}

function registerServers(app: HubServer, services: HubServices): void {
  const tags = ["job servers"];
  const params = Type.Object({ queue: QueueName }, closed);
  app.get(
    "/v1/jobs/servers",
    {
      schema: {
        summary: "The job servers: state, revision, last fetch, steps by state",
        tags,
        response: { 200: JobServerListSchema },
      },
    },
    async () => {
      services.repository();
      return await listServers(services.pool);
    },
  );
  app.put(
    "/v1/jobs/servers/:queue",
    {
      schema: {
        summary: "Sets flags of one server; makes its entry where there is none",
        tags,
        params,
        body: JobServerChangeSchema,
        response: { 200: JobServerSchema },
      },
    },
    async (request) => {
      services.repository();
      return await changeServer(services.pool, request.params.queue, request.body);
    },
  );
  app.post(
    "/v1/jobs/servers/:queue/check-version",
    {
      schema: {
        summary: "Puts an update step into the server's queue",
        tags,
        params,
        response: { 200: CheckVersionSchema },
      },
    },
    async (request) => {
      services.repository();
      return await checkVersion(services.pool, request.params.queue, actorOf(request));
    },
  );
  app.put(
    "/v1/jobs/stopped",
    {
      schema: {
        summary: "Sets or lifts the emergency stop of all job servers; the DBQueue has its own",
        tags,
        body: JobStopSchema,
        response: { 200: JobStopSchema },
      },
    },
    async (request) => {
      services.repository();
      return await setStop(services.pool, request.body);
    },
  );
}

function registerLimits(app: HubServer, services: HubServices): void {
  const tags = ["job servers"];
  app.get(
    "/v1/jobs/components",
    {
      schema: {
        summary: "Components and tasks with a limit of steps at once",
        tags,
        response: { 200: ComponentLimitListSchema },
      },
    },
    async () => {
      services.repository();
      return await listLimits(services.pool);
    },
  );
  app.put(
    "/v1/jobs/components/:component",
    {
      schema: {
        summary: "Sets the limits of one component in place of those it had",
        tags,
        params: Type.Object({ component: Type.String({ minLength: 1, maxLength: 200 }) }, closed),
        body: ComponentLimitSchema,
        response: { 200: ComponentLimitListSchema },
      },
    },
    async (request) => {
      services.repository();
      sameName("component", request.body.component, request.params.component);
      return await putLimit(services.pool, request.body);
    },
  );
}

function registerSchedules(app: HubServer, services: HubServices): void {
  const tags = ["job schedules"];
  const params = Type.Object({ name: Type.String({ minLength: 1, maxLength: 100 }) }, closed);
  app.get(
    "/v1/jobs/schedules",
    {
      schema: {
        summary: "The schedules with their next times",
        tags,
        response: { 200: ScheduleListSchema },
      },
    },
    async () => {
      services.repository();
      return await listSchedules(services.pool);
    },
  );
  app.put(
    "/v1/jobs/schedules/:name",
    {
      schema: {
        summary: "Checks a schedule and stores it",
        tags,
        params,
        body: ScheduleSchema,
        response: { 200: ScheduleStateSchema },
      },
    },
    async (request) => {
      services.repository();
      sameName("schedule", request.body.name, request.params.name);
      return await putSchedule(services.pool, request.body);
    },
  );
  app.delete(
    "/v1/jobs/schedules/:name",
    { schema: { summary: "Removes a schedule", tags, params, response: { 204: Type.Null() } } },
    async (request, reply) => {
      services.repository();
      await removeSchedule(services.pool, request.params.name);
      return reply.code(204).send(null);
    },
  );
}

function sameName(what: string, inBody: string, inAddress: string): void {
  if (inBody === inAddress) return;
  throw new LockstepError("REQUEST_INVALID", `the address names another ${what}`, {
    expected: inBody,
    found: inAddress,
  });
}
