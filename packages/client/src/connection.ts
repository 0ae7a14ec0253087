import type { Agent, ClientRequest, IncomingMessage, OutgoingHttpHeaders, RequestOptions } from "node:http";
import { isLoopback } from "@lockstep/platform";
import { isLockstepError, LockstepError } from "@lockstep/protocol/wire";
import { answerError, connectionError, interrupted, invalidAnswer } from "./failures.ts";

/**
 * One hub over HTTP, through node:http and not through fetch: loading fetch alone costs more than a whole check.
 *
 * Connections are kept alive and reused. A reused connection that the hub has closed in the same moment fails before
 * an answer begins; such a request is sent once more on a new connection if repeating it is harmless. Nothing else is
 * retried here: when to try again is the caller's decision. Redirects are never followed, so a token goes nowhere
 * but to the hub that it was given for.
 */
export interface HubOptions {
  /** `http://host:port` or `https://host:port`, optionally with a path in front of /v1. */
  readonly url: string;
  readonly token?: string | null;
  /** Gets another token where the hub does not accept the one that there is, or asks for one; null: there is none. */
  readonly renewToken?: RenewToken | undefined;
  /** A file of certificates in PEM that are trusted instead of the machine's own. */
  readonly caFile?: string | null;
  /** How long a connection may take to come about. */
  readonly connectTimeoutMs?: number;
  /** How long nothing may arrive while something is awaited. */
  readonly idleTimeoutMs?: number;
  /** What has come passes through here before it is read on. */
  readonly throttle?: Throttle | undefined;
  /** Most connections at once. */
  readonly connectionsMax?: number;
}

/** Gets another token than the one that the hub did not accept (null: none was shown). Null: there is none. */
type RenewToken = (refused: string | null) => Promise<string | null>;

/** Decides how fast answers are read. */
export interface Throttle {
  /** Told before much is fetched; may throw. */
  admit(bytes: number): void;
  /** Told of bytes that have come; the next are read when it resolves. What it throws ends the answer. */
  take(bytes: number, signal?: AbortSignal): Promise<void>;
  /** Answers with contents that should be read at the same time. */
  readonly atOnce: number;
}

export interface RequestDescription {
  readonly method: "GET" | "POST" | "PUT" | "DELETE";
  /** Path with query, from `/v1/...`. */
  readonly path: string;
  readonly headers?: OutgoingHttpHeaders;
  /** JSON, where `headers` name nothing else. */
  readonly body?: string | Uint8Array;
  readonly signal?: AbortSignal | undefined;
  /** Added to the idle time limit: a long poll is silent on purpose. */
  readonly waitMs?: number;
  /** Sent twice it comes to the same, as a GET does. */
  readonly repeatable?: boolean;
  /** Nobody waits for what the hub says: a relay may take it and pass it on some time later. */
  readonly deferrable?: boolean;
  /** Statuses that the caller handles itself; every other one but 2xx throws. */
  readonly accept?: readonly number[];
}

const CONNECT_TIMEOUT_MS = 10_000;
const IDLE_TIMEOUT_MS = 60_000;
/**
 * A process that stood still, or whose machine did, finds its timers due before it has read what came meanwhile: so a limit
 * that has passed is one more look away from being the hub's fault.
 */
const LAST_LOOK_MS = 1_000;
/** A token that was kept may be over by now; the one after it is new. */
const RENEWALS_MAX = 2;
const ERROR_BODY_BYTES_MAX = 1024 * 1024;

/** Reads the address of a hub. Throws USAGE when it is none. */
export function parseHubUrl(text: string): URL {
  let url: URL;
  try {
    url = new URL(text.includes("://") ? text : `http://${text}`);
  } catch {
    throw new LockstepError("USAGE", `${JSON.stringify(text)} is not the address of a hub`, {
      expected: "http://HOST:PORT or https://HOST:PORT",
      found: text,
    });
  }
  if ((url.protocol !== "http:" && url.protocol !== "https:") || url.username !== "" || url.search !== "")
    throw new LockstepError("USAGE", `${JSON.stringify(text)} is not the address of a hub`, {
      expected: "http://HOST:PORT or https://HOST:PORT",
      found: text,
      hint: "Give the token by LOCKSTEP_TOKEN or a token file, never in the address.",
    });
  return url;
}

type HttpModule = { request(options: RequestOptions): ClientRequest };

export class HubConnection {
  readonly url: URL;
  readonly #options: HubOptions;
  readonly #prefix: string;
  #token: string | null;
  #http: Promise<{ module: HttpModule; agent: Agent; ca: string | undefined }> | null = null;

  constructor(options: HubOptions) {
    this.url = parseHubUrl(options.url);
    this.#options = options;
    this.#prefix = this.url.pathname.replace(/\/+$/, "");
    this.#token = options.token ?? null;
    if (this.#token !== null && this.#token !== "") this.#demandPrivate();
  }

  #demandPrivate(): void {
    if (this.url.protocol === "http:" && !isLoopback(this.url.hostname))
      throw new LockstepError("USAGE", "a token is not sent to another machine over plain HTTP", {
        expected: "https://",
        found: this.url.origin,
        hint: "Use the hub's https address, or unset the token.",
      });
  }

