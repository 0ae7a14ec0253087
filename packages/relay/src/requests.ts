import type { IncomingMessage, ServerResponse } from "node:http";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { isSha256, type Sha256 } from "@lockstep/core";
import { isLoopbackHeader } from "@lockstep/platform";
import {
  acceptsZstd,
  CONTENT_STREAM_TYPE,
  LockstepError,
  matchesTag,
  readRange,
  SIGNED_HEADER,
} from "@lockstep/protocol/wire";
import type { Admission } from "./admission.ts";
import type { CachedObject, ObjectCache, ObjectQuestion } from "./object-cache.ts";
import type { RelayedBundles } from "./relayed-bundle.ts";
import type { ReportAnswer, ReportGathering } from "./report-gathering.ts";
import type { SemaphoreWatch, Shown } from "./semaphore-watch.ts";
import type { SmallAnswers } from "./small-answers.ts";
import type { Upstream } from "./upstream.ts";

/**
 * What a relay answers: what installations ask for, and nothing else. The header `Lockstep-Relay` says how: `hit` out of the
 * cache, `asked` of the hub, `joined` to what was on its way, `stale` because the hub is away, `held` until it
 * goes to the hub.
 */
export interface RelayParts {
  readonly hub: Upstream;
  readonly semaphore: SemaphoreWatch;
  readonly small: SmallAnswers;
  readonly objects: ObjectCache;
  readonly bundles: RelayedBundles;
  readonly reports: ReportGathering;
  readonly admission: Admission;
  readonly version: string;
}

const HOW = "lockstep-relay";
const WAIT_SECONDS_MAX = 55;
const STEP_WAIT_SECONDS_MAX = 30;
const READ_BYTES = 128 * 1024;
const BUNDLE_BODY_BYTES_MAX = 8 * 1024 * 1024;
const OWN_BYTES_MAX = 1024 * 1024;
const BUNDLE_CONTENTS_MAX = 100_000;
const IMMUTABLE = "public, max-age=31536000, immutable";
const DIGEST = "[0-9a-f]{64}";
const SEMAPHORE = /^\/v1\/revision$/;
const SMALL = /^\/v1\/(trust\/[A-Za-z0-9./]{1,64}|revisions\/\d{1,15})$/;
const CONTENT = new RegExp(`^/v1/(files|manifests)/sha256/(${DIGEST})$`);
const DELTA = /^\/v1\/manifests\/delta$/;
const STEP = new RegExp(`^/v1/steps/${DIGEST}/${DIGEST}$`);
/** What concerns one installation alone: its report, and what it is ordered to run. */
const REPORT = /^PUT \/v1\/installations\/([A-Za-z0-9-]{1,64})$/;
const ORDER = /^GET \/v1\/orders\/[A-Za-z0-9-]{1,64}$/;

const NOBODY_WAITS = /(^|,)\s*respond-async\s*(,|;|$)/i;

/** Answers one request. Throws what has to be answered as an error. */
export async function answer(
  parts: RelayParts,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const url = new URL(request.url ?? "/", "http://relay");
  const { method } = request;
  const path = url.pathname;
  const { authorization } = request.headers;
  // With any question: whoever has nothing to fetch asks for the software revision alone.
  parts.reports.learn(authorization);
  if (method === "GET" && path === "/health")
    return sendText(response, JSON.stringify({ relay: true, version: parts.version }));
  if (method === "GET" && SEMAPHORE.test(path))
    return await answerSemaphore(parts.semaphore, url, request, response);
  if (authorization === undefined) demandLoopback(request);
  if (method === "GET") {
    await parts.admission.demand(authorization);
    if (SMALL.test(path)) return await answerSmall(parts.small, `${path}${url.search}`, request, response);
    const question = readQuestion(url, request);
    if (question !== null) return await answerObject(parts.objects, question, request, response);
  }
  if (method === "POST" && path === "/v1/bundle") {
    await parts.admission.demand(authorization);
    return await answerBundle(parts, request, response);
  }
  const installation = REPORT.exec(`${method} ${path}`)?.[1];
  if (installation !== undefined) return await answerReport(parts, installation, request, response);
  if (ORDER.test(`${method} ${path}`)) return await passOn(parts.hub, path, request, response);
  throw new LockstepError("NOT_FOUND", "a relay has no such address", {
    found: `${method} ${path}`,
    hint: "A relay gives what installations need. Ask the hub for everything else.",
  });
}

