import type { Clock } from "@lockstep/platform";
import { isLockstepError } from "@lockstep/protocol/wire";
import { throwIfInterrupted } from "./interruption.ts";

/**
 * Trying again while a transfer gets on. A bad link may cut a hundred times as long as each try brings something;
 * without progress the pauses double, and after a handful of tries the error is the reader's.
 */
const TRIES_WITHOUT_PROGRESS_MAX = 6;
const FIRST_PAUSE_MS = 500;
const RETRY_AFTER_MS_MAX = 60_000;

export class Persistence {
  readonly #clock: Clock;
  readonly #signal: AbortSignal | undefined;
  #idleTries = 0;

  constructor(clock: Clock, signal: AbortSignal | undefined) {
    this.#clock = clock;
    this.#signal = signal;
  }

  /** Something arrived. */
  progress(): void {
    this.#idleTries = 0;
  }

  /** Waits before the next try, or throws the error when trying on makes no sense. */
  async after(error: unknown): Promise<void> {
    throwIfInterrupted(this.#signal);
    if (!isLockstepError(error, "HUB_UNREACHABLE", "HUB_BUSY", "HUB_INTERNAL")) throw error;
    this.#idleTries++;
    if (this.#idleTries >= TRIES_WITHOUT_PROGRESS_MAX) throw error;
    const pause = FIRST_PAUSE_MS * 2 ** (this.#idleTries - 1);
    const asked = Math.min((error.retryAfterSeconds ?? 0) * 1000, RETRY_AFTER_MS_MAX);
    await this.#clock.sleep(Math.max(pause, asked), this.#signal);
    throwIfInterrupted(this.#signal);
  }
}