  get throttle(): Throttle | null {
    return this.#options.throttle ?? null;
  }

  /** Ends all idle connections. */
  async close(): Promise<void> {
    if (this.#http !== null) (await this.#http).agent.destroy();
  }

  /**
   * Sends a request and returns the answer with its body unread; the caller must read or destroy it.
   * Throws HUB_UNREACHABLE, HUB_CERTIFICATE_REFUSED, INTERRUPTED, or what the hub said.
   */
  async send(description: RequestDescription): Promise<IncomingMessage> {
    const { renewToken } = this.#options;
    for (let renewals = 0; ; renewals++) {
      const shown = this.#token;
      try {
        return await this.#sendOnce(description);
      } catch (error) {
        const asked = isLockstepError(error, "AUTHENTICATION_REQUIRED");
        if (renewToken === undefined || !asked || renewals >= RENEWALS_MAX) throw error;
        // Of several requests at once, one renews and the others go on with what it got.
        if (this.#token === shown) await this.#renew(renewToken);
        if (this.#token === shown) throw error;
      }
    }
  }

  #renewing: Promise<void> | null = null;

  async #renew(renewToken: RenewToken): Promise<void> {
    this.#demandPrivate();
    this.#renewing ??= (async () => {
      this.#token = (await renewToken(this.#token)) ?? this.#token;
    })().finally(() => {
      this.#renewing = null;
    });
    await this.#renewing;
  }

