import { createHash } from "node:crypto";
import { readFile, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Clock } from "@lockstep/platform";
import { isLockstepError } from "@lockstep/protocol/wire";

/**
 * Who may read what is kept here: whoever the hub has let read.
 *
 * A relay has no list of its own and no token of its own. A request's token is shown to the hub before anything that is
 * kept is given for it, and again every hour; the hub refuses it: so does the relay, at once. While the hub is away a token
 * that it accepted within the last week still counts. Only digests are kept.
 */
export class Admission {
  readonly #path: string;
  readonly #clock: Clock;
  readonly #ask: (authorization: string | undefined) => Promise<unknown>;
  readonly #accepted: Map<string, number>;
  readonly #asking = new Map<string, Promise<void>>();

  private constructor(
    path: string,
    accepted: Map<string, number>,
    clock: Clock,
    ask: (authorization: string | undefined) => Promise<unknown>,
  ) {
    this.#path = path;
    this.#accepted = accepted;
    this.#clock = clock;
    this.#ask = ask;
  }

  /** `ask` puts a request to the hub that needs the token; what it throws is the hub's refusal. */
  static async open(
    directory: string,
    clock: Clock,
    ask: (authorization: string | undefined) => Promise<unknown>,
  ): Promise<Admission> {
    const path = join(directory, "accepted.json");
    return new Admission(path, await readAccepted(path), clock, ask);
  }

  /** Returns when whoever sends this header may read. Throws AUTHENTICATION_* and HUB_UNREACHABLE. */
  async demand(authorization: string | undefined): Promise<void> {
    const key = createHash("sha256")
      .update(authorization ?? "")
      .digest("hex");
    const now = this.#clock.now();
    const at = this.#accepted.get(key) ?? Number.NEGATIVE_INFINITY;
    if (Math.abs(now - at) < ASK_AGAIN_MS) return;
    let asking = this.#asking.get(key);
    if (asking === undefined) {
      asking = this.#verify(key, authorization).finally(() => this.#asking.delete(key));
      this.#asking.set(key, asking);
    }
    try {
      await asking;
    } catch (error) {
      const away = isLockstepError(error, "HUB_UNREACHABLE", "HUB_BUSY", "HUB_INTERNAL");
      if (!away || Math.abs(now - at) >= AWAY_MS) throw error;
    }
  }

  async #verify(key: string, authorization: string | undefined): Promise<void> {
    try {
      await this.#ask(authorization);
    } catch (error) {
      if (isLockstepError(error, "AUTHENTICATION_FAILED", "AUTHENTICATION_REQUIRED")) {
        if (this.#accepted.delete(key)) await this.#write();
      }
      throw error;
    }
    this.#accepted.delete(key);
    this.#accepted.set(key, this.#clock.now());
    const [oldest] = this.#accepted.keys();
    if (this.#accepted.size > ACCEPTED_MAX && oldest !== undefined) this.#accepted.delete(oldest);
    await this.#write();
  }

  async #write(): Promise<void> {
    const temporary = `${this.#path}.new`;
    // It saves one question after a restart; whoever cannot write it asks.
    await writeFile(temporary, JSON.stringify(Object.fromEntries(this.#accepted)), { mode: 0o600 })
      .then(() => rename(temporary, this.#path))
      .catch(() => undefined);
  }
}

const ASK_AGAIN_MS = 3_600_000;
const AWAY_MS = 7 * 86_400_000;
const ACCEPTED_MAX = 10_000;

async function readAccepted(path: string): Promise<Map<string, number>> {
  try {
    const found: unknown = JSON.parse(await readFile(path, "utf8"));
    const entries = Object.entries(found ?? {}).filter(
      (entry): entry is [string, number] => typeof entry[1] === "number",
    );
    return new Map(entries);
  } catch {
    return new Map();
  }
}
