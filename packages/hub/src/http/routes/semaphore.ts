import { RevisionNumber, type Semaphore, SemaphoreSchema } from "@lockstep/protocol";
import { Type } from "typebox";
import { sendJsonText, sendNotModified } from "../answers.ts";
import { matchesTag } from "../conditions.ts";
import type { HubServer } from "../server.ts";
import type { HubServices } from "../services.ts";

/** A poll waits no longer than this: proxies cut what is silent for a minute. */
const WAIT_SECONDS_MAX = 55;

/**
 * GET /v1/revision, the one request that every installation makes all the time: from memory, few headers, no
 * credentials. Behaviour 6: it shows the value before the recalculation until that has been committed.
 */
export function registerSemaphore(app: HubServer, services: HubServices): void {
  let shown: Semaphore | null = null;
  let text = "";
  let tag = "";
  app.get(
    "/v1/revision",
    {
      config: { open: true, quiet: true },
      schema: {
        summary: "The software revision: the value of the semaphore",
        description:
          'The ETag is `"REVISION"`; with If-None-Match an unchanged value is answered by 304. With `after` and `wait` ' +
          "the answer comes as soon as the value differs from `after`, at the latest after `wait` seconds.",
        tags: ["revisions"],
        querystring: Type.Object(
          {
            after: Type.Optional(RevisionNumber),
            wait: Type.Optional(Type.Integer({ minimum: 0, maximum: 3600 })),
          },
          { additionalProperties: false },
        ),
        response: { 200: SemaphoreSchema },
      },
    },
    async (request, reply) => {
      const { semaphore } = services.repository();
      const { after, wait } = request.query;
      if (after !== undefined && wait !== undefined && wait > 0 && semaphore.value.revision === after) {
        const gone = new AbortController();
        const { socket } = request.raw;
        const hangUp = () => gone.abort();
        socket.once("close", hangUp);
        const waitMs = Math.min(wait, WAIT_SECONDS_MAX) * 1000;
        try {
          await semaphore.waitForOther(after, waitMs, AbortSignal.any([gone.signal, services.stopping]));
        } finally {
          // A connection serves many polls.
          socket.off("close", hangUp);
        }
      }
      const { value } = semaphore;
      if (value !== shown) {
        shown = value;
        text = JSON.stringify(value);
        tag = `"${value.revision}"`;
      }
      void reply.header("etag", tag).header("cache-control", "no-cache");
      if (matchesTag(request.headers["if-none-match"], tag)) return sendNotModified(reply);
      return sendJsonText(reply, text);
    },
  );
}