async function answerSemaphore(
  semaphore: SemaphoreWatch,
  url: URL,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const after = url.searchParams.get("after");
  const wait = Number(url.searchParams.get("wait") ?? 0);
  const said = request.headers["lockstep-installation"];
  const installation = typeof said === "string" && /^[A-Za-z0-9-]{1,64}$/.test(said) ? said : null;
  let shown: Shown;
  if (after !== null && /^\d{1,15}$/.test(after) && wait > 0) {
    const gone = new AbortController();
    const hangUp = () => gone.abort();
    request.socket.once("close", hangUp);
    try {
      const waitMs = Math.min(wait, WAIT_SECONDS_MAX) * 1000;
      shown = await semaphore.askWhenOther(Number(after), waitMs, gone.signal, installation);
    } finally {
      request.socket.off("close", hangUp);
    }
  } else shown = await semaphore.askFor(installation);
  const etag = `"${shown.revision}"`;
  const headers = {
    etag,
    "cache-control": "no-cache",
    ...(shown.signed === null || installation === null ? {} : { [SIGNED_HEADER]: shown.signed }),
  };
  if (matchesTag(request.headers["if-none-match"], etag)) return sendNothing(response, 304, headers);
  sendText(response, shown.text, headers);
}

async function answerSmall(
  small: SmallAnswers,
  path: string,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const { answer: found, how } = await small.get(path, request.headers.authorization);
  const headers = {
    [HOW]: how,
    "cache-control": "no-cache",
    "content-type": found.type,
    ...(found.etag === null ? {} : { etag: found.etag }),
  };
  if (found.etag !== null && matchesTag(request.headers["if-none-match"], found.etag))
    return sendNothing(response, 304, headers);
  response.writeHead(found.status, { ...headers, "content-length": found.body.length });
  response.end(found.body);
}

function readQuestion(url: URL, request: IncomingMessage): ObjectQuestion | null {
  const path = url.pathname;
  const { authorization } = request.headers;
  const accepts = acceptsZstd(request.headers["accept-encoding"]);
  const common = { authorization, acceptsZstd: accepts, waitSeconds: null, sha256: null };
  const content = CONTENT.exec(path);
  if (content?.[2] !== undefined) {
    const type = content[1] === "files" ? "application/octet-stream" : "text/plain; charset=utf-8";
    return { ...common, path, sha256: content[2], type };
  }
  const type = "application/octet-stream";
  if (STEP.test(path)) {
    const asked = Number(url.searchParams.get("wait") ?? 0);
    const waitSeconds = Number.isSafeInteger(asked) ? Math.min(Math.max(asked, 0), STEP_WAIT_SECONDS_MAX) : 0;
    return { ...common, path, type, waitSeconds, acceptsZstd: false };
  }
  const [from, to] = [url.searchParams.get("from"), url.searchParams.get("to")];
  if (DELTA.test(path) && isSha256(from) && isSha256(to))
    return { ...common, path: `${path}?from=${from}&to=${to}`, type };
  return null;
}

async function answerObject(
  objects: ObjectCache,
  question: ObjectQuestion,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const found = await objects.find(question);
  if (found.kind === "here") return await sendHere(found, request, response);
  const head = await found.object.head;
  const { total, encoding, type, etag } = head;
  const range = total === null ? ({ kind: "all" } as const) : readWanted(request, etag, total);
  const headers = headersOf({ encoding, type, etag }, "joined");
  if (range.kind === "unsatisfiable")
    return sendNothing(response, 416, { ...headers, "content-range": `bytes */${total}` });
  const part = range.kind === "part";
  const length = part ? range.end - range.start + 1 : total;
  response.writeHead(part ? 206 : 200, {
    ...headers,
    ...(length === null ? {} : { "content-length": length }),
    ...(part ? { "content-range": `bytes ${range.start}-${range.end}/${total}` } : {}),
  });
  await send(found.object.read(part ? range.start : 0, part ? range.end : null), response);
}

async function sendHere(
  found: CachedObject,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const { file, length, etag } = found;
  try {
    const headers = headersOf(found, "hit");
    if (etag !== null && matchesTag(request.headers["if-none-match"], etag))
      return sendNothing(response, 304, headers);
    const range = readWanted(request, etag, length);
    if (range.kind === "unsatisfiable")
      return sendNothing(response, 416, { ...headers, "content-range": `bytes */${length}` });
    const [start, end] = range.kind === "part" ? [range.start, range.end] : [0, length - 1];
    response.writeHead(range.kind === "part" ? 206 : 200, {
      ...headers,
      "content-length": end - start + 1,
      ...(range.kind === "part" ? { "content-range": `bytes ${start}-${end}/${length}` } : {}),
    });
    if (length === 0) {
      response.end();
      return;
    }
    const stream = file.createReadStream({ start, end, highWaterMark: READ_BYTES, autoClose: false });
    await pipeline(stream, response);
  } finally {
    await file.close();
  }
}

function readWanted(request: IncomingMessage, etag: string | null, length: number) {
  const condition = request.headers["if-range"];
  if (condition !== undefined && condition !== etag) return { kind: "all" } as const;
  return readRange(request.headers.range, length);
}

