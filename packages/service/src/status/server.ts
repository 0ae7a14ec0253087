import { randomBytes } from "node:crypto";
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import { isIP } from "node:net";
import { userInfo } from "node:os";
import { type Clock, isLoopback, isLoopbackHeader, systemClock } from "@lockstep/platform";
import { LockstepError } from "@lockstep/protocol/wire";
import type { Environment } from "../config/load.ts";
import type { StatusAuthentication, StatusConfig } from "../config/types.ts";
import type { LogWriter } from "../log/types.ts";
import { type Credentials, findCredentials, isAuthorized } from "./authentication.ts";
import { boundConnections } from "./connections.ts";
import { EventStream } from "./events.ts";
import { securityHeaders, Throttle } from "./guard.ts";
import { isWanted, readFilter } from "./log-filter.ts";
import { formatMetrics } from "./metrics.ts";
import { METRICS_CONTENT_TYPE } from "./metrics-text.ts";
import { renderPage } from "./page.ts";
import { renderState } from "./sections.ts";
import type { ServiceState } from "./types.ts";
import { removeStatusUrl, writeStatusUrl } from "./url-file.ts";

export interface StatusPageOptions {
  readonly config: StatusConfig;
  readonly stateDirectory: string;
  readonly environment: Environment;
  readonly log: LogWriter;
  /** A snapshot of now; called for each request and once a second while somebody looks. */
  readonly state: () => ServiceState;
  readonly clock?: Clock;
}

export interface StatusPage {
  /** Where it is; null while it cannot be opened, or when it is switched off. */
  readonly url: string | null;
  /** Takes changed credentials over. */
  authenticate(authentication: StatusAuthentication | null): Promise<void>;
  close(): Promise<void>;
}

/** A port that is taken may be free again soon: the former run of the service may only just be ending. */
const LISTEN_AGAIN_MS = 10_000;

/**
 * Opens the status page. A page that cannot be opened does not keep the service from its work: the log says so once,
 * and it is tried again.
 */
export async function openStatusPage(options: StatusPageOptions): Promise<StatusPage> {
  const page = new StatusServer(options);
  if (options.config.enabled) await page.open();
  return page;
}

class StatusServer implements StatusPage {
  readonly #options: StatusPageOptions;
  readonly #clock: Clock;
  readonly #loopback: boolean;
  readonly #events: EventStream;
  readonly #throttle: Throttle;
  #server: Server | null = null;
  #again: NodeJS.Timeout | null = null;
  #credentials: Credentials = null;
  #told = false;
  url: string | null = null;

