import { randomBytes } from "node:crypto";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { createServer as createTlsServer } from "node:https";
import type { AddressInfo } from "node:net";
import { join, resolve } from "node:path";
import { HubClient, readAuthorities } from "@lockstep/client";
import {
  type Clock,
  formatUrl,
  isLoopback,
  LISTEN_BACKLOG,
  type ListenAddress,
  type Logger,
  parseListen,
  systemClock,
  systemErrorCode,
} from "@lockstep/platform";
import { ERRORS, isLockstepError, LockstepError, toErrorBody } from "@lockstep/protocol/wire";
import manifest from "../package.json" with { type: "json" };
import { Admission } from "./admission.ts";
import { CarriedHub } from "./carried.ts";
import { cacheFailure, ObjectCache } from "./object-cache.ts";
import { RelayedBundles } from "./relayed-bundle.ts";
import { DEFAULT_GATHERING, type GatheringOptions, ReportGathering } from "./report-gathering.ts";
import { answer } from "./requests.ts";
import { SemaphoreWatch } from "./semaphore-watch.ts";
import { SmallAnswers } from "./small-answers.ts";
import type { Upstream } from "./upstream.ts";

/**
 * A relay: it stands where many installations have one thin line to the hub, and fetches what they share once.
 *
 * It decides nothing and is believed nothing. What it gives proves itself: contents by their digests, metadata by its
 * signatures, and an installation that finds something wrong goes to the hub. At worst a relay gives nothing.
 */
export interface RelayOptions {
  /** Where the cache lies. Losing it loses nothing. */
  readonly dataDirectory: string;
  readonly hub: { readonly url: string; readonly caFile: string | null };
  /** `HOST:PORT`; port 0: any free one. */
  readonly listen?: string;
  readonly tls: { readonly certFile: string; readonly keyFile: string } | null;
  /** How much the cache may hold, in bytes. */
  readonly cacheBytesMax?: number;
  /** How long to wait for a step that the hub still makes, also for those who would not, in seconds; 30 at most. */
  readonly stepWaitSeconds?: number;
  /** How reports of installations are gathered. */
  readonly gathering?: Partial<GatheringOptions>;
  readonly log: Logger;
  readonly clock?: Clock;
  /** How long the hub may be silent where it should send. */
  readonly idleTimeoutMs?: number;
}

export interface Relay {
  readonly url: string;
  /** Ends it: requests under way have a moment to come to their end. */
  stop(): Promise<void>;
}

const DEFAULT_RELAY_LISTEN = "127.0.0.1:8701";
const DEFAULT_CACHE_BYTES = 20 * 2 ** 30;
const DEFAULT_STEP_WAIT_SECONDS = 20;
const HEADERS_MS = 15_000;
/** Longer than any long poll. */
const SILENT_MS = 90_000;
const KEEP_ALIVE_MS = 72_000;
const CONNECTIONS_MAX = 1_024;
const STOP_MS = 5_000;
const STOP_LOOK_MS = 50;
const HUB_CONNECTIONS_MAX = 16;

/** Starts a relay. Throws USAGE, RELAY_LISTEN_REFUSED, RELAY_LISTEN_FAILED. */
export async function startRelay(options: RelayOptions): Promise<Relay> {
  const { caFile, url } = options.hub;
  const client = new HubClient({
    url,
    caFile,
    token: null,
    connectionsMax: HUB_CONNECTIONS_MAX,
    ...(options.idleTimeoutMs === undefined ? {} : { idleTimeoutMs: options.idleTimeoutMs }),
  });
  const { protocol, hostname } = client.connection.url;
  if (protocol === "http:" && !isLoopback(hostname))
    throw new LockstepError("USAGE", "tokens are not sent to another machine over plain HTTP", {
      expected: "https://",
      found: url,
      hint: "Use the hub's https address.",
    });
  if (caFile !== null && protocol === "https:") readAuthorities(caFile);
  const relay = await serveFrom(client.connection, options);
  return {
    url: relay.url,
    stop: async () => {
      await relay.stop();
      await client.close();
    },
  };
}

