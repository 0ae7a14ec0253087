import { LockstepError, Sha256Schema, stepTag } from "@lockstep/protocol";
import { Type } from "typebox";
import { matchesTag, readRange } from "../conditions.ts";
import type { HubServer } from "../server.ts";
import type { HubServices } from "../services.ts";

const READ_BYTES = 256 * 1024;
const WAIT_SECONDS_MAX = 30;
const RETRY_SECONDS = 2;
const closed = { additionalProperties: false };

/** What leads from the contents of one manifest to those of another (docs/reference/delta-format.md). */
export function registerSteps(app: HubServer, services: HubServices): void {
  app.get(
    "/v1/steps/:from/:to",
    {
      schema: {
        summary: "All that changed between two manifests, as one step",
        description:
          "The digests are those of the manifests. Made when it is first asked for: `wait` says for how many seconds " +
          "the answer may wait for that; 503 when it still goes on. 404 where it would save nothing.",
        tags: ["contents"],
        params: Type.Object({ from: Sha256Schema, to: Sha256Schema }, closed),
        querystring: Type.Object(
          { wait: Type.Optional(Type.Integer({ minimum: 0, maximum: WAIT_SECONDS_MAX })) },
          closed,
        ),
        produces: ["application/octet-stream"],
      },
    },
    async (request, reply) => {
      services.repository();
      const { from, to } = request.params;
      const found = await services.steps.obtain(from, to, (request.query.wait ?? 0) * 1000);
      if (found.kind === "none") throw noStep(from, to);
      if (found.kind === "coming")
        throw new LockstepError("HUB_BUSY", "this step is being made", {
          hint: "Ask again, or fetch the contents whole.",
          retryAfterSeconds: RETRY_SECONDS,
        });
      const { handle, size } = found.file;
      const tag = stepTag(from, to);
      void reply
        .header("etag", tag)
        .header("cache-control", "public, max-age=31536000, immutable")
        .header("accept-ranges", "bytes")
        .header("content-type", "application/octet-stream");
      const condition = request.headers["if-range"];
      const range =
        condition === undefined || condition === tag
          ? readRange(request.headers.range, size)
          : { kind: "all" as const };
      const isKnown = matchesTag(request.headers["if-none-match"], tag);
      if (isKnown || range.kind === "unsatisfiable") {
        await handle.close();
        if (isKnown) return reply.code(304).send();
        return reply.code(416).header("content-range", `bytes */${size}`).send();
      }
      const [start, end] = range.kind === "part" ? [range.start, range.end] : [0, size - 1];
      if (range.kind === "part")
        void reply.code(206).header("content-range", `bytes ${start}-${end}/${size}`);
      const stream = handle.createReadStream({ start, end, highWaterMark: READ_BYTES });
      return reply.header("content-length", end - start + 1).send(stream);
    },
  );
}

function noStep(from: string, to: string): LockstepError {
  return new LockstepError("STEP_NONE", "there is no step between these manifests", {
    found: `${from} to ${to}`,
    hint: "Fetching the contents whole costs no more; or the hub has one of them no longer.",
  });
}
