import type { IncomingMessage, ServerResponse } from "node:http";
import type { Readable } from "node:stream";
import type { TypeBoxTypeProvider } from "@fastify/type-provider-typebox";
import { GATHERED_REPORTS_TYPE } from "@lockstep/platform";
import { CONTENT_STREAM_TYPE, LockstepError } from "@lockstep/protocol";
import fastify, { type FastifyBaseLogger, type FastifyInstance, type RawServerDefault } from "fastify";
import { createGuard, demandSession, sessionToken } from "./auth.ts";
import { clientLeft, hasLeft, isOwnFault, sendError, toHubError } from "./errors.ts";
import { readBody, readJsonBody } from "./json-body.ts";
import { registerOpenApi } from "./openapi.ts";
import { keepPace, needsPace } from "./pace.ts";
import { registerAdministration } from "./routes/administration.ts";
import { registerContents } from "./routes/contents.ts";
import { registerFiles } from "./routes/files.ts";
import { registerGatheredReports } from "./routes/gathered-reports.ts";
import { registerInstallations } from "./routes/installations.ts";
import { registerJobExchange } from "./routes/job-exchange.ts";
import { registerJobOperation } from "./routes/job-operation.ts";
import { registerJobs } from "./routes/jobs.ts";
import { registerLoads } from "./routes/loads.ts";
import { registerRevisions } from "./routes/revisions.ts";
import { registerSemaphore } from "./routes/semaphore.ts";
import { registerSigning } from "./routes/signing.ts";
import { registerSteps } from "./routes/steps.ts";
import { registerTrust } from "./routes/trust.ts";
import type { HubServices } from "./services.ts";
import { answerUnreadable, sendUnroutable } from "./unreadable.ts";
import { validatorCompiler } from "./validation.ts";

/**
 * The hub's HTTP server: every request passes the guard before any of its body is read, every error leaves by its code,
 * and each request leaves one line in the log, without its query, headers and body, so that no secret gets there.
 */
export type HubServer = FastifyInstance<
  RawServerDefault,
  IncomingMessage,
  ServerResponse,
  FastifyBaseLogger,
  TypeBoxTypeProvider
>;

declare module "fastify" {
  interface FastifyRequest {
    /** Address of the client. */
    from: string;
    /** The installation whose session asks; null: whoever has the hub's token, or needs none. */
    installation: string | null;
  }
  interface FastifyContextConfig {
    /** Answered without credentials. */
    open?: boolean;
    /** Asked so often that its lines would drown the others: logged for debugging only. */
    quiet?: boolean;
  }
}

export interface ServerOptions {
  readonly services: HubServices;
  /** Null: everybody on this machine may do everything. */
  readonly token: string | null;
  /** Certificate and key in PEM. */
  readonly tls: { readonly cert: string | Buffer; readonly key: string | Buffer } | null;
}

/** Enough for every request but those that say so themselves. */
const JSON_BYTES_MAX = 2 ** 20;
/** The name of a queue: 255 characters, each up to nine when it is escaped. */
const PARAMETER_LENGTH_MAX = 2_400;
/** A request's head must be there within this time. */
const HEADERS_MS = 15_000;
/** A connection on which nothing moves in either direction ends. Longer than any long poll. */
const SILENT_MS = 90_000;
const KEEP_ALIVE_MS = 72_000;

