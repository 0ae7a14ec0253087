import type { IncomingMessage } from "node:http";
import { readingToken } from "@lockstep/platform";
import { isLockstepError, LockstepError } from "@lockstep/protocol/wire";
import { checkSemaphore } from "./answers.ts";
import { HubConnection, type HubOptions, type RequestDescription } from "./connection.ts";
import { interrupted } from "./failures.ts";

/**
 * A hub with a relay in front of it: what many installations of a site ask for is asked of the relay first, everything
 * else of the hub, and whatever the relay does not give well, of the hub as well.
 *
 * A relay is nobody to rely on. It gets a token that can only read, never the hub's own. What comes from it is held
 * against signatures and digests by whoever asked for it, like everything that comes over a network; where it is wrong,
 * late or missing, the relay is left for ten minutes, which is longer than nearly every update takes.
 */
export class RelayedConnection extends HubConnection {
  readonly #relay: HubConnection;
  readonly #answers = new WeakSet<IncomingMessage>();
  #leftBecause: string | null = null;
  #leftAt = 0;

  constructor(options: HubOptions, relay: string) {
    super(options);
    this.#relay = new HubConnection({
      ...options,
      url: relay,
      // A session of the installation is for the hub alone: with it a relay could report in its name.
      renewToken: undefined,
      token: options.token ? readingToken(options.token) : null,
      // It stands in the same house.
      connectTimeoutMs: Math.min(options.connectTimeoutMs ?? CONNECT_TIMEOUT_MS, CONNECT_TIMEOUT_MS),
    });
  }

  /** Why the relay was left last, where it was. */
  get remarks(): readonly string[] {
    return this.#leftBecause === null ? [] : [this.#leftBecause];
  }

  /** Asks the relay no more. True where that changes anything, so that the same may be tried again. */
  leave(reason: unknown): boolean {
    if (this.#isLeft()) return false;
    const text = isLockstepError(reason) ? `${reason.code}: ${reason.message}` : String(reason);
    this.#leftBecause = `the relay ${this.#relay.url.origin} was left for the hub: ${text}`;
    this.#leftAt = performance.now();
    return true;
  }

  #isLeft(): boolean {
    return this.#leftBecause !== null && performance.now() - this.#leftAt < LEFT_MS;
  }

  override async close(): Promise<void> {
    await Promise.all([super.close(), this.#relay.close()]);
  }

  override async send(description: RequestDescription): Promise<IncomingMessage> {
    if (!this.#asks(description)) return await super.send(description);
    try {
      const response = await this.#relay.send(description);
      this.#answers.add(response);
      return response;
    } catch (error) {
      this.#judge(error, description);
      return await super.send(description);
    }
  }

  override async read(
    description: RequestDescription,
    bytesMax: number,
  ): Promise<{ status: number; headers: IncomingMessage["headers"]; body: Buffer }> {
    if (!this.#asks(description)) return await super.read(description, bytesMax);
    try {
      const answer = await this.#relay.read(forRelay(description), bytesMax);
      if (SEMAPHORE.test(description.path) && answer.status === 200) this.#demandSemaphore(answer.body);
      return answer;
    } catch (error) {
      this.#judge(error, description);
    }
    const response = await super.send(description);
    const body = await this.readBody(response, bytesMax, description);
    return { status: response.statusCode ?? 0, headers: response.headers, body };
  }

  override chunks(response: IncomingMessage, signal?: AbortSignal): AsyncGenerator<Buffer, void> {
    return this.#answers.has(response) ? this.#paced(response, signal) : super.chunks(response, signal);
  }

  /** A relay that gives a byte now and then must not hold anybody up: the hub is there, too. */
  async *#paced(response: IncomingMessage, signal: AbortSignal | undefined): AsyncGenerator<Buffer, void> {
    let window = 0;
    const watch = setInterval(() => {
      // What nobody takes is not the relay's fault.
      if (window < PACE_BYTES_MIN && response.readableLength === 0)
        response.destroy(Object.assign(new Error("it sends too slowly"), { code: "ETIMEDOUT" }));
      window = 0;
    }, PACE_WINDOW_MS);
    watch.unref();
    try {
      for await (const chunk of this.#relay.chunks(response, signal)) {
        window += chunk.length;
        yield chunk;
      }
    } finally {
      clearInterval(watch);
    }
  }

  /** Whatever stands between, a page that asks for a login or worse: it must not keep an installation from its hub. */
  #demandSemaphore(body: Buffer): void {
    let fault = "no JSON";
    try {
      const checked = checkSemaphore(JSON.parse(body.toString("utf8")));
      if ("value" in checked) return;
      fault = checked.fault;
    } catch {
      // It stays what it is.
    }
    throw new LockstepError("HUB_ANSWER_INVALID", `${this.#relay.url.origin} gives no software revision`, {
      expected: "a semaphore",
      found: fault,
    });
  }

  #asks({ method, path }: RequestDescription): boolean {
    return !this.#isLeft() && RELAYED.some((each) => each.test(`${method} ${path}`));
  }

  /** Throws what ends the request; else the hub is asked. */
  #judge(error: unknown, { signal, path }: RequestDescription): void {
    if (signal?.aborted === true) throw interrupted(signal);
    if (!(error instanceof LockstepError)) throw error;
    // A step that is being made will be there once for all, if everybody waits for it where it is kept.
    if (error.code === "HUB_BUSY" && path.startsWith("/v1/steps/")) throw error;
    if (!isLockstepError(error, "HUB_BUSY", "NOT_FOUND", "STEP_NONE", "REVISION_UNKNOWN", "FILE_UNKNOWN"))
      this.leave(error);
  }
}

/** A relay of an older version answers when the hub has. */
function forRelay(description: RequestDescription): RequestDescription {
  if (description.deferrable !== true) return description;
  return { ...description, headers: { ...description.headers, prefer: "respond-async" } };
}

const CONNECT_TIMEOUT_MS = 3_000;
const LEFT_MS = 600_000;
const PACE_WINDOW_MS = 30_000;
const PACE_BYTES_MIN = 16 * 1024;

const SEMAPHORE = /^\/v1\/revision(\?|$)/;

/** What a relay is for. Not the question for an order: that there is none is believed of the hub alone. */
const RELAYED = [
  /^GET \/v1\/revision(\?|$)/,
  /^GET \/v1\/revisions\/\d+$/,
  /^GET \/v1\/trust\//,
  /^GET \/v1\/manifests\//,
  /^GET \/v1\/files\/sha256\//,
  /^GET \/v1\/steps\//,
  /^POST \/v1\/bundle$/,
  /^PUT \/v1\/installations\/[^/?]+$/,
];