  async #sendOnce(description: RequestDescription): Promise<IncomingMessage> {
    const response = await this.#exchange(
      description,
      description.method === "GET" || description.repeatable === true,
    );
    const status = response.statusCode ?? 0;
    if ((status >= 200 && status < 300) || description.accept?.includes(status)) return response;
    throw await this.#readError(response, description);
  }

  /** Opens a request whose body the caller writes. `answer` settles when the answer's head is there. */
  async open(
    description: RequestDescription,
  ): Promise<{ request: ClientRequest; answer: Promise<IncomingMessage> }> {
    const { request, answer } = await this.#start(description);
    return {
      request,
      answer: answer.then(async (response) => {
        const status = response.statusCode ?? 0;
        if (status >= 200 && status < 300) return response;
        throw await this.#readError(response, description);
      }),
    };
  }

  /** Sends a request and reads its whole body. Throws HUB_ANSWER_INVALID when it is longer than allowed. */
  async read(
    description: RequestDescription,
    bytesMax: number,
  ): Promise<{ status: number; headers: IncomingMessage["headers"]; body: Buffer }> {
    const response = await this.send(description);
    const body = await this.readBody(response, bytesMax, description);
    return { status: response.statusCode ?? 0, headers: response.headers, body };
  }

  /** Reads the body of an answer as it travelled. */
  async readBody(
    response: IncomingMessage,
    bytesMax: number,
    description: RequestDescription,
  ): Promise<Buffer> {
    const chunks: Buffer[] = [];
    let length = 0;
    try {
      for await (const chunk of response as AsyncIterable<Buffer>) {
        length += chunk.length;
        if (length > bytesMax)
          throw invalidAnswer(
            this.url.origin,
            description.path,
            "it is longer than allowed",
            bytesMax,
            length,
          );
        await this.#options.throttle?.take(chunk.length, description.signal);
        chunks.push(chunk);
      }
    } catch (error) {
      throw this.fault(error, description.signal);
    }
    return chunks.length === 1 && chunks[0] !== undefined ? chunks[0] : Buffer.concat(chunks);
  }

  /** Reads a body piece by piece; a cut comes out as HUB_UNREACHABLE. */
  async *chunks(response: IncomingMessage, signal?: AbortSignal): AsyncGenerator<Buffer, void> {
    try {
      for await (const chunk of response as AsyncIterable<Buffer>) {
        await this.#options.throttle?.take(chunk.length, signal);
        yield chunk;
      }
    } catch (error) {
      throw this.fault(error, signal);
    } finally {
      response.destroy();
    }
  }

  /** Turns what a socket or a stream threw into an error of ours. */
  fault(error: unknown, signal?: AbortSignal): LockstepError {
    if (isLockstepError(error)) return error;
    if (signal?.aborted === true) return interrupted(signal);
    return connectionError(this.url, error);
  }

  async #readError(response: IncomingMessage, description: RequestDescription): Promise<LockstepError> {
    let body: Buffer;
    try {
      body = await this.readBody(response, ERROR_BODY_BYTES_MAX, description);
    } catch (error) {
      if (description.signal?.aborted === true) return interrupted(description.signal);
      body = Buffer.alloc(0);
      if (isLockstepError(error, "HUB_ANSWER_INVALID")) return error;
    } finally {
      response.destroy();
    }
    return answerError(this.url.origin, description.path, response, body);
  }

  async #exchange(description: RequestDescription, repeatable: boolean): Promise<IncomingMessage> {
    const { request, answer } = await this.#start(description);
    // As bytes: for a text Node takes three times its length, in case all of it were beyond ASCII.
    if (description.body === undefined) request.end();
    else request.end(Buffer.from(description.body));
    try {
      return await answer;
    } catch (error) {
      // The hub may close an idle connection just when we use it again. That says nothing about the hub.
      const stale = isLockstepError(error, "HUB_UNREACHABLE") && request.reusedSocket;
      if (!repeatable || !stale || description.signal?.aborted === true) throw error;
      return await this.#exchange(description, false);
    }
  }

  async #load(): Promise<{ module: HttpModule; agent: Agent; ca: string | undefined }> {
    const agentOptions = {
      keepAlive: true,
      maxSockets: this.#options.connectionsMax ?? 8,
      // Fewer than the hub's own limit, so that we rather than it drop an idle connection.
      keepAliveMsecs: 1000,
      scheduling: "lifo",
    } as const;
    if (this.url.protocol === "http:") {
      // Not imported: the names of a module are all looked up then, and one of them loads a whole second client.
      const http = process.getBuiltinModule("node:http");
      return { module: http, agent: new http.Agent(agentOptions), ca: undefined };
    }
    const https = process.getBuiltinModule("node:https");
    const { caFile } = this.#options;
    const ca = caFile ? (await import("./authorities.ts")).readAuthorities(caFile) : undefined;
    return { module: https, agent: new https.Agent(agentOptions), ca };
  }

  async #start(
    description: RequestDescription,
  ): Promise<{ request: ClientRequest; answer: Promise<IncomingMessage> }> {
    if (description.signal?.aborted === true) throw interrupted(description.signal);
    this.#http ??= this.#load();
    const { module, agent, ca } = await this.#http;
    const headers: OutgoingHttpHeaders = { ...description.headers };
    if (this.#token) headers.authorization = `Bearer ${this.#token}`;
    if (description.body !== undefined) {
      headers["content-type"] ??= "application/json";
      headers["content-length"] = Buffer.byteLength(description.body);
    }
    const request = module.request({
      protocol: this.url.protocol,
      hostname: this.url.hostname.replace(/^\[|\]$/g, ""),
      port: this.url.port === "" ? (this.url.protocol === "http:" ? 80 : 443) : this.url.port,
      method: description.method,
      path: this.#prefix + description.path,
      headers,
      agent,
      ...(ca === undefined ? {} : { ca }),
      ...(description.signal === undefined ? {} : { signal: description.signal }),
    } as RequestOptions);
    // It stays open without saying so, in HTTP/1.1.
    request.removeHeader("connection");
    const idleMs = (this.#options.idleTimeoutMs ?? IDLE_TIMEOUT_MS) + (description.waitMs ?? 0);
    const answer = new Promise<IncomingMessage>((resolve, reject) => {
      const connectMs = this.#options.connectTimeoutMs ?? CONNECT_TIMEOUT_MS;
      let isConnected = false;
      const late = () => {
        if (!isConnected) request.destroy(timeout("connecting took", connectMs));
      };
      let connecting = setTimeout(() => {
        connecting = setTimeout(() => setImmediate(late), LAST_LOOK_MS);
      }, connectMs);
      const ready = () => {
        isConnected = true;
        clearTimeout(connecting);
      };
      request.once("socket", (socket) => {
        if (request.reusedSocket) ready();
        else socket.once(this.url.protocol === "https:" ? "secureConnect" : "connect", ready);
      });
      this.#endWhenSilent(request, idleMs);
      request.once("response", (response) => {
        ready();
        resolve(response);
      });
      // Stays for the life of the request: an error after the answer began comes out of the body as well.
      request.on("error", (error) => {
        ready();
        reject(this.fault(error, description.signal));
      });
    });
    answer.catch(() => {}); // An upload may fail before anyone awaits its answer; who awaits it still gets the error.
    return { request, answer };
  }

  #endWhenSilent(request: ClientRequest, idleMs: number): void {
    request.setTimeout(idleMs);
    request.once("socket", (socket) => {
      const passed = () => socket.bytesRead + socket.bytesWritten;
      let looking: NodeJS.Timeout | undefined;
      const look = () => {
        const before = passed();
        const late = () => {
          if (passed() === before) request.destroy(timeout("nothing arrived for", idleMs));
        };
        clearTimeout(looking);
        looking = setTimeout(() => setImmediate(late), LAST_LOOK_MS);
      };
      // The socket's own: a request tells of its first silence alone, and that one may have ended at the last look.
      socket.on("timeout", look);
      request.once("close", () => {
        clearTimeout(looking);
        socket.off("timeout", look);
      });
    });
  }
}

function timeout(what: string, ms: number): Error {
  return Object.assign(new Error(`${what} ${ms / 1000} s`), { code: "ETIMEDOUT" });
}
