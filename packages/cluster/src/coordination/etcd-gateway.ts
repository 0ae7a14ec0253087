import type { IncomingMessage } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import { LockstepError } from "@lockstep/protocol/wire";
import { askBeside, HEDGE_MS, type Standing } from "./etcd-hedge.ts";
import { type EtcdTls, EtcdTransport, readText } from "./etcd-transport.ts";
import { member, termOf } from "./etcd-values.ts";

/**
 * The little of etcd's JSON gateway that we need, over HTTP.
 *
 * No client package: the usual one counts a lease from the answer and tells of its loss a lease time late. Here every
 * call has one time limit, and nothing that changes anything is sent twice unless it never left, or was turned away at the
 * door, or is a compare and swap of a lease (etcd-hedge.ts). A member that does not answer is passed over by the next
 * call; the first one in the list, which should be the local one, is tried again after a while.
 *
 * Where the store asks for a login, its token is fetched by the first call and renewed when a member says that it ran
 * out; a request with a token that is refused was not looked at, so it may be sent again.
 */
export interface EtcdOptions {
  /** `http://127.0.0.1:2379`; the member on this machine first. */
  readonly endpoints: readonly string[];
  /** The time limit of one call. */
  readonly callMs: number;
  readonly tls?: EtcdTls | null;
  readonly login?: EtcdLogin | null;
  /** Milliseconds of a clock that only grows. */
  readonly monotonic: () => number;
}

export interface EtcdLogin {
  readonly user: string;
  readonly password: string;
}

/** How long a member that failed is passed over. */
const PASSED_OVER_MS = 5_000;
/** How long after any failure the member that answered last goes first: a dead one costs each call that tries it anew. */
const TROUBLED_MS = 15_000;
/** What one answer may need: a page of documents in base64. */
const ANSWER_BYTES_MAX = 64 * 1024 * 1024;

class TokenRefused extends Error {}
/** An answer that is none: no leader yet, or another one just now. */
class NotYet extends Error {}

export class EtcdGateway {
  readonly #options: EtcdOptions;
  readonly #transport: EtcdTransport;
  readonly #failedAt = new Map<string, number>();
  readonly #answeredAt = new Map<string, number>();
  #answeredLast: string | null = null;
  #troubledAt = Number.NEGATIVE_INFINITY;
  #token: Promise<string> | null = null;
  #term = 0;

  constructor(options: EtcdOptions) {
    if (options.endpoints.length === 0) throw new RangeError("etcd needs at least one endpoint");
    this.#options = options;
    this.#transport = new EtcdTransport(options.tls ?? null);
  }

  close(): void {
    this.#transport.close();
  }

