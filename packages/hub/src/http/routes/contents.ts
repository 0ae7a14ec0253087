import { Readable } from "node:stream";
import { BundleRequestSchema, CONTENT_STREAM_TYPE, Sha256Schema } from "@lockstep/protocol";
import { Type } from "typebox";
import { bundleLength, findAll, streamBundle } from "../bundle.ts";
import { acceptsZstd } from "../conditions.ts";
import { serveContent } from "../contents.ts";
import { createDeltas } from "../manifest-deltas.ts";
import type { HubServer } from "../server.ts";
import type { HubServices } from "../services.ts";

const closed = { additionalProperties: false };
const DigestParams = Type.Object({ sha256: Sha256Schema }, closed);
/** How much of a bundle may wait for a slow client, beside the lot that is being packed. */
const BUNDLE_BUFFER_BYTES = 512 * 1024;
/** As many digests as a bundle may have. */
const BUNDLE_REQUEST_BYTES_MAX = 8 * 2 ** 20;

export function registerContents(app: HubServer, services: HubServices): void {
  const tags = ["contents"];
  const deltas = createDeltas(services);
  app.get(
    "/v1/files/sha256/:sha256",
    {
      schema: {
        summary: "A content by its digest",
        description:
          "Raw bytes, or one zstd frame where the client accepts zstd and the hub stores it so (the ETag then ends " +
          "in `-zstd`). Ranges and conditions as in RFC 9110.",
        tags,
        params: DigestParams,
        produces: ["application/octet-stream"],
      },
    },
    async (request, reply) => {
      services.repository();
      return await serveContent(services, request.params.sha256, "application/octet-stream", request, reply);
    },
  );

  app.get(
    "/v1/manifests/sha256/:sha256",
    {
      schema: {
        summary: "The canonical text of a manifest by its digest",
        tags,
        params: DigestParams,
        produces: ["text/plain"],
      },
    },
    async (request, reply) => {
      services.repository();
      return await serveContent(services, request.params.sha256, "text/plain; charset=utf-8", request, reply);
    },
  );

  app.get(
    "/v1/manifests/delta",
    {
      schema: {
        summary: "What leads from one manifest to another, as text",
        description: "404 when the hub no longer has one of them: then the whole manifest has to be fetched.",
        tags,
        querystring: Type.Object({ from: Sha256Schema, to: Sha256Schema }, closed),
        produces: ["text/plain"],
      },
    },
    async (request, reply) => {
      services.repository();
      const { plain, packed } = await deltas(request.query.from, request.query.to);
      void reply
        .header("content-type", "text/plain; charset=utf-8")
        .header("cache-control", "public, max-age=31536000, immutable")
        .header("vary", "accept-encoding");
      if (packed.length >= plain.length || !acceptsZstd(request.headers["accept-encoding"]))
        return reply.send(plain);
      return reply.header("content-encoding", "zstd").send(packed);
    },
  );

  app.post(
    "/v1/bundle",
    {
      bodyLimit: BUNDLE_REQUEST_BYTES_MAX,
      schema: {
        summary: "Many contents as one content stream, in the order asked for",
        tags,
        body: BundleRequestSchema,
        produces: [CONTENT_STREAM_TYPE],
      },
    },
    async (request, reply) => {
      services.repository();
      const leave = await services.gates.bundles.enter();
      try {
        const headers = await findAll(services.pool, request.body.sha256);
        const stream = Readable.from(streamBundle(services.pool, headers), {
          objectMode: false,
          highWaterMark: BUNDLE_BUFFER_BYTES,
        });
        stream.once("close", leave);
        return reply
          .header("content-type", CONTENT_STREAM_TYPE)
          .header("content-length", bundleLength(headers))
          .header("cache-control", "no-store")
          .send(stream);
      } catch (error) {
        leave();
        throw error;
      }
    },
  );
}
