import {
  RevertResultSchema,
  RevisionDiffSchema,
  RevisionListSchema,
  RevisionNumber,
  RevisionSchema,
} from "@lockstep/protocol";
import { Type } from "typebox";
import { revertTo } from "../../repository/revert.ts";
import { diffRevisions, listRevisions, showRevision } from "../../repository/revisions.ts";
import { sendNotModified } from "../answers.ts";
import { matchesTag } from "../conditions.ts";
import type { HubServer } from "../server.ts";
import type { HubServices } from "../services.ts";

const closed = { additionalProperties: false };
const NumberParams = Type.Object({ number: RevisionNumber }, closed);

export function registerRevisions(app: HubServer, services: HubServices): void {
  const tags = ["revisions"];
  app.get(
    "/v1/revisions",
    {
      schema: {
        summary: "The revisions that are kept, newest first",
        tags,
        querystring: Type.Object(
          { limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 10_000 })) },
          closed,
        ),
        response: { 200: RevisionListSchema },
      },
    },
    async (request) => {
      services.repository();
      return await listRevisions(services.pool, request.query.limit ?? 1_000);
    },
  );

  app.get(
    "/v1/revisions/diff",
    {
      schema: {
        summary: "What leads from one revision to another; 0 is the empty one before all",
        tags,
        querystring: Type.Object({ from: RevisionNumber, to: RevisionNumber }, closed),
        response: { 200: RevisionDiffSchema },
      },
    },
    async (request) => {
      services.repository();
      const { from, to } = request.query;
      return await services.gates.comparisons.through(() => diffRevisions(services.pool, from, to));
    },
  );

  app.get(
    "/v1/revisions/:number",
    {
      schema: {
        summary: "One revision with its manifests",
        description:
          "A revision never changes. Its ETag is its digest, since a database that was restored to an older state " +
          "can give a number a second time.",
        tags,
        params: NumberParams,
        response: { 200: RevisionSchema },
      },
    },
    async (request, reply) => {
      services.repository();
      const revision = await showRevision(services.pool, request.params.number);
      const tag = `"${revision.digest}"`;
      void reply.header("etag", tag).header("cache-control", "private, no-cache");
      if (matchesTag(request.headers["if-none-match"], tag)) return sendNotModified(reply);
      return revision;
    },
  );

  app.post(
    "/v1/revisions/:number/revert",
    {
      schema: {
        summary: "Makes the set of a former revision the current one again, as a new revision",
        tags,
        params: NumberParams,
        response: { 200: RevertResultSchema },
      },
    },
    async (request) => {
      services.repository();
      return await services.gates.changes.through(() =>
        revertTo(services.pool, request.params.number, request.from),
      );
    },
  );
}