  get standing(): Standing {
    return { term: this.#term, first: this.#inOrder()[0] ?? "" };
  }

  /** For calls that share one time. */
  limit(): AbortSignal {
    return AbortSignal.timeout(this.#options.callMs);
  }

  /**
   * One request and its JSON answer. Throws COORDINATION_UNREACHABLE: whether it happened is unknown; and
   * COORDINATION_REFUSED: the store does not let us in, and nothing happened.
   */
  call(path: string, body: unknown, limit: AbortSignal = this.limit()): Promise<unknown> {
    return this.#loggedIn(limit, (headers) => this.#send(path, body, headers, limit));
  }

  /** A question that changes nothing: other members are asked beside one that does not answer soon. Throws as `call`. */
  ask(path: string, body: unknown, limit = this.limit(), hedgeMs = HEDGE_MS): Promise<unknown> {
    return this.#loggedIn(limit, (headers) => this.#askBeside(path, body, headers, limit, hedgeMs));
  }

  async #loggedIn(
    limit: AbortSignal,
    send: (headers: Readonly<Record<string, string>>) => Promise<unknown>,
  ): Promise<unknown> {
    for (let tries = 1; ; tries++) {
      try {
        return await send(await this.#headers(limit));
      } catch (error) {
        if (!(error instanceof TokenRefused)) throw error;
        this.#token = null;
        // A member that lags behind learns of a login later than the one that answered to it.
        const isLate = TOKEN_UNKNOWN.test(error.message) && !limit.aborted;
        if (this.#options.login == null || (tries > 1 && !isLate)) throw refused(error.message);
        if (tries > 1) await sleep(LOGIN_AGAIN_MS);
      }
    }
  }

  /** A request whose answer is a stream of JSON values, one a line. Ends with the stream; throws as `call` does. */
  async *stream(path: string, body: unknown, signal: AbortSignal): AsyncGenerator<unknown, void, void> {
    const [endpoint = ""] = this.#inOrder();
    try {
      const headers = await this.#headers(
        AbortSignal.any([signal, AbortSignal.timeout(this.#options.callMs)]),
      );
      const response = await this.#transport.post(
        new URL(path, endpoint),
        JSON.stringify(body),
        headers,
        signal,
      );
      if (!isGood(response)) {
        response.resume();
        throw new Error(`HTTP ${response.statusCode}`);
      }
      let rest = "";
      const decoder = new TextDecoder();
      for await (const chunk of response as AsyncIterable<Buffer>) {
        const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
        rest = lines.pop() ?? "";
        for (const line of lines) if (line.trim() !== "") yield parse(line, endpoint);
      }
    } catch (cause) {
      if (signal.aborted) return;
      if (cause instanceof LockstepError) throw cause;
      this.#failed(endpoint);
      throw unreachable([endpoint], cause);
    }
  }

  /** A stream was turned away; the next call fetches a new token. */
  forgetToken(): void {
    this.#token = null;
  }

  async #headers(limit: AbortSignal): Promise<Readonly<Record<string, string>>> {
    const { login } = this.#options;
    if (login == null) return {};
    const token = this.#token ?? this.#logIn(login, limit);
    this.#token = token;
    try {
      return { authorization: await token };
    } catch (error) {
      // Whoever comes next tries anew.
      if (this.#token === token) this.#token = null;
      throw error;
    }
  }

  async #logIn({ user, password }: EtcdLogin, limit: AbortSignal): Promise<string> {
    try {
      const answer = await this.#send("/v3/auth/authenticate", { name: user, password }, {}, limit);
      const token = member(answer, "token");
      if (typeof token === "string") return token;
    } catch (error) {
      if (error instanceof TokenRefused) throw refused(error.message);
      throw error;
    }
    throw refused("no token was given");
  }

  async #send(
    path: string,
    body: unknown,
    headers: Readonly<Record<string, string>>,
    limit: AbortSignal,
  ): Promise<unknown> {
    const tried: string[] = [];
    const text = JSON.stringify(body);
    for (const endpoint of this.#inOrder()) {
      tried.push(endpoint);
      const sentAt = this.#options.monotonic();
      try {
        return await this.#post(endpoint, path, text, headers, limit);
      } catch (cause) {
        if (cause instanceof LockstepError || cause instanceof TokenRefused) throw cause;
        if (limit.aborted) this.#hung(endpoint, sentAt);
        else this.#failed(endpoint);
        // Only what never left may be sent to another member within the same call.
        if (!neverLeft(cause) || limit.aborted)
          throw unreachable(tried, limit.aborted ? limit.reason : cause);
      }
    }
    throw unreachable(tried, new Error("no member accepts connections"));
  }

  async #askBeside(
    path: string,
    body: unknown,
    headers: Readonly<Record<string, string>>,
    limit: AbortSignal,
    hedgeMs: number,
  ): Promise<unknown> {
    const text = JSON.stringify(body);
    const members = this.#inOrder();
    const began = this.#options.monotonic();
    const ask = async (endpoint: string, signal: AbortSignal) => {
      const sentAt = this.#options.monotonic();
      try {
        return await this.#post(endpoint, path, text, headers, signal);
      } catch (cause) {
        if (limit.aborted) this.#hung(endpoint, sentAt);
        // One that was aborted because another one answered has not failed.
        else if (!isFinal(cause) && !signal.aborted) this.#failed(endpoint);
        throw cause;
      }
    };
    try {
      return await askBeside(members, ask, {
        silent: (endpoint) => this.#hung(endpoint, began),
        judge: (error) => (isFinal(error) ? "final" : error instanceof NotYet ? "again" : "next"),
        signal: limit,
        hedgeMs,
        monotonic: this.#options.monotonic,
      });
    } catch (cause) {
      if (isFinal(cause)) throw cause;
      throw unreachable(members, limit.aborted ? limit.reason : cause);
    }
  }

  /** Throws TokenRefused, NotYet, COORDINATION_ANSWER_INVALID or the system's error. */
  async #post(
    endpoint: string,
    path: string,
    text: string,
    headers: Readonly<Record<string, string>>,
    signal: AbortSignal,
  ): Promise<unknown> {
    const response = await this.#transport.post(new URL(path, endpoint), text, headers, signal);
    const answer = await readText(response, ANSWER_BYTES_MAX);
    if (isGood(response)) {
      this.#failedAt.delete(endpoint);
      this.#answeredAt.set(endpoint, this.#options.monotonic());
      this.#answeredLast = endpoint;
      const value = parse(answer, endpoint);
      this.#term = Math.max(this.#term, termOf(value));
      return value;
    }
    if (TURNED_AWAY.test(answer)) throw new TokenRefused(messageOf(answer));
    const said = `HTTP ${response.statusCode}: ${answer.slice(0, 200)}`;
    throw response.statusCode === 503 ? new NotYet(said) : new Error(said);
  }

