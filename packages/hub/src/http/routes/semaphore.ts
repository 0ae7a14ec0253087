import { RevisionNumber, type Semaphore, SemaphoreSchema, SIGNED_HEADER } from "@lockstep/protocol";
import { Type } from "typebox";
import { sendJsonText, sendNotModified } from "../answers.ts";
import { matchesTag } from "../conditions.ts";
import type { HubServer } from "../server.ts";
import type { HubServices } from "../services.ts";

/** Names an installation, for which there may be an order. A hint like the value itself: what counts is signed. */
const INSTALLATION_HEADER = "lockstep-installation";
/**
 * A relay asks for all its neighbours: where there are no orders, it need not ask for each of them. It says which orders it
 * was told of last (`none`, or the eight digits that stand for them), and hears at once when there are others; `1`: of none yet.
 */
const RELAY_HEADER = "lockstep-relay";
const ORDERS_MARK = /^(none|[0-9a-f]{8})$/;
const ORDERS_HEADER = "lockstep-orders";
/** A poll waits no longer than this: proxies cut what is silent for a minute. */
const WAIT_SECONDS_MAX = 55;

/**
 * GET /v1/revision, the one request that every installation makes all the time: from memory, few headers, no
 * credentials. Behaviour 6: it shows the value before the recalculation until that has been committed.
 */
export function registerSemaphore(app: HubServer, services: HubServices): void {
  let shown: Semaphore | null = null;
  let text = "";
  app.get(
    "/v1/revision",
    {
      config: { open: true, quiet: true },
      schema: {
        summary: "The software revision: the value of the semaphore",
        description:
          'The ETag is `"REVISION"`; with If-None-Match an unchanged value is answered by 304. With `after` and `wait` ' +
          "the answer comes as soon as the value differs from `after`, at the latest after `wait` seconds. To an " +
          "installation that names itself in `lockstep-installation` the revision that it is ordered to is announced, and " +
          "`lockstep-signed: ROOT.REVISION.DIGEST` says the newest root and what the newest revision is. " +
          "To whoever sends `lockstep-relay` it is said by `lockstep-orders` which orders there are: `none`, or digits " +
          "that are others when the orders are. Sent along as `lockstep-relay: DIGITS` with `wait`, they make the " +
          "answer come as soon as there are other orders, too.",
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
      const said = request.headers[INSTALLATION_HEADER];
      const installation = typeof said === "string" ? said : null;
      const relay = request.headers[RELAY_HEADER];
      const mark = typeof relay === "string" && ORDERS_MARK.test(relay) ? relay : null;
      const waits = after !== undefined && wait !== undefined && wait > 0;
      if (waits && semaphore.announced(installation) === after) {
        const gone = new AbortController();
        const { socket } = request.raw;
        const hangUp = () => gone.abort();
        socket.once("close", hangUp);
        const waitMs = Math.min(wait, WAIT_SECONDS_MAX) * 1000;
        try {
          const signal = AbortSignal.any([gone.signal, services.stopping]);
          await semaphore.waitForOther(after, waitMs, signal, installation, mark);
        } finally {
          // A connection serves many polls.
          socket.off("close", hangUp);
        }
      }
      const { value } = semaphore;
      if (value !== shown) {
        shown = value;
        text = JSON.stringify(value);
      }
      const announced = semaphore.announced(installation);
      const tag = `"${announced}"`;
      void reply.header("etag", tag).header("cache-control", "no-cache").header("vary", INSTALLATION_HEADER);
      if (relay !== undefined) void reply.header(ORDERS_HEADER, semaphore.ordersMark);
      const { signed } = semaphore;
      if (signed !== null && (installation !== null || request.headers[RELAY_HEADER] !== undefined))
        void reply.header(SIGNED_HEADER, signed);
      if (matchesTag(request.headers["if-none-match"], tag)) return sendNotModified(reply);
      return sendJsonText(
        reply,
        announced === value.revision ? text : JSON.stringify({ ...value, revision: announced }),
      );
    },
  );
}