  constructor(options: StatusPageOptions) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#loopback = isLoopback(options.config.address);
    this.#throttle = new Throttle(this.#clock);
    this.#events = new EventStream({
      log: options.log,
      renderState: () => renderState(options.state(), options.log.problem(), this.#clock.now()).text,
      instance: () => options.state().instance,
    });
  }

  async open(): Promise<void> {
    const { config, log } = this.#options;
    try {
      // Before anybody can connect: there must be no moment without a password.
      await this.authenticate(config.authentication);
      this.#server = await listen(config, (request, response) => this.#handle(request, response));
      this.url = formatUrl(this.#server, config.address);
      await writeStatusUrl(this.#options.stateDirectory, this.url);
      log.info("the status page is open", { url: this.url });
    } catch (cause) {
      if (!this.#told) {
        const reason = cause instanceof Error ? cause.message : String(cause);
        log.serious(
          "SERVICE_STATUS_LISTEN_FAILED: the status page cannot be opened; the service works on without it",
          {
            address: `${config.address}:${config.port}`,
            reason,
          },
        );
      }
      this.#told = true;
      this.#again = setTimeout(() => void this.open(), LISTEN_AGAIN_MS);
      this.#again.unref();
    }
  }

  async authenticate(authentication: StatusAuthentication | null): Promise<void> {
    const { stateDirectory, environment, log } = this.#options;
    this.#credentials = await findCredentials({
      authentication,
      loopback: this.#loopback,
      stateDirectory,
      environment,
      onMadeUp: (file) =>
        log.warning(
          "the status page can be reached from other machines and no password is configured: user lockstep, password in the file",
          {
            file,
          },
        ),
    });
  }

  async close(): Promise<void> {
    if (this.#again !== null) clearTimeout(this.#again);
    this.#events.close();
    const server = this.#server;
    this.#server = null;
    this.url = null;
    if (server === null) return;
    await removeStatusUrl(this.#options.stateDirectory);
    await new Promise<void>((resolve) => {
      server.close(() => resolve());
      server.closeAllConnections();
    });
  }

  #handle(request: IncomingMessage, response: ServerResponse): void {
    response.on("error", () => {});
    this.#answer(request, response).catch((error: unknown) => {
      const reason = error instanceof Error ? error.message : String(error);
      this.#options.log.serious("the status page failed", { path: request.url ?? "", reason });
      if (!response.headersSent) send(response, 500, "text/plain; charset=utf-8", "internal error\n");
      else response.destroy();
    });
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const nonce = randomBytes(16).toString("base64");
    for (const [name, value] of Object.entries(securityHeaders(nonce))) response.setHeader(name, value);
    if (this.#loopback && !isLoopbackHeader(request.headers.host))
      return send(
        response,
        421,
        "text/plain; charset=utf-8",
        "this page is for this machine: use localhost\n",
      );
    if (request.method !== "GET" && request.method !== "HEAD") {
      response.setHeader("Allow", "GET, HEAD");
      return send(response, 405, "text/plain; charset=utf-8", "GET or HEAD\n");
    }
    const url = request.url?.startsWith("/") ? URL.parse(`http://localhost${request.url}`) : null;
    const path = url?.pathname ?? "";
    // A load balancer asks without a password, and learns no more than whether we live.
    if (path === "/health") return this.#health(response);
    if (!(await this.#mayPass(request, response))) return;
    const { state, log } = this.#options;
    const query = url?.searchParams ?? new URLSearchParams();
    const nowMs = this.#clock.now();
    switch (path) {
      case "/": {
        const filter = readFilter(query);
        const input = { state: state(), records: log.recent(), problem: log.problem(), filter, nowMs, nonce };
        return send(response, 200, "text/html; charset=utf-8", renderPage(input));
      }
      case "/status.json":
        return sendJson(response, 200, describe(state(), log, nowMs));
      case "/log.json": {
        const after = Number(query.get("after") ?? 0);
        const filter = readFilter(query);
        return sendJson(response, 200, {
          records: log.recent().filter((record) => record.number > after && isWanted(record, filter)),
        });
      }
      case "/metrics": {
        const { user, system } = process.cpuUsage();
        const use = { residentBytes: process.memoryUsage.rss(), cpuSeconds: (user + system) / 1e6 };
        return send(response, 200, METRICS_CONTENT_TYPE, formatMetrics(state(), log.problem(), use, nowMs));
      }
      case "/events":
        return this.#stream(request, response, query);
      default:
        return send(
          response,
          404,
          "text/plain; charset=utf-8",
          "there are /, /status.json, /log.json, /metrics, /health\n",
        );
    }
  }

  #health(response: ServerResponse): void {
    const { phase } = this.#options.state();
    const isWell = phase !== "failed" && phase !== "stopped";
    sendJson(response, isWell ? 200 : 503, { status: isWell ? "ok" : "failed", phase });
  }

  async #mayPass(request: IncomingMessage, response: ServerResponse): Promise<boolean> {
    const credentials = this.#credentials;
    if (credentials === null) return true;
    const address = request.socket.remoteAddress ?? "";
    const password = this.#throttle.isBlocked(address) ? null : await credentials.password();
    // Looked at without a pause before the password is: else as many could be tried at one moment as fit into it.
    if (this.#throttle.isBlocked(address)) {
      response.setHeader("Retry-After", "60");
      send(response, 429, "text/plain; charset=utf-8", "too many wrong passwords; wait a minute\n");
      return false;
    }
    if (password === null) {
      send(
        response,
        503,
        "text/plain; charset=utf-8",
        "the password of this page cannot be read; see the service's log\n",
      );
      this.#options.log.warning("the password of the status page cannot be read; nobody gets in");
      return false;
    }
    if (isAuthorized(request.headers.authorization, credentials.user, password)) return true;
    if (request.headers.authorization !== undefined) this.#throttle.fail(address);
    response.setHeader("WWW-Authenticate", 'Basic realm="Lockstep job service", charset="UTF-8"');
    send(
      response,
      401,
      "text/plain; charset=utf-8",
      "log on with the user and password of the status page\n",
    );
    return false;
  }

  #stream(request: IncomingMessage, response: ServerResponse, query: URLSearchParams): void {
    if (request.method === "HEAD" || !this.#events.hasRoom) {
      send(response, 503, "text/plain; charset=utf-8", "too many readers\n");
      return;
    }
    response.writeHead(200, {
      "Content-Type": "text/event-stream; charset=utf-8",
      "X-Accel-Buffering": "no",
    });
    const after = Number(query.get("after") ?? 0);
    const last = request.headers["last-event-id"];
    this.#events.add(
      response,
      Number.isSafeInteger(after) ? after : 0,
      typeof last === "string" ? last : null,
    );
  }
}

