import { counted } from "@lockstep/core";
import { type HttpAnswer, type HttpQuestion, requestOnce } from "./http-exchange.ts";
import { extractPointer, pointerProblem } from "./json-pointer.ts";
import { defineTask, permanentError } from "./task.ts";
import type { Component, ParameterValues, TaskContext, TaskResult } from "./types.ts";

/**
 * Requests to other systems. Which answers are worth another try follows RFC 9110: the server is overloaded or out of
 * order for now (408, 425, 429, 5xx but 501 and 505), or nothing came back at all. Everything else stays as it is
 * however often one asks.
 *
 * What the step gives as credentials goes to the origin that it names and to no other: a redirect to another origin
 * leaves them behind. The hub's own token is unknown to this task.
 */
const ANSWER_BYTES_DEFAULT = 1024 * 1024;
const ANSWER_BYTES_MAX = 64 * 1024 * 1024;
const REDIRECTS_DEFAULT = 5;
const TIME_LIMIT_DEFAULT_S = 60;
const MESSAGE_CHARACTERS = 1_000;
/** Statuses that may be better the next time. */
const TEMPORARY = new Set([408, 425, 429, 500, 502, 503, 504]);
const REDIRECTS = new Set([301, 302, 303, 307, 308]);
/** They say who asks, or are made for one origin. */
const CREDENTIALS = /^(authorization|cookie|proxy-authorization|x-api-key|x-auth-token|idempotency-key)$/i;
/** What the transport decides by itself. */
const TRANSPORT =
  /^(host|content-length|transfer-encoding|connection|upgrade|te|trailer|expect|accept-encoding|keep-alive|proxy-connection)$/i;

const PARAMETERS = {
  url: {
    type: "text",
    required: true,
    check: urlProblem,
    description: "An http or https address without credentials in it.",
  },
  method: {
    type: "text",
    choices: ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"],
    default: "GET",
    description: "The method.",
  },
  headers: {
    type: "map",
    default: {},
    check: headersProblem,
    description: "Header fields. Make the parameter hidden where one of them is a credential.",
  },
  body: { type: "json", description: "What is sent: a text as it is, anything else as JSON." },
  expectedStatus: {
    type: "list",
    check: statusProblem,
    description: "Statuses that are a success. Without it: 200 to 299.",
  },
  retryStatus: {
    type: "list",
    default: [],
    check: statusProblem,
    description: "Further statuses after which another try may help.",
  },
  output: {
    type: "map",
    default: {},
    check: pointersProblem,
    description:
      'Output parameters by JSON pointer (RFC 6901) into the answer, such as `{"id": "/items/0/id"}`.',
  },
  keepBody: {
    type: "boolean",
    default: false,
    description: "Give the text of the answer to later steps as `body`.",
  },
  answerBytes: {
    type: "integer",
    minimum: 0,
    maximum: ANSWER_BYTES_MAX,
    default: ANSWER_BYTES_DEFAULT,
    description: "A longer answer is an error.",
  },
  timeLimitSeconds: {
    type: "integer",
    minimum: 1,
    maximum: 86_400,
    default: TIME_LIMIT_DEFAULT_S,
    description: "For the whole request, redirects included.",
  },
  redirects: {
    type: "integer",
    minimum: 0,
    maximum: 20,
    default: REDIRECTS_DEFAULT,
    description: "How many redirects are followed. None leads from https to http.",
  },
  caFile: {
    type: "text",
    description: "A file of certificates in PEM that are trusted instead of the machine's own.",
  },
  idempotencyHeader: {
    type: "text",
    default: "Idempotency-Key",
    check: (value: unknown) =>
      value === "" || isToken(String(value)) ? null : "must be the name of a header field",
    description: "The field that carries the step's idempotency key; empty: none. GET and HEAD carry none.",
  },
} as const;
type Parameters = ParameterValues<typeof PARAMETERS>;

export const component: Component = {
  name: "Http",
  tasks: {
    Request: defineTask({
      execution: "either",
      description: "Sends one HTTP request.",
      parameters: PARAMETERS,
      run: request,
    }),
  },
};

