import { decideAdmission } from "@lockstep/core";
import { type Exchange, LockstepError } from "@lockstep/protocol";
import type { ExchangeView } from "./server-row.ts";

/** Admits a request (core), or refuses it. Throws JOB_REQUEST_STALE, JOB_INSTANCE_REPLACED, JOB_TERM_STALE, JOB_QUEUE_TAKEN. */
export function admit(view: ExchangeView, request: Exchange) {
  const { server } = view;
  const carried = new Set([...request.holding, ...request.results.map(({ claim }) => claim)]);
  const admission = decideAdmission(
    server === null
      ? null
      : { ...server, held: server.held.filter(([, claim]) => !carried.has(claim)).length },
    { ...request, term: request.term ?? null },
  );
  switch (admission.kind) {
    case "current":
    case "overtaken":
    case "takeover":
      return admission;
    case "stale":
      throw new LockstepError(
        "JOB_REQUEST_STALE",
        "the request comes too late: a later one has been answered",
        {
          expected: `a sequence above ${server?.answered ?? 0}`,
          found: request.sequence,
          hint: "Nothing was done. The service goes on with its next request.",
        },
      );
    case "replaced":
      throw new LockstepError(
        "JOB_INSTANCE_REPLACED",
        server !== null && server.machine !== request.machine
          ? `two services have one queue: the one on ${server.machine} serves ${request.queue} now, and not this one on ${request.machine}`
          : `another run of the service serves the queue ${request.queue}`,
        {
          expected: server?.instance ?? "none",
          found: request.instance,
          hint:
            server !== null && server.machine !== request.machine
              ? "Give each its own Queue, or end one of them: they take the queue from each other again and again."
              : "This run must end: its steps belong to the other one, or have been given out again.",
        },
      );
    case "term-stale":
      throw new LockstepError(
        "JOB_TERM_STALE",
        `the virtual server ${request.queue} has moved to another node`,
        {
          expected: `a term of at least ${server?.term ?? 0}`,
          found: request.term ?? 0,
          hint: "This node must stop its service; whoever holds the newest lease serves the queue.",
        },
      );
    case "taken":
      throw new LockstepError(
        "JOB_QUEUE_TAKEN",
        `the service on ${server?.machine ?? "another machine"} works on steps of the queue ${request.queue}`,
        {
          expected: `a service on ${server?.machine ?? ""}`,
          found: request.machine,
          hint: "If it has died, its lease ends within a minute and this service takes over. If not, one of the two has a wrong Queue.",
          retryAfterSeconds: Math.ceil(view.leaseMs / 3000),
        },
      );
  }
}
