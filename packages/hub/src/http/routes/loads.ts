import type { Readable } from "node:stream";
import {
  CONTENT_STREAM_TYPE,
  LoadComparisonSchema,
  LoadNumber,
  type LoadRequest,
  LoadRequestSchema,
  LoadResultSchema,
  LoadRevisionSchema,
  LockstepError,
} from "@lockstep/protocol";
import { Type } from "typebox";
import { carryOutLoad, compareLoad } from "../../repository/load.ts";
import { loadRevision } from "../../repository/load-revision.ts";
import type { HubServer } from "../server.ts";
import type { HubServices } from "../services.ts";
import { compileCheck } from "../validation.ts";

const closed = { additionalProperties: false };
const WAIT_SECONDS_MAX = 55;

export function registerLoads(app: HubServer, services: HubServices): void {
  const tags = ["loads"];
  const parse = compileCheck<LoadRequest>(LoadRequestSchema, "the document of the load");

  app.post(
    "/v1/loads/compare",
    {
      bodyLimit: services.limits.documentBytesMax,
      // The place is taken before the body is read: the documents of many at once would not fit into memory.
      preParsing: async (request, reply, payload) => {
        const leave = await services.gates.comparisons.enter();
        reply.raw.once("close", leave);
        if (request.raw.socket.destroyed) leave();
        return payload;
      },
      schema: {
        summary: "How a load stands to the repository, and what it would do; changes nothing",
        tags,
        body: LoadRequestSchema,
        response: { 200: LoadComparisonSchema },
      },
    },
    async (request) => {
      services.repository();
      return await compareLoad(services.pool, request.body);
    },
  );

  app.post(
    "/v1/loads",
    {
      schema: {
        summary: "Carries out a load",
        description:
          `The body is a content stream (${CONTENT_STREAM_TYPE}): the LoadRequest as its document, then every content ` +
          "that POST /v1/loads/compare calls missing. All of it happens or nothing.",
        tags,
        consumes: [CONTENT_STREAM_TYPE],
        response: { 200: LoadResultSchema },
      },
    },
    async (request) => {
      services.repository();
      const body = request.body as Readable | undefined;
      if (body === undefined || typeof body !== "object" || !(Symbol.asyncIterator in body))
        throw new LockstepError("REQUEST_INVALID", "a load is sent as a content stream", {
          expected: CONTENT_STREAM_TYPE,
          found: request.headers["content-type"] ?? "no content type",
        });
      // The load watches for silence itself: while it waits for the database, the client's silence is no fault.
      request.raw.socket.setTimeout(0);
      return await services.gates.loads.through(() =>
        carryOutLoad(services.pool, body, { limits: services.limits, actor: request.from, parse }),
      );
    },
  );

  app.get(
    "/v1/loads/:id/revision",
    {
      schema: {
        summary: "Which revision carries a load; null while the DBQueue is not done with it",
        tags,
        params: Type.Object({ id: LoadNumber }, closed),
        querystring: Type.Object(
          { wait: Type.Optional(Type.Integer({ minimum: 0, maximum: 3600 })) },
          closed,
        ),
        response: { 200: LoadRevisionSchema },
      },
    },
    async (request) => {
      const { semaphore } = services.repository();
      const gone = new AbortController();
      request.raw.socket.once("close", () => gone.abort());
      return {
        revision: await loadRevision(services.pool, request.params.id, {
          waitMs: Math.min(request.query.wait ?? 0, WAIT_SECONDS_MAX) * 1000,
          signal: AbortSignal.any([gone.signal, services.stopping]),
          clock: services.clock,
          semaphore,
        }),
      };
    },
  );
}