/** Starts a relay that serves what a bundle brought. Throws like `startRelay`. */
export async function startCarriedRelay(
  options: Omit<RelayOptions, "hub" | "cacheBytesMax">,
): Promise<Relay> {
  const directory = resolve(options.dataDirectory);
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const address = parseListen(options.listen ?? DEFAULT_RELAY_LISTEN);
  const token = isLoopback(address.host) ? null : await loadToken(directory);
  const hub = new CarriedHub(directory, token, options.clock ?? systemClock);
  // Nothing of a bundle may make room: it cannot be fetched again.
  // Reports have nowhere to go.
  return await serveFrom(hub, {
    ...options,
    cacheBytesMax: UNBOUNDED,
    gathering: { windowMs: 0, holdMs: 0 },
  });
}

const UNBOUNDED = 2 ** 50;

/** The token of a relay without a hub, made at its first start. */
async function loadToken(directory: string): Promise<string> {
  const path = join(directory, "token");
  const fresh = `${randomBytes(32).toString("base64url")}\n`;
  await writeFile(path, fresh, { mode: 0o600, flag: "wx" }).catch((error: unknown) => {
    if (systemErrorCode(error) !== "EEXIST") throw error;
  });
  return (await readFile(path, "utf8")).trim();
}

/** The same with anything that answers like a hub. */
async function serveFrom(hub: Upstream, options: Omit<RelayOptions, "hub">): Promise<Relay> {
  const { log, clock = systemClock } = options;
  const address = parseListen(options.listen ?? DEFAULT_RELAY_LISTEN);
  demandProtection(address, options.tls !== null);
  const directory = resolve(options.dataDirectory);
  const stop = new AbortController();
  const stopping = stop.signal;
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const objects = await ObjectCache.open(join(directory, "cache"), hub, {
    clock,
    log,
    stopping,
    sizeBytesMax: options.cacheBytesMax ?? DEFAULT_CACHE_BYTES,
    stepWaitSeconds: options.stepWaitSeconds ?? DEFAULT_STEP_WAIT_SECONDS,
  });
  objects.collectWhenOverfull();
  const semaphore = new SemaphoreWatch(hub, clock, log, stopping);
  const small = new SmallAnswers(hub, semaphore, clock);
  const parts = {
    hub,
    semaphore,
    small,
    objects,
    reports: await ReportGathering.open(
      join(directory, "reports"),
      hub,
      { clock, log, stopping },
      { ...DEFAULT_GATHERING, ...options.gathering },
    ),
    bundles: new RelayedBundles(hub, objects.store, stopping),
    admission: await Admission.open(directory, clock, (token) =>
      small.ask("/v1/trust/timestamp.json", token),
    ),
    version: manifest.version,
  };
  const listener = (request: IncomingMessage, response: ServerResponse) => {
    const began = clock.monotonic();
    response.once("close", () =>
      log.info("request", {
        method: request.method,
        path: request.url?.split("?", 1)[0],
        status: response.statusCode,
        how: response.getHeader("lockstep-relay"),
        ms: Math.round(clock.monotonic() - began),
        from: request.socket.remoteAddress,
      }),
    );
    answer(parts, request, response).catch((error: unknown) => sendError(error, request, response, log));
  };
  const server = await makeServer(options.tls, listener);
  await listen(server, address);
  const { port } = server.address() as AddressInfo;
  log.info("the relay serves", { host: address.host, port, cacheBytes: objects.store.sizeBytes });
  return {
    url: formatUrl({ host: address.host, port }, options.tls !== null),
    stop: async () => {
      stop.abort();
      const ended = new AbortController();
      const closed = new Promise<void>((done) => server.close(() => done())).then(() => ended.abort());
      const until = clock.monotonic() + STOP_MS;
      while (!ended.signal.aborted && clock.monotonic() < until) {
        // Those that have just been answered, too.
        server.closeIdleConnections();
        await clock.sleep(STOP_LOOK_MS, ended.signal);
      }
      server.closeAllConnections();
      await closed;
      const sent = new AbortController();
      await Promise.race([parts.reports.ended(), clock.sleep(STOP_MS, sent.signal)]);
      // Else the process stays for the rest of it.
      sent.abort();
    },
  };
}