  /** Told late, when its time is over: a member that has answered since is not passed over. */
  #hung(endpoint: string, sentAt: number): void {
    if ((this.#answeredAt.get(endpoint) ?? Number.NEGATIVE_INFINITY) < sentAt) this.#failed(endpoint);
  }

  #failed(endpoint: string): void {
    this.#troubledAt = this.#options.monotonic();
    this.#failedAt.set(endpoint, this.#troubledAt);
  }

  /** Those that failed lately last, the longest ago first; in troubled times the one that answered last before all. */
  #inOrder(): string[] {
    const now = this.#options.monotonic();
    const first = now - this.#troubledAt > TROUBLED_MS ? null : this.#answeredLast;
    const failedAt = (endpoint: string) => {
      const at = this.#failedAt.get(endpoint);
      return at === undefined || now - at > PASSED_OVER_MS ? Number.NEGATIVE_INFINITY : at;
    };
    return [...this.#options.endpoints].sort((a, b) => {
      const [x, y] = [failedAt(a), failedAt(b)];
      return x === y ? Number(b === first) - Number(a === first) : x - y;
    });
  }
}

/** How a member says that it looks at nothing of ours before we have logged in, anew, or with other rights. */
const TURNED_AWAY =
  /invalid auth token|revision of auth store is old|user name is empty|authentication failed|permission denied|authentication is not enabled/;

/** Of these, what another login mends. */
const TOKEN_UNKNOWN = /invalid auth token|revision of auth store is old/;
const LOGIN_AGAIN_MS = 50;

const isFinal = (error: unknown) => error instanceof LockstepError || error instanceof TokenRefused;

const isGood = ({ statusCode = 0 }: IncomingMessage) => statusCode >= 200 && statusCode < 300;

function messageOf(answer: string): string {
  try {
    const said = member(JSON.parse(answer), "error") ?? member(JSON.parse(answer), "message");
    if (typeof said === "string") return said.slice(0, 200);
  } catch {
    // Shown as it came.
  }
  return answer.slice(0, 200);
}

function parse(text: string, endpoint: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new LockstepError("COORDINATION_ANSWER_INVALID", `${endpoint} does not answer as etcd does`, {
      found: text.slice(0, 100),
      hint: "The endpoints must be those of etcd's client interface, with its JSON gateway switched on.",
      cause,
    });
  }
}

function unreachable(tried: readonly string[], cause: unknown): LockstepError {
  return new LockstepError("COORDINATION_UNREACHABLE", "the coordination store does not answer", {
    found: tried.join(", "),
    hint: "Look whether most of its members run and reach each other.",
    cause,
  });
}

function refused(found: string): LockstepError {
  return new LockstepError("COORDINATION_REFUSED", "the coordination store does not let this node in", {
    found,
    hint: "Look at the user and the password file of [coordination], and at the rights of that user below the prefix.",
  });
}

/** Refused connections and unknown hosts: nobody has seen the request. */
function neverLeft(cause: unknown): boolean {
  for (let error = cause; error instanceof Error; error = error.cause) {
    if (
      "code" in error &&
      ["ECONNREFUSED", "ENOTFOUND", "EHOSTUNREACH", "ENETUNREACH"].includes(String(error.code))
    )
      return true;
  }
  return false;
}
