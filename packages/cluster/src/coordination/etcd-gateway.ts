import { LockstepError } from "@lockstep/protocol/wire";

/**
 * The little of etcd's JSON gateway that we need, through fetch.
 *
 * No client package: the usual one counts a lease from the answer and tells of its loss a lease time late. Here every
 * call has one time limit, and nothing is sent twice unless it never left. A member that does not answer is passed over
 * by the next call; the first one in the list, which should be the local one, is tried again after a while.
 */
export interface EtcdOptions {
  /** `http://127.0.0.1:2379`; the member on this machine first. */
  readonly endpoints: readonly string[];
  /** The time limit of one call. */
  readonly callMs: number;
  /** Sent with each request, for a gateway behind a proxy or with authentication. */
  readonly headers?: Readonly<Record<string, string>>;
  /** Milliseconds of a clock that only grows. */
  readonly monotonic: () => number;
}

/** How long a member that failed is passed over. */
const PASSED_OVER_MS = 5_000;

export class EtcdGateway {
  readonly #options: EtcdOptions;
  readonly #failedAt = new Map<string, number>();

  constructor(options: EtcdOptions) {
    if (options.endpoints.length === 0) throw new RangeError("etcd needs at least one endpoint");
    this.#options = options;
  }

  /** One request and its JSON answer. Throws COORDINATION_UNREACHABLE: whether it happened is unknown. */
  async call(path: string, body: unknown): Promise<unknown> {
    const limit = AbortSignal.timeout(this.#options.callMs);
    const tried: string[] = [];
    for (const endpoint of this.#inOrder()) {
      tried.push(endpoint);
      try {
        const response = await this.#post(endpoint, path, body, limit);
        const text = await response.text();
        if (response.ok) {
          this.#failedAt.delete(endpoint);
          return parse(text, endpoint);
        }
        throw new Error(`HTTP ${response.status}: ${text.slice(0, 200)}`);
      } catch (cause) {
        if (cause instanceof LockstepError) throw cause;
        this.#failedAt.set(endpoint, this.#options.monotonic());
        // Only what never left may be sent to another member within the same call.
        if (!neverLeft(cause) || limit.aborted) throw unreachable(tried, cause);
      }
    }
    throw unreachable(tried, new Error("no member accepts connections"));
  }

  /** A request whose answer is a stream of JSON values, one a line. Ends with the stream; throws as `call` does. */
  async *stream(path: string, body: unknown, signal: AbortSignal): AsyncGenerator<unknown, void, void> {
    const [endpoint = ""] = this.#inOrder();
    try {
      const response = await this.#post(endpoint, path, body, signal);
      if (!response.ok || response.body === null) throw new Error(`HTTP ${response.status}`);
      let rest = "";
      const decoder = new TextDecoder();
      for await (const chunk of response.body) {
        const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
        rest = lines.pop() ?? "";
        for (const line of lines) if (line.trim() !== "") yield parse(line, endpoint);
      }
    } catch (cause) {
      if (signal.aborted) return;
      if (cause instanceof LockstepError) throw cause;
      this.#failedAt.set(endpoint, this.#options.monotonic());
      throw unreachable([endpoint], cause);
    }
  }

  /** Those that failed lately last, the longest ago first. */
  #inOrder(): string[] {
    const now = this.#options.monotonic();
    const failedAt = (endpoint: string) => {
      const at = this.#failedAt.get(endpoint);
      return at === undefined || now - at > PASSED_OVER_MS ? Number.NEGATIVE_INFINITY : at;
    };
    return [...this.#options.endpoints].sort((a, b) => {
      const [x, y] = [failedAt(a), failedAt(b)];
      return x === y ? 0 : x - y;
    });
  }

  #post(endpoint: string, path: string, body: unknown, signal: AbortSignal): Promise<Response> {
    return fetch(new URL(path, endpoint), {
      method: "POST",
      headers: { "content-type": "application/json", ...this.#options.headers },
      body: JSON.stringify(body),
      signal,
      redirect: "error",
    });
  }
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