/** Tokens and contents do not travel in the clear. */
function demandProtection({ host }: ListenAddress, tls: boolean): void {
  if (tls || isLoopback(host)) return;
  throw new LockstepError(
    "RELAY_LISTEN_REFUSED",
    `the relay does not listen on ${host} without a certificate`,
    {
      expected: "a certificate with its key",
      found: "none",
      hint: "Give --tls-cert and --tls-key, or listen on 127.0.0.1.",
    },
  );
}

async function makeServer(
  tls: RelayOptions["tls"],
  listener: (request: IncomingMessage, response: ServerResponse) => void,
): Promise<Server> {
  const limits = { headersTimeout: HEADERS_MS, requestTimeout: 0, keepAliveTimeout: KEEP_ALIVE_MS };
  const server =
    tls === null
      ? createServer(limits, listener)
      : createTlsServer({ ...limits, minVersion: "TLSv1.2", ...(await readTls(tls)) }, listener);
  server.timeout = SILENT_MS;
  server.maxConnections = CONNECTIONS_MAX;
  return server;
}

async function readTls({
  certFile,
  keyFile,
}: {
  readonly certFile: string;
  readonly keyFile: string;
}): Promise<{ cert: Buffer; key: Buffer }> {
  try {
    return { cert: await readFile(certFile), key: await readFile(keyFile) };
  } catch (cause) {
    throw new LockstepError("USAGE", "certificate or key cannot be read", {
      found: cause instanceof Error ? cause.message : String(cause),
      hint: "Name readable files in PEM by --tls-cert and --tls-key.",
      cause,
    });
  }
}

function listen(server: Server, { host, port }: ListenAddress): Promise<void> {
  return new Promise((done, reject) => {
    server.once("error", (cause) =>
      reject(
        new LockstepError("RELAY_LISTEN_FAILED", `the relay cannot listen on ${host}:${port}`, {
          found: systemErrorCode(cause) ?? cause.message,
          hint: "Choose a free port of an address of this machine by --listen.",
          cause,
        }),
      ),
    );
    server.listen({ host, port, backlog: LISTEN_BACKLOG }, done);
  });
}

function sendError(error: unknown, request: IncomingMessage, response: ServerResponse, log: Logger): void {
  const known = cacheFailure(error);
  if (isLockstepError(known, "RELAY_CACHE_FAILED") && !isGone(error))
    log.error("a request failed", { error });
  if (response.headersSent || response.destroyed) {
    // It cannot be taken back: it ends too early, and whoever reads knows.
    response.destroy();
    return;
  }
  const body = JSON.stringify(toErrorBody(known));
  const seconds = known.retryAfterSeconds ?? (ERRORS[known.code].http === 503 ? 5 : null);
  const headers: Record<string, string | number> = {
    "content-type": "application/json; charset=utf-8",
    "cache-control": "no-store",
    "content-length": Buffer.byteLength(body),
    ...(seconds === null ? {} : { "retry-after": seconds }),
    ...(known.code === "AUTHENTICATION_REQUIRED" ? { "www-authenticate": "Bearer" } : {}),
    // What was not read of the request is not worth reading.
    ...(request.complete ? {} : { connection: "close" }),
  };
  response.writeHead(ERRORS[known.code].http, headers);
  response.end(body);
}

/** Whoever asked has hung up. */
function isGone(error: unknown): boolean {
  const code = systemErrorCode(error);
  return code === "ERR_STREAM_PREMATURE_CLOSE" || code === "ECONNRESET" || code === "EPIPE";
}