/** Makes the server with all its routes; it does not listen yet. */
export async function createServer({ services, token, tls }: ServerOptions): Promise<HubServer> {
  const http = { headersTimeout: HEADERS_MS, requestTimeout: 0 };
  const app = fastify({
    logger: false,
    bodyLimit: JSON_BYTES_MAX,
    connectionTimeout: SILENT_MS,
    keepAliveTimeout: KEEP_ALIVE_MS,
    requestTimeout: 0,
    forceCloseConnections: "idle",
    exposeHeadRoutes: false,
    clientErrorHandler: (error, socket) => answerUnreadable(error, socket),
    frameworkErrors: (error, _request, reply) => sendUnroutable(error, reply),
    routerOptions: { maxParamLength: PARAMETER_LENGTH_MAX, ignoreTrailingSlash: false },
    ...(tls === null
      ? { http }
      : { https: { ...http, cert: tls.cert, key: tls.key, minVersion: "TLSv1.2" as const } }),
  }) as unknown as HubServer;
  app.setValidatorCompiler(validatorCompiler);
  // The types hold answers to their schemas; checking again while writing would cost more than writing.
  app.setSerializerCompiler(() => (data) => JSON.stringify(data));
  app.removeAllContentTypeParsers();
  app.addContentTypeParser("application/json", readJsonBody);
  app.addContentTypeParser(GATHERED_REPORTS_TYPE, readBody);
  app.addContentTypeParser(CONTENT_STREAM_TYPE, (_request, payload: Readable, done) => done(null, payload));
  installHooks(app, services, token);
  await registerOpenApi(app as unknown as FastifyInstance, services.identity.version);
  registerSemaphore(app, services);
  registerRevisions(app, services);
  registerContents(app, services);
  registerTrust(app, services);
  registerSigning(app, services);
  registerSteps(app, services);
  registerLoads(app, services);
  registerFiles(app, services);
  registerAdministration(app, services);
  registerInstallations(app, services);
  registerGatheredReports(app, services);
  registerJobExchange(app, services);
  registerJobs(app, services);
  registerJobOperation(app, services);
  app.get("/openapi.json", { config: { open: true }, schema: { hide: true } }, async () =>
    (app as unknown as { swagger(): object }).swagger(),
  );
  await app.ready();
  return app;
}

function installHooks(app: HubServer, services: HubServices, token: string | null): void {
  const guard = createGuard(token);
  app.decorateRequest("from", "");
  app.decorateRequest("installation", null);
  app.addHook("onRequest", async (request, reply) => {
    // That a connection stays open needs no saying in HTTP/1.1. How long would tell its client when not to use it any more,
    // which only matters where a request must not be sent twice.
    if (request.method === "GET" && request.raw.httpVersion === "1.1") reply.raw.removeHeader("connection");
    // Asked now: once the connection is gone, nobody knows any more.
    request.from = request.ip;
    // Who may reach this machine only through loopback must show that for the open routes, too.
    if (request.routeOptions.config.open === true) {
      if (token === null) guard(request);
      return;
    }
    const session = sessionToken(request);
    if (session === null) return guard(request);
    // A page in a browser has no session; what a session may ask for is little.
    if (token === null) guard(request);
    request.installation = await demandSession(services, request, session);
  });
  app.setErrorHandler((error, request, reply) => {
    const left = hasLeft(error, reply);
    const known = left ? clientLeft() : toHubError(error);
    // It leaves no line as a request, for it is never answered.
    if (left) services.log.debug(known.message, { method: request.method, path: pathOf(request.url) });
    if (isOwnFault(known))
      services.log.error("a request failed", { method: request.method, route: route(request), error: known });
    return sendError(known, request, reply, services.clock);
  });
  app.setNotFoundHandler((request, reply) =>
    sendError(
      new LockstepError("NOT_FOUND", "the hub has no such address", {
        found: `${request.method} ${pathOf(request.url)}`,
        hint: "GET /openapi.json lists all addresses.",
      }),
      request,
      reply,
      services.clock,
    ),
  );
  app.addHook("onSend", (request, reply, payload, done) => {
    if (needsPace(payload)) keepPace(request, reply, services);
    done(null, payload);
  });
  app.addHook("onResponse", async (request, reply) => {
    const level = request.routeOptions.config.quiet === true ? "debug" : "info";
    services.log[level]("request", {
      method: request.method,
      path: pathOf(request.url),
      status: reply.statusCode,
      ms: Math.round(reply.elapsedTime),
      from: request.from,
    });
  });
}

function route(request: { routeOptions: { url?: string | undefined } }): string {
  return request.routeOptions.url ?? "none";
}

function pathOf(url: string): string {
  return url.split("?", 1)[0] ?? "";
}
