import type { HubClient } from "@lockstep/client";
import type { Clock } from "@lockstep/platform";
import { isLockstepError } from "@lockstep/protocol/wire";
import { throwIfInterrupted } from "./interruption.ts";

/**
 * Trying again while a transfer gets on. A bad link may cut a hundred times as long as each try brings something;
 * without progress the pauses double, and after a handful of tries the error is the reader's.
 *
 * Where a relay stands before the hub, what is wrong and what does not get on is tried once more with the hub itself.
 */
type RelayedClient = Pick<HubClient, "leaveRelay" | "relayRemarks">;

const TRIES_WITHOUT_PROGRESS_MAX = 6;
const RELAY_TRIES_MAX = 2;
const FIRST_PAUSE_MS = 500;
const RETRY_AFTER_MS_MAX = 60_000;

export class Persistence {
  readonly #clock: Clock;
  readonly #signal: AbortSignal | undefined;
  readonly #client: RelayedClient;
  #idleTries = 0;
  #left = false;

  constructor(clock: Clock, signal: AbortSignal | undefined, client: RelayedClient) {
    this.#clock = clock;
    this.#signal = signal;
    this.#client = client;
  }

  /** Something arrived. */
  progress(): void {
    this.#idleTries = 0;
  }

  /** Waits before the next try, or throws the error when trying on makes no sense. */
  async after(error: unknown): Promise<void> {
    throwIfInterrupted(this.#signal);
    const passing = isLockstepError(error, "HUB_UNREACHABLE", "HUB_BUSY", "HUB_INTERNAL");
    if (isLockstepError(error) && (!passing || this.#idleTries + 1 >= RELAY_TRIES_MAX)) {
      const own = error.code.startsWith("INSTALLATION_") || error.code === "UPDATE_POSTPONED";
      if (!own && this.#leavesRelay(error)) {
        this.#idleTries = 0;
        return;
      }
    }
    if (!passing) throw error;
    this.#idleTries++;
    if (this.#idleTries >= TRIES_WITHOUT_PROGRESS_MAX) throw error;
    const pause = FIRST_PAUSE_MS * 2 ** (this.#idleTries - 1);
    const asked = Math.min((error.retryAfterSeconds ?? 0) * 1000, RETRY_AFTER_MS_MAX);
    await this.#clock.sleep(Math.max(pause, asked), this.#signal);
    throwIfInterrupted(this.#signal);
  }

  /** Once, also where somebody else left it while this answer was coming. */
  #leavesRelay(error: unknown): boolean {
    const leaves = this.#client.leaveRelay(error) || (!this.#left && this.#client.relayRemarks.length > 0);
    this.#left = true;
    return leaves;
  }
}
