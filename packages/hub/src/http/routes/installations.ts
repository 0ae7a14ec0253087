import { GATHERED_REPORTS_LIMITS, isAge, REPORT_AGE_HEADER } from "@lockstep/platform";
import {
  EnrolmentOrderSchema,
  EnrolmentRequestSchema,
  EnrolmentSecretSchema,
  type EnrolmentStatus,
  EnrolmentStatusSchema,
  InstallationListSchema,
  InstallationReportSchema,
  LockstepError,
  OrderAnswerSchema,
  OrderListSchema,
  OrderRequestSchema,
  PermitRequestSchema,
  SessionGrantSchema,
  SessionRequestSchema,
} from "@lockstep/protocol";
import type { FastifyRequest } from "fastify";
import { Type } from "typebox";
import { demandKnownSchema } from "../../db/migrate.ts";
import { clearAlarms } from "../../installations/alarms.ts";
import {
  beginSession,
  enrol,
  enrolmentStatus,
  forgetKey,
  isEnrolled,
  makeEnrolmentSecret,
} from "../../installations/enrolment.ts";
import { destinationOf, giveOrder, listOrders, orderOf, signPermit } from "../../installations/orders.ts";
import { listInstallations, recordReport } from "../../repository/installations.ts";
import { actorOf } from "../actor.ts";
import type { HubServer } from "../server.ts";
import type { HubServices } from "../services.ts";

const closed = { additionalProperties: false };
const Id = Type.String({ pattern: "^[A-Za-z0-9._-]{1,100}$" });
const ById = Type.Object({ id: Id }, closed);
const tags = ["installations"];

/** Installations: who they are, what they say of themselves, and what they are ordered to run. */
export function registerInstallations(app: HubServer, services: HubServices): void {
  registerReports(app, services);
  registerEnrolment(app, services);
  registerAlarms(app, services);
  registerOrders(app, services);
}

function registerReports(app: HubServer, services: HubServices): void {
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
        description: `For one that enrolled only its own session may do that. \`${REPORT_AGE_HEADER}\`: for how many seconds somebody held it back; one that reported since then has said something newer, which stays.`,
        tags,
        params: ById,
        body: InstallationReportSchema,
        response: { 204: Type.Null() },
      },
    },
    async (request, reply) => {
      services.repository();
      const { id } = request.params;
      demandOwn(request, id);
      // Also the hub's token, which everybody has, makes nobody an installation that has a key.
      if (request.installation === null && (await isEnrolled(services.pool, id)))
        throw new LockstepError("AUTHENTICATION_REQUIRED", "this installation reports by its own key", {
          expected: "a session of the installation",
          found: "none",
          hint: "Its key lies in .lockstep/identity. If it is lost: lockstep fleet forget ID, then enrol it anew.",
        });
      await recordReport(services.pool, id, request.body, ageOf(request));
      return reply.code(204).send(null);
    },
  );
}

function ageOf({ headers }: FastifyRequest): number {
  const text = headers[REPORT_AGE_HEADER] ?? "0";
  const age = typeof text === "string" && /^\d{1,6}$/.test(text) ? Number(text) : null;
  if (isAge(age)) return age;
  throw new LockstepError("REQUEST_INVALID", `${REPORT_AGE_HEADER} is no age of a report`, {
    expected: `whole seconds, at most ${GATHERED_REPORTS_LIMITS.ageSeconds}`,
    found: String(text),
  });
}

