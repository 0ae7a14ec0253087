import { ExchangeAnswerSchema, ExchangeSchema } from "@lockstep/protocol";
import type { HubServer } from "../server.ts";
import type { HubServices } from "../services.ts";

/** Results bring their messages and outputs along. */
const BODY_BYTES_MAX = 32 * 2 ** 20;

/** POST /v1/jobs/exchange: the one request of a job server. */
export function registerJobExchange(app: HubServer, services: HubServices): void {
  app.post(
    "/v1/jobs/exchange",
    {
      bodyLimit: BODY_BYTES_MAX,
      config: { quiet: true },
      schema: {
        summary: "Exchange with a job server: results in, steps out",
        description:
          "Renews the server's lease, records results, and gives it steps of its queue. Waits up to `waitMs` for a step " +
          "when it has nothing else to say. A claim is a fencing token: a result counts only while its claim is the " +
          "newest of its step.",
        tags: ["jobs"],
        body: ExchangeSchema,
        response: { 200: ExchangeAnswerSchema },
      },
    },
    async (request) => {
      const { jobs } = services.repository();
      const gone = new AbortController();
      const hangUp = () => gone.abort();
      const { socket } = request.raw;
      socket.once("close", hangUp);
      try {
        return await jobs.exchange(request.body, gone.signal);
      } finally {
        socket.off("close", hangUp);
      }
    },
  );
}
