import { AwaitingOriginSchema, SigningStatusSchema } from "@lockstep/protocol";
import { Type } from "typebox";
import { renewOrders } from "../../installations/orders.ts";
import {
  acceptRoot,
  acceptSignatures,
  awaitingDocument,
  awaitingOrigin,
  makeHubKey,
  signingStatus,
} from "../../trust/signing.ts";
import { sendJsonText } from "../answers.ts";
import type { HubServer } from "../server.ts";
import type { HubServices } from "../services.ts";

const closed = { additionalProperties: false };
const Document = Type.String({ maxLength: 4 * 1024 * 1024 });
const BODY_BYTES_MAX = 16 * 1024 * 1024;

/** Keys and signatures: for who signs releases, and for who looks after the hub. */
export function registerSigning(app: HubServer, services: HubServices): void {
  const tags = ["signing"];
  app.get(
    "/v1/signing",
    {
      schema: {
        summary: "Which keys sign what, until when, and what waits",
        tags,
        response: { 200: SigningStatusSchema },
      },
    },
    async () => {
      services.repository();
      return await signingStatus(services.pool, services.publisher);
    },
  );

  app.get(
    "/v1/signing/awaiting",
    {
      schema: {
        summary: "The targets metadata that waits for signatures",
        tags,
        produces: ["application/json"],
      },
    },
    async (_request, reply) => {
      services.repository();
      return sendJsonText(reply, await awaitingDocument(services.pool));
    },
  );

  app.get(
    "/v1/signing/awaiting/origin",
    {
      schema: {
        summary: "The loads and removed files that led to the revision that waits; nobody signs this",
        tags,
        response: { 200: AwaitingOriginSchema },
      },
    },
    async () => {
      services.repository();
      return await awaitingOrigin(services.pool);
    },
  );

  app.post(
    "/v1/signing/targets",
    {
      bodyLimit: BODY_BYTES_MAX,
      schema: {
        summary: "Signatures for the revision that waits",
        tags,
        body: Type.Object({ document: Document }, closed),
        response: { 200: SigningStatusSchema },
      },
    },
    async (request) => {
      services.repository();
      await acceptSignatures(services.pool, request.body.document);
      return await signingStatus(services.pool, services.publisher);
    },
  );

  app.post(
    "/v1/signing/root",
    {
      bodyLimit: BODY_BYTES_MAX,
      schema: {
        summary: "A new root, with the current revision signed by its release keys where the hub lacks them",
        tags,
        body: Type.Object({ root: Document, targets: Type.Union([Document, Type.Null()]) }, closed),
        response: { 200: SigningStatusSchema },
      },
    },
    async (request) => {
      services.repository();
      await acceptRoot(services.pool, services.publisher, request.body.root, request.body.targets);
      // Orders name targets that the former release keys signed, and may be signed by a former key themselves.
      await renewOrders(services.pool, services.publisher, services.log, true);
      return await signingStatus(services.pool, services.publisher);
    },
  );

  app.post(
    "/v1/signing/keys",
    {
      schema: {
        summary: "Makes a further key on the hub; it counts when a root names it",
        tags,
        body: Type.Object(
          {
            role: Type.Union([
              Type.Literal("targets"),
              Type.Literal("snapshot"),
              Type.Literal("timestamp"),
              Type.Literal("orders"),
            ]),
          },
          closed,
        ),
        response: { 200: Type.Object({ public: Type.String() }, closed) },
      },
    },
    async (request) => {
      services.repository();
      return { public: await makeHubKey(services.publisher, request.body.role) };
    },
  );
}