function registerEnrolment(app: HubServer, services: HubServices): void {
  const { pool } = services;
  app.post(
    "/v1/enrolments",
    {
      schema: {
        summary: "Makes a secret by which one installation can enrol, once",
        tags,
        body: EnrolmentOrderSchema,
        response: { 200: EnrolmentSecretSchema },
      },
    },
    async (request) => {
      services.repository();
      await demandKnownSchema(pool);
      return await makeEnrolmentSecret(pool, { ...request.body, actor: actorOf(request) });
    },
  );
  app.get(
    "/v1/enrolments",
    {
      schema: {
        summary: "How many installations enrolled, which did not, and what alarms stand",
        tags,
        response: { 200: EnrolmentStatusSchema },
      },
    },
    async (): Promise<EnrolmentStatus> => {
      services.repository();
      return await enrolmentStatus(pool);
    },
  );
  app.post(
    "/v1/installations/:id/enrolment",
    {
      config: { open: true },
      schema: {
        summary: "An installation enrols: its secret, its public key, and a signature by that key",
        tags,
        params: ById,
        body: EnrolmentRequestSchema,
        response: { 204: Type.Null() },
      },
    },
    async (request, reply) => {
      services.repository();
      await enrol(pool, request.params.id, request.body, request.from);
      return reply.code(204).send(null);
    },
  );
  app.post(
    "/v1/installations/:id/session",
    {
      config: { open: true },
      schema: {
        summary: "An installation begins a session: the next step of its chain, signed by its key",
        tags,
        params: ById,
        body: SessionRequestSchema,
        response: { 200: SessionGrantSchema },
      },
    },
    async (request) => {
      services.repository();
      return await beginSession(pool, request.params.id, request.body, request.from);
    },
  );
  app.delete(
    "/v1/installations/:id/enrolment",
    {
      schema: {
        summary: "Forgets the key of an installation: its sessions end, and it may enrol again",
        tags,
        params: ById,
        response: { 200: Type.Object({ forgotten: Type.Boolean() }, closed) },
      },
    },
    async (request) => {
      services.repository();
      return { forgotten: await forgetKey(pool, request.params.id) };
    },
  );
}

function registerAlarms(app: HubServer, services: HubServices): void {
  app.delete(
    "/v1/alarms",
    {
      schema: {
        summary: "Removes alarms that somebody has looked at: those of an installation, or all",
        tags,
        querystring: Type.Object({ installation: Type.Optional(Id) }, closed),
        response: { 200: Type.Object({ removed: Type.Integer() }, closed) },
      },
    },
    async (request) => {
      services.repository();
      return { removed: await clearAlarms(services.pool, request.query.installation ?? null) };
    },
  );
}

function registerOrders(app: HubServer, services: HubServices): void {
  const { pool, publisher } = services;
  app.get(
    "/v1/orders",
    { schema: { summary: "The orders in force", tags, response: { 200: OrderListSchema } } },
    async () => {
      services.repository();
      return { orders: await listOrders(pool) };
    },
  );
  app.get(
    "/v1/orders/:id",
    {
      schema: {
        summary: "The order for an installation, as it was signed; nothing: there never was one",
        tags,
        params: ById,
        response: { 200: OrderAnswerSchema, 204: Type.Null() },
      },
    },
    async (request, reply) => {
      services.repository();
      demandOwn(request, request.params.id);
      const order = await orderOf(pool, request.params.id);
      // Each update of each installation asks, and hardly ever there is one: the fewest bytes say so.
      return order === null ? await reply.code(204).header("cache-control", "no-store").send(null) : order;
    },
  );
  app.put(
    "/v1/orders/:id",
    {
      schema: {
        summary: "Orders an installation to a software revision, or to the newest again",
        tags,
        params: ById,
        body: OrderRequestSchema,
        response: { 200: OrderAnswerSchema },
      },
    },
    async (request) => {
      await demandKnownSchema(pool);
      const { semaphore } = services.repository();
      const given = await giveOrder(pool, publisher, request.params.id, request.body, actorOf(request));
      await semaphore.renew();
      return given;
    },
  );
  app.post(
    "/v1/signing/permits",
    {
      schema: {
        summary: "A permit to go back, by the release keys that are on this hub",
        tags,
        body: PermitRequestSchema,
        response: { 200: Type.Object({ permit: Type.String() }, closed) },
      },
    },
    async (request) => {
      services.repository();
      return { permit: await signPermit(pool, publisher, request.body) };
    },
  );
  app.get(
    "/v1/signing/destinations/:revision",
    {
      schema: {
        summary: "What an order or a permit for this software revision names",
        tags,
        params: Type.Object({ revision: Type.Integer({ minimum: 1 }) }, closed),
        response: {
          200: Type.Object(
            {
              revision: Type.Integer(),
              digest: Type.String(),
              targets: Type.Object({ version: Type.Integer(), sha256: Type.String() }, closed),
            },
            closed,
          ),
        },
      },
    },
    async (request) => {
      services.repository();
      return await destinationOf(pool, request.params.revision);
    },
  );
}

/** A session speaks for its own installation alone. */
function demandOwn(request: FastifyRequest, id: string): void {
  if (request.installation === null || request.installation === id) return;
  throw new LockstepError("AUTHENTICATION_FAILED", "this session belongs to another installation", {
    expected: request.installation,
    found: id,
  });
}
