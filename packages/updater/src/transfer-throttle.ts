import type { Throttle } from "@lockstep/client";
import {
  type BucketState,
  counted,
  type InstallationSettings,
  minutesUntilOpen,
  parseTransferWindow,
  type TransferLimits,
  type TransferSettings,
  takeBytes,
  transferLimits,
} from "@lockstep/core";
import type { Clock } from "@lockstep/platform";
import { LockstepError } from "@lockstep/protocol/wire";
import type { HubAccess } from "./hub-access.ts";

/**
 * Holds one process of an update to its limits (core/transfer-limits.ts).
 *
 * What has come is counted before it is used, and the next read waits as long as the rate wants; so the sender is slowed
 * down by the network's own means, and all transfers of the process share one rate. A large update begins only within its
 * window and stops where the window closes: what has come is kept, and goes on from there in the next one.
 */
export class TransferThrottle implements Throttle {
  readonly #limits: TransferLimits;
  readonly #clock: Clock;
  readonly #minuteOfDay: (ms: number) => number;
  #bucket: BucketState | null = null;
  #gated = false;

  /** `minuteOfDay` tells the minute after local midnight of a moment in milliseconds since 1970. */
  constructor(limits: TransferLimits, clock: Clock, minuteOfDay: (ms: number) => number = localMinute) {
    this.#limits = limits;
    this.#clock = clock;
    this.#minuteOfDay = minuteOfDay;
  }

  get atOnce(): number {
    return this.#limits.atOnce;
  }

  /** Says how many bytes are about to be fetched. Throws UPDATE_POSTPONED where that is too much for now. */
  admit(bytes: number): void {
    this.#gated = bytes >= this.#limits.windowFromBytes;
    this.#demandOpen();
  }

  /** Counts what has come, and waits. Throws UPDATE_POSTPONED when the window has closed. */
  async take(bytes: number, signal?: AbortSignal): Promise<void> {
    this.#demandOpen();
    const { bytesPerSecond } = this.#limits;
    if (bytesPerSecond === 0) return;
    const { state, waitMs } = takeBytes(this.#bucket, this.#clock.monotonic(), bytes, bytesPerSecond);
    this.#bucket = state;
    if (waitMs > 0) await this.#clock.sleep(waitMs, signal);
  }

  #demandOpen(): void {
    if (!this.#gated || this.#limits.window === "") return;
    const now = this.#clock.now();
    const wait = minutesUntilOpen(parseTransferWindow(this.#limits.window) ?? [], this.#minuteOfDay(now));
    if (wait === 0) return;
    throw new LockstepError("UPDATE_POSTPONED", "large updates are fetched at another time of the day", {
      expected: this.#limits.window,
      found: `${formatMinute(this.#minuteOfDay(now))}, ${counted(wait, "minute")} before`,
      hint: "An agent goes on by itself then, with what has come already. At once: lockstep update DIR --now.",
    });
  }
}

/** What a process of an update is to know of its limits. */
export interface TransferOrder {
  readonly hub: TransferSettings;
  /** Whatever time it is. */
  readonly now: boolean;
}

/** The same access, held to the limits of hub and installation; unchanged where it is already. */
export function throttled(
  access: HubAccess,
  settings: Pick<InstallationSettings, "transfer">,
  clock: Clock,
): HubAccess {
  if (access.throttle !== undefined) return access;
  const limits = transferLimits(settings.transfer, access.transfer?.hub);
  // Whoever installs or chooses anew is there and waits.
  const waits = access.transfer !== undefined && !access.transfer.now;
  const window = waits ? limits.window : "";
  return { ...access, throttle: new TransferThrottle({ ...limits, window }, clock) };
}

/** In how many minutes large transfers may run here; 0: now. */
export function minutesUntilTransfer({ window }: TransferLimits, clock: Pick<Clock, "now">): number {
  return minutesUntilOpen(parseTransferWindow(window) ?? [], localMinute(clock.now()));
}

function localMinute(ms: number): number {
  const date = new Date(ms);
  return date.getHours() * 60 + date.getMinutes();
}

function formatMinute(minute: number): string {
  return `${String(Math.floor(minute / 60)).padStart(2, "0")}:${String(minute % 60).padStart(2, "0")}`;
}