async function request(context: TaskContext<Parameters>): Promise<TaskResult> {
  const { parameters, signal, log } = context;
  const limit = AbortSignal.timeout(parameters.timeLimitSeconds * 1000);
  try {
    const { answer, url } = await follow(context, AbortSignal.any([signal, limit]));
    log.info(`${parameters.method} ${shown(url)}: ${answer.status}, ${answer.body.length} bytes`);
    return judge(context, answer, url);
  } catch (error) {
    signal.throwIfAborted();
    if (limit.aborted)
      return {
        kind: "error",
        message: `${shown(new URL(parameters.url))} did not answer within ${parameters.timeLimitSeconds} s`,
      };
    if (error instanceof RequestRefused) return permanentError(error.message);
    const code = error instanceof Error && "code" in error ? `${String(error.code)}: ` : "";
    const text = `${code}${error instanceof Error ? error.message : String(error)}`;
    const message = `${parameters.method} ${shown(new URL(parameters.url))}: ${text}`;
    // A certificate does not mend itself, nor does a file of certificates that is not there.
    return isCertificateFault(code) ? permanentError(message) : { kind: "error", message };
  }
}

/** Another try would be the same. */
class RequestRefused extends Error {}

async function follow(
  { parameters, step }: TaskContext<Parameters>,
  signal: AbortSignal,
): Promise<{ answer: HttpAnswer; url: URL }> {
  let url = new URL(parameters.url);
  let question: Omit<HttpQuestion, "url"> = firstQuestion(parameters, step.idempotencyKey, signal);
  for (let followed = 0; ; followed += 1) {
    const answer = await requestOnce({ ...question, url });
    const isWanted = parameters.expectedStatus?.includes(answer.status) === true;
    const location = REDIRECTS.has(answer.status) && !isWanted ? answer.headers.location : undefined;
    if (location === undefined || parameters.redirects === 0) return { answer, url };
    if (followed >= parameters.redirects)
      throw new RequestRefused(
        `${shown(new URL(parameters.url))} was redirected more than ${counted(parameters.redirects, "time")}`,
      );
    const next = redirectTarget(location, url);
    question = redirected(question, answer.status, next.origin === url.origin);
    url = next;
  }
}

function firstQuestion(parameters: Parameters, key: string, signal: AbortSignal): Omit<HttpQuestion, "url"> {
  const { method, body, idempotencyHeader } = parameters;
  const headers = new Map(
    Object.entries(parameters.headers).map(([name, value]) => [name.toLowerCase(), value]),
  );
  const isSafe = method === "GET" || method === "HEAD" || method === "OPTIONS";
  if (!isSafe && idempotencyHeader !== "") headers.set(idempotencyHeader.toLowerCase(), key);
  if (body !== undefined && typeof body !== "string" && !headers.has("content-type"))
    headers.set("content-type", "application/json");
  if (!headers.has("user-agent")) headers.set("user-agent", "lockstep");
  return {
    method,
    headers: Object.fromEntries(headers),
    body: body === undefined ? null : Buffer.from(typeof body === "string" ? body : JSON.stringify(body)),
    answerBytesMax: parameters.answerBytes,
    caFile: parameters.caFile ?? null,
    signal,
  };
}

function redirectTarget(location: string, from: URL): URL {
  const next = URL.parse(location, from);
  if (next === null || (next.protocol !== "http:" && next.protocol !== "https:"))
    throw new RequestRefused(`${shown(from)} redirects to what is no http address`);
  if (from.protocol === "https:" && next.protocol === "http:")
    throw new RequestRefused(`${shown(from)} redirects from https to http (${next.origin}); not followed`);
  next.username = "";
  next.password = "";
  next.hash = "";
  return next;
}