function headersOf(
  { encoding, type, etag }: { encoding: string; type: string; etag: string | null },
  how: string,
): Record<string, string> {
  return {
    [HOW]: how,
    "cache-control": IMMUTABLE,
    "content-type": type,
    vary: "accept-encoding",
    ...(encoding === "identity" ? {} : { "content-encoding": encoding }),
    ...(etag === null ? {} : { etag, "accept-ranges": "bytes" }),
  };
}

async function answerBundle(
  { bundles, objects }: RelayParts,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const wanted = readDigests(await readBody(request, BUNDLE_BODY_BYTES_MAX));
  const { authorization } = request.headers;
  const asked = await bundles.prepare(wanted, authorization);
  response.writeHead(200, {
    [HOW]: asked === 0 ? "hit" : "asked",
    "content-type": CONTENT_STREAM_TYPE,
    "cache-control": "no-store",
  });
  await send(bundles.stream(wanted, authorization), response);
  objects.collectWhenOverfull();
}

function readDigests(body: Buffer): Sha256[] {
  let wanted: unknown;
  try {
    wanted = (JSON.parse(body.toString("utf8")) as { sha256?: unknown }).sha256;
  } catch {
    wanted = null;
  }
  if (Array.isArray(wanted) && wanted.length <= BUNDLE_CONTENTS_MAX && wanted.every(isSha256))
    return [...new Set(wanted)];
  throw new LockstepError("REQUEST_INVALID", "the request names no contents", {
    expected: `{"sha256": [...]} with at most ${BUNDLE_CONTENTS_MAX} digests`,
  });
}

/** The hub itself answers, and nothing is kept. */
async function passOn(
  hub: Upstream,
  path: string,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const { authorization } = request.headers;
  const headers = authorization === undefined ? {} : { authorization };
  const passed = await hub.read({ method: "GET", path, headers, accept: [404] }, OWN_BYTES_MAX);
  const type = passed.headers["content-type"] ?? "";
  sendOwn({ status: passed.status, type, body: passed.body, retryAfter: null }, response);
}

/** The same for a report, which travels with those of others; where nobody waits for the answer (RFC 7240), some time later. */
async function answerReport(
  { reports, admission }: RelayParts,
  installation: string,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const body = (await readBody(request, OWN_BYTES_MAX)).toString("utf8");
  const { authorization, prefer } = request.headers;
  const report = { installation, authorization: authorization ?? null, body };
  if (NOBODY_WAITS.test(String(prefer ?? ""))) {
    await admission.demand(authorization);
    if (await reports.hold(report))
      return sendNothing(response, 202, {
        [HOW]: "held",
        "content-length": "0",
        "cache-control": "no-store",
      });
  }
  sendOwn(await reports.send(report), response);
}

function sendOwn({ status, type, body, retryAfter }: ReportAnswer, response: ServerResponse): void {
  response.writeHead(status, {
    [HOW]: "asked",
    "cache-control": "no-store",
    "content-type": type === "" ? "application/json" : type,
    ...(status === 401 ? { "www-authenticate": "Bearer" } : {}),
    ...(retryAfter === null ? {} : { "retry-after": retryAfter }),
    ...(status === 204 ? {} : { "content-length": body.length }),
  });
  response.end(status === 204 ? undefined : body);
}

async function readBody(request: IncomingMessage, bytesMax: number): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    length += chunk.length;
    if (length > bytesMax)
      throw new LockstepError("CONTENT_TOO_LARGE", "the request is longer than a relay takes", {
        expected: bytesMax,
        found: length,
      });
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

/**
 * Whoever sends no token comes from this machine, under its name, and from no page of another site: a hub without a token
 * hears nobody else either.
 */
function demandLoopback(request: IncomingMessage): void {
  const { host, origin } = request.headers;
  const own = origin === undefined || origin === `http://${host}` || origin === `https://${host}`;
  const from = request.socket.remoteAddress ?? "";
  if (isLoopbackHeader(host) && own && /^(::1$|(::ffff:)?127\.)/.test(from)) return;
  throw new LockstepError("AUTHENTICATION_REQUIRED", "the relay asks for a token", {
    expected: "Authorization: Bearer TOKEN",
    found: "none",
    hint: "Set LOCKSTEP_TOKEN or name a token file: the hub decides whether it may read.",
  });
}

async function send(chunks: AsyncIterable<Uint8Array>, response: ServerResponse): Promise<void> {
  await pipeline(Readable.from(chunks, { objectMode: false, highWaterMark: READ_BYTES }), response);
}

function sendText(response: ServerResponse, text: string, headers: Record<string, string> = {}): void {
  response.writeHead(200, {
    "content-type": "application/json",
    "content-length": Buffer.byteLength(text),
    ...headers,
  });
  response.end(text);
}

function sendNothing(response: ServerResponse, status: number, headers: Record<string, string>): void {
  response.writeHead(status, headers);
  response.end();
}