/** What /status.json says. Documented in docs/operating/service.md. */
export interface StatusDocument {
  readonly time: string;
  readonly account: string;
  readonly pid: number;
  readonly service: ServiceState;
  readonly log: { readonly problem: ReturnType<LogWriter["problem"]> };
}

function describe(state: ServiceState, log: LogWriter, nowMs: number): StatusDocument {
  return {
    time: new Date(nowMs).toISOString(),
    account: accountName(),
    pid: process.pid,
    service: state,
    log: { problem: log.problem() },
  };
}

/** In a container the number of the account may have no name. */
function accountName(): string {
  try {
    return userInfo().username;
  } catch {
    return String(process.getuid?.() ?? "");
  }
}

function send(response: ServerResponse, status: number, type: string, body: string): void {
  response.writeHead(status, { "Content-Type": type, "Content-Length": Buffer.byteLength(body) });
  response.end(body);
}

function sendJson(response: ServerResponse, status: number, value: unknown): void {
  send(response, status, "application/json; charset=utf-8", `${JSON.stringify(value)}\n`);
}

async function listen(
  { address, port }: StatusConfig,
  handle: (request: IncomingMessage, response: ServerResponse) => void,
): Promise<Server> {
  // Not imported: the names of a module are all looked up then, and one of them loads a whole client of megabytes.
  const server = process.getBuiltinModule("node:http").createServer(
    // Strangers must not hold connections open by sending slowly.
    {
      headersTimeout: 10_000,
      requestTimeout: 20_000,
      connectionsCheckingInterval: 2_000,
      keepAliveTimeout: 30_000,
      maxHeaderSize: 16_384,
    },
    handle,
  );
  boundConnections(server);
  return await new Promise((resolve, reject) => {
    server.once("error", (cause) =>
      reject(
        new LockstepError("SERVICE_STATUS_LISTEN_FAILED", cause.message, {
          cause,
          found: `${address}:${port}`,
        }),
      ),
    );
    server.listen({ host: address.replace(/^\[|\]$/g, ""), port }, () => resolve(server));
  });
}

function formatUrl(server: Server, host: string): string {
  const address = server.address();
  const port = typeof address === "object" && address !== null ? address.port : 0;
  const name = host.replace(/^\[|\]$/g, "");
  return `http://${isIP(name) === 6 ? `[${name}]` : name}:${port}/`;
}