/** RFC 9110, 15.4: 303 always becomes GET, 301 and 302 do for POST, 307 and 308 repeat the request as it was. */
function redirected(
  question: Omit<HttpQuestion, "url">,
  status: number,
  isSameOrigin: boolean,
): Omit<HttpQuestion, "url"> {
  const { method } = question;
  const becomesGet = (status === 303 && method !== "HEAD") || (status < 303 && method === "POST");
  // A body may hold a password as well as a header may, and what is asked to be done may be done by somebody else.
  if (!isSameOrigin && !becomesGet && question.body !== null)
    throw new RequestRefused(`the answer ${status} sends the body to another origin; not followed`);
  const headers = Object.entries(question.headers).filter(
    ([name]) =>
      (isSameOrigin || isHarmless(name)) &&
      !(becomesGet && (name.startsWith("content-") || name === "idempotency-key")),
  );
  return {
    ...question,
    headers: Object.fromEntries(headers),
    ...(becomesGet ? { method: "GET", body: null } : {}),
  };
}

/** Whether a field may go to another origin. Any name may hold a token, so only those that cannot are let through. */
const isHarmless = (name: string) =>
  !CREDENTIALS.test(name) && /^(accept(-.*)?|user-agent|content-type|cache-control|range)$/i.test(name);

/** An address without its query, which is where tokens travel. */
const shown = (url: URL) => `${url.origin}${url.pathname}`;

function judge({ parameters, mask }: TaskContext<Parameters>, answer: HttpAnswer, url: URL): TaskResult {
  const { status } = answer;
  const isExpected = parameters.expectedStatus?.includes(status) ?? (status >= 200 && status < 300);
  const text = answer.body.toString("utf8");
  if (answer.isCut)
    return permanentError(`${shown(url)} answered ${status} with more than ${parameters.answerBytes} bytes`);
  if (!isExpected) {
    const said = mask.start(text.trim(), MESSAGE_CHARACTERS);
    return {
      kind: "error",
      message: `${parameters.method} ${shown(url)} answered ${status}${said === "" ? "" : `: ${said}`}`,
      permanent: !TEMPORARY.has(status) && !parameters.retryStatus.includes(status),
      output: { status },
    };
  }
  const output: Record<string, unknown> = { status, ...(parameters.keepBody ? { body: text } : {}) };
  const names = Object.entries(parameters.output);
  if (names.length > 0) {
    let document: unknown;
    try {
      document = JSON.parse(text);
    } catch {
      return permanentError(`${shown(url)} answered ${status}, but not with JSON`, { status });
    }
    for (const [name, pointer] of names) {
      const found = extractPointer(document, pointer);
      if (found === undefined)
        return permanentError(`${shown(url)} answered ${status} without ${pointer}`, { status });
      output[name] = found;
    }
  }
  return { kind: "success", message: `answered ${status}`, output };
}

function isCertificateFault(code: string): boolean {
  return /^(CERT_|DEPTH_ZERO|SELF_SIGNED|UNABLE_TO_|ERR_TLS_CERT|ERR_SSL|ERR_OSSL|ENOENT|EACCES|ERR_INVALID|HPE_INVALID_HEADER)/.test(
    code,
  );
}

function urlProblem(value: unknown): string | null {
  const url = URL.parse(String(value));
  if (url === null || (url.protocol !== "http:" && url.protocol !== "https:"))
    return "must be an http or https address";
  return url.username !== "" || url.password !== ""
    ? "must hold no user and password; they belong into a hidden header"
    : null;
}

function isToken(name: string): boolean {
  return /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/.test(name);
}

function headersProblem(value: unknown): string | null {
  for (const [name, text] of Object.entries(value as Record<string, string>)) {
    if (!isToken(name)) return "holds a name that is none of a header field";
    if (/[\r\n\0]/.test(text)) return `holds a line feed in ${name}`;
    if (TRANSPORT.test(name)) return `must not set ${name}; the transport does`;
  }
  return null;
}

function statusProblem(value: unknown): string | null {
  const isStatus = (each: unknown) => Number.isInteger(each) && Number(each) >= 100 && Number(each) <= 599;
  return (value as readonly unknown[]).every(isStatus) ? null : "must be a list of statuses from 100 to 599";
}

function pointersProblem(value: unknown): string | null {
  for (const [name, pointer] of Object.entries(value as Record<string, string>)) {
    const problem = pointerProblem(pointer);
    if (problem !== null) return `${problem} for ${name}`;
    if (name === "status" || name === "body") return `must not use the name ${name}, which is taken`;
  }
  return null;
}
