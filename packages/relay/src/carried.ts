import { createHash, timingSafeEqual } from "node:crypto";
import { readFile, stat } from "node:fs/promises";
import type { IncomingMessage } from "node:http";
import { join } from "node:path";
import { type Clock, readingToken } from "@lockstep/platform";
import { LockstepError } from "@lockstep/protocol/wire";
import type { Upstream } from "./upstream.ts";

/**
 * What a bundle brought, in the place of a hub: the signed documents and the number of the revision. The objects are in the
 * cache already; what is not there is nowhere.
 *
 * One file that is replaced as a whole says what counts, so a relay that serves changes from one bundle to the next at once.
 */
export interface CarriedState {
  readonly format: "lockstep-carried/1";
  readonly revision: number;
  readonly semaphore: string;
  /** By name, base64. */
  readonly documents: Readonly<Record<string, string>>;
  readonly log: { readonly epoch: number; readonly entries: readonly unknown[] };
}

export const CARRIED_FILE = "carried.json";
const LOOK_MS = 200;

export class CarriedHub implements Upstream {
  readonly #file: string;
  readonly #token: string | null;
  readonly #clock: Clock;
  #state: { readonly look: string; readonly value: CarriedState } | null = null;

  /** `token` null: whoever comes from this machine. */
  constructor(directory: string, token: string | null, clock: Clock) {
    this.#file = join(directory, CARRIED_FILE);
    this.#token = token;
    this.#clock = clock;
  }

  async read(
    description: Parameters<Upstream["read"]>[0],
  ): Promise<{ status: number; headers: IncomingMessage["headers"]; body: Buffer }> {
    const url = new URL(description.path, "http://carried");
    if (url.pathname === "/v1/revision") return await this.#semaphore(url, description);
    this.#demandToken(description.headers?.authorization);
    const state = await this.#read();
    const log = /^\/v1\/trust\/log\/(\d+)$/.exec(url.pathname);
    if (log !== null && Number(log[1]) === state.log.epoch) {
      const [after, to] = [Number(url.searchParams.get("after")), Number(url.searchParams.get("to"))];
      return answer(200, JSON.stringify({ entries: state.log.entries.slice(after, to) }));
    }
    const name = /^\/v1\/trust\/([A-Za-z0-9.]+)$/.exec(url.pathname)?.[1] ?? "";
    const text = Object.hasOwn(state.documents, name) ? state.documents[name] : undefined;
    if (text === undefined) throw absent(url.pathname);
    return answer(200, Buffer.from(text, "base64"));
  }

  send(description: Parameters<Upstream["send"]>[0]): Promise<IncomingMessage> {
    return Promise.reject(absent(description.path));
  }

  async *chunks(): AsyncGenerator<Buffer, void> {
    // Nothing ever begins to come.
  }

  async #semaphore(
    url: URL,
    { signal }: Parameters<Upstream["read"]>[0],
  ): Promise<{ status: number; headers: IncomingMessage["headers"]; body: Buffer }> {
    const after = url.searchParams.get("after");
    const until = this.#clock.monotonic() + Number(url.searchParams.get("wait") ?? 0) * 1000;
    for (;;) {
      const { revision, semaphore } = await this.#read();
      const waits = after !== null && Number(after) === revision && this.#clock.monotonic() < until;
      if (!waits || signal?.aborted === true) return answer(200, semaphore);
      await this.#clock.sleep(LOOK_MS, signal);
    }
  }

  async #read(): Promise<CarriedState> {
    const found = await stat(this.#file).catch(() => null);
    if (found === null)
      throw new LockstepError("REVISION_UNKNOWN", "no bundle was imported here yet", {
        hint: "lockstep bundle import FILE --data DIR",
      });
    const look = `${found.ino} ${found.size} ${found.ctimeMs}`;
    if (this.#state?.look !== look) {
      const value = JSON.parse(await readFile(this.#file, "utf8")) as CarriedState;
      this.#state = { look, value };
    }
    return this.#state.value;
  }

  #demandToken(authorization: string | number | readonly string[] | undefined): void {
    if (this.#token === null || authorization === undefined) return;
    const given = digest(String(authorization));
    const known = [this.#token, readingToken(this.#token)].some((token) =>
      timingSafeEqual(given, digest(`Bearer ${token}`)),
    );
    if (known) return;
    throw new LockstepError("AUTHENTICATION_FAILED", "the relay does not accept this token", {
      expected: "the token of the file `token` in the relay's data directory",
      found: "another token",
    });
  }
}

function digest(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}

function answer(status: number, body: string | Buffer) {
  return { status, headers: { "content-type": "application/json" }, body: Buffer.from(body) };
}

function absent(path: string): LockstepError {
  return new LockstepError("NOT_FOUND", "the bundle that was imported does not hold this", {
    found: path.split("?", 1)[0] ?? "",
    hint: "Export a bundle of the current revision, without --from for new installations.",
  });
}
