import {
  AssignRequestSchema,
  ChangedPathsSchema,
  FileListSchema,
  RemoveRequestSchema,
  TargetsSchema,
} from "@lockstep/protocol";
import { Type } from "typebox";
import { assignFiles, listFiles, removeMatching } from "../../repository/files.ts";
import { listTargets } from "../../repository/targets.ts";
import type { HubServer } from "../server.ts";
import type { HubServices } from "../services.ts";

const closed = { additionalProperties: false };

export function registerFiles(app: HubServer, services: HubServices): void {
  const tags = ["files"];
  app.get(
    "/v1/files",
    {
      schema: {
        summary: "File revisions by path, page by page",
        tags,
        querystring: Type.Object(
          {
            match: Type.Optional(Type.String({ minLength: 1, maxLength: 4096, description: "a glob" })),
            after: Type.Optional(Type.String({ maxLength: 4096 })),
            limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 10_000 })),
          },
          closed,
        ),
        response: { 200: FileListSchema },
      },
    },
    async (request) => {
      services.repository();
      const { match, after, limit } = request.query;
      return await listFiles(services.pool, {
        match: match ?? null,
        after: after ?? null,
        limit: limit ?? 1_000,
      });
    },
  );

  app.post(
    "/v1/files/assign",
    {
      schema: {
        summary: "Changes the deploy targets of all files that match",
        tags,
        body: AssignRequestSchema,
        response: { 200: ChangedPathsSchema },
      },
    },
    async (request) => {
      services.repository();
      return await services.gates.changes.through(() => assignFiles(services.pool, request.body));
    },
  );

  app.post(
    "/v1/files/remove",
    {
      schema: {
        summary: "Removes all file revisions that match",
        tags,
        body: RemoveRequestSchema,
        response: { 200: ChangedPathsSchema },
      },
    },
    async (request) => {
      services.repository();
      return await services.gates.changes.through(() => removeMatching(services.pool, request.body.match));
    },
  );

  app.get(
    "/v1/targets",
    {
      schema: {
        summary: "Machine roles and installation packages",
        tags,
        response: { 200: TargetsSchema },
      },
    },
    async () => {
      services.repository();
      return await listTargets(services.pool);
    },
  );
}
