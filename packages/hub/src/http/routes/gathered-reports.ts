import {
  baseNameOf,
  EMPTY_BASE,
  extendBase,
  GATHERED_REPORTS_LIMITS,
  GATHERED_REPORTS_TYPE,
  type GatheredAnswer,
  type GatheredReport,
  packAnswers,
  REPORT_AGE_HEADER,
  type ReportBase,
  unpackReports,
} from "@lockstep/platform";
import { LockstepError } from "@lockstep/protocol";
import type { FastifyRequest } from "fastify";
import { ReportBases } from "../../installations/report-bases.ts";
import type { HubServer } from "../server.ts";
import type { HubServices } from "../services.ts";

/**
 * Reports that a relay gathered, in one request. Each goes through this server as if it had come alone, with its own credential and
 * through the same guard, so whoever gathered them can do nothing that he could not do with each. What was accepted is kept for a while: the
 * next ones of the same relay are written over it.
 */
export function registerGatheredReports(app: HubServer, services: HubServices): void {
  const bases = new ReportBases();
  app.post(
    "/v1/installations/reports",
    {
      config: { open: true },
      bodyLimit: GATHERED_REPORTS_LIMITS.bodyBytes,
      schema: {
        summary: "Reports of several installations, gathered by a relay",
        description: `The body (${GATHERED_REPORTS_TYPE}) holds reports, each with its own credential; the answer says for each what \`PUT /v1/installations/{id}\` would, or 204 where that is 204 for all.`,
        tags: ["installations"],
      },
    },
    async (request, reply) => {
      services.repository();
      const body = request.body instanceof Uint8Array ? request.body : null;
      const name = body === null ? null : baseNameOf(body);
      const base = name === null ? EMPTY_BASE : demandBase(bases, name);
      const reports = body === null ? null : unpackReports(body, base);
      if (reports === null)
        throw new LockstepError("REQUEST_INVALID", "the body holds no gathered reports", {
          expected: `${GATHERED_REPORTS_TYPE} with at most ${GATHERED_REPORTS_LIMITS.entries} reports`,
          hint: "Send each report by PUT /v1/installations/{id}.",
        });
      const answers: GatheredAnswer[] = [];
      // One after the other: of two of one installation the later counts.
      for (const report of reports) answers.push(await judge(app, request, report));
      if (name !== null) {
        // The same may be sent again: its sender need not know for how long the connection stays.
        reply.raw.removeHeader("connection");
        const accepted = reports.filter((_, n) => answers[n]?.status === 204);
        if (accepted.length > 0) bases.keep(extendBase(base, accepted));
        if (accepted.length === reports.length) return reply.code(204).send();
      }
      return reply
        .header("content-type", GATHERED_REPORTS_TYPE)
        .header("cache-control", "no-store")
        .send(packAnswers(answers));
    },
  );
}

function demandBase(bases: ReportBases, name: string): ReportBase {
  const base = bases.find(name);
  if (base !== null) return base;
  throw new LockstepError("REPORT_BASE_UNKNOWN", "the reports build on others that this hub does not have", {
    expected: "the name of what this hub accepted last from the same relay",
    found: name,
    hint: "Send them over nothing: 16 zero bytes in the place of the name. A relay does that by itself.",
  });
}

async function judge(
  app: HubServer,
  { headers, from }: FastifyRequest,
  { installation, authorization, body, ageSeconds }: GatheredReport,
): Promise<GatheredAnswer> {
  const { host } = headers;
  const answer = await app.inject({
    method: "PUT",
    url: `/v1/installations/${encodeURIComponent(installation)}`,
    headers: {
      "content-type": "application/json",
      [REPORT_AGE_HEADER]: String(ageSeconds),
      ...(host === undefined ? {} : { host }),
      ...(authorization === null ? {} : { authorization }),
    },
    remoteAddress: from,
    payload: body,
  });
  const { "retry-after": retryAfter, "content-type": type } = answer.headers;
  return {
    status: answer.statusCode,
    type: type === undefined ? "" : String(type),
    body: answer.payload,
    retryAfter: retryAfter === undefined ? null : String(retryAfter),
  };
}
