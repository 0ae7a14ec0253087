import type { HubClient, SemaphoreAnswer } from "@lockstep/client";
import {
  type Attempts,
  countFailure,
  firstPollMs,
  INITIAL_POLL,
  isQuarantined,
  nextPoll,
  type PollState,
  type TransferLimits,
  transferLimits,
} from "@lockstep/core";
import { type Clock, type Random, systemClock, systemRandom } from "@lockstep/platform";
import {
  formatSignedMark,
  isLockstepError,
  judgeMark,
  type Semaphore,
  type SignedMark,
} from "@lockstep/protocol/wire";
import { readAttempts, writeAttempts } from "./attempts.ts";
import { connectHub } from "./hub-access.ts";
import {
  type InstallHead,
  isUnfinished,
  locate,
  readInstalledRevision,
  readInstallHead,
} from "./installation.ts";
import type { ProgressEvent } from "./progress.ts";
import { recoverFirst } from "./recovery.ts";
import { describeProblem, report } from "./report.ts";
import type { SessionOptions } from "./session.ts";
import { readKnownSigned } from "./signed-known.ts";
import { minutesUntilTransfer } from "./transfer-throttle.ts";
import { lookAtSignatures, update } from "./update.ts";
import { notReadable, repair, verify } from "./verify.ts";

/**
 * Keeps any number of installations in step until it is told to stop.
 *
 * Each installation polls by itself, at the hub's interval with a spread, and slower after errors. With `follow` the hub
 * is asked to answer when something changes, so an update begins at once. A revision that failed here three times is
 * left alone until there is another one: fetching a broken release every few minutes helps nobody. Nothing that happens
 * to one installation stops another, and nothing ends the agent but its signal: then a step before the commit stops, one
 * after it is finished.
 */
export interface AgentOptions extends Omit<SessionOptions, "progress"> {
  readonly directories: readonly string[];
  /** Wait at the hub for a change instead of asking at intervals. */
  readonly follow: boolean;
  readonly random?: Random;
  readonly onEvent: (event: AgentEvent) => void;
  /** Milliseconds between two full verifications of an installation; 0: never. */
  readonly verifyEveryMs?: number;
  /** Ends after each installation was looked at once. */
  readonly once?: boolean;
}

export type AgentEvent =
  | {
      readonly kind: "watching";
      readonly directory: string;
      readonly revision: number | null;
      readonly hub: string;
    }
  | { readonly kind: "in-step"; readonly directory: string; readonly revision: number }
  | {
      readonly kind: "updating";
      readonly directory: string;
      readonly from: number | null;
      readonly to: number;
    }
  | {
      readonly kind: "updated";
      readonly directory: string;
      readonly from: number | null;
      readonly to: number;
      readonly changes: number;
      readonly receivedBytes: number;
    }
  | {
      readonly kind: "disabled";
      readonly directory: string;
      readonly by: "hub" | "installation";
      readonly to: number;
    }
  | {
      readonly kind: "quarantined";
      readonly directory: string;
      readonly revision: number;
      readonly failures: number;
    }
  | {
      readonly kind: "failed";
      readonly directory: string;
      readonly problem: string;
      readonly retryMs: number;
    }
  | {
      readonly kind: "damaged";
      readonly directory: string;
      readonly files: number;
      readonly repaired: boolean;
    }
  | { readonly kind: "log-altered"; readonly directory: string; readonly file: string; readonly line: number }
  | { readonly kind: "postponed"; readonly directory: string; readonly to: number; readonly minutes: number }
  | { readonly kind: "progress"; readonly directory: string; readonly event: ProgressEvent }
  | { readonly kind: "stopped"; readonly directory: string };

/** How long the hub is asked to hold an answer back. */
const FOLLOW_SECONDS = 55;
/** A held answer takes longer than this. */
const HELD_BACK_MS_MIN = 1000;
/** After so many conditional polls the settings are asked for as well, so that a new interval arrives. */
const POLLS_UNTIL_SETTINGS = 12;
/** A hub's timestamp is good for three days, and renewed at half of that. */
const SIGNATURES_EVERY_MS = 6 * 60 * 60 * 1000;
/** A relay may show the former signatures for a while. */
const OTHER_LOOKS_MAX = 3;
const VERIFY_EVERY_MS = 24 * 60 * 60 * 1000;
/** Codes that say nothing about the revision: a full disk or a hub that is away is no reason to give it up. */
const NOT_ITS_FAULT = [
  "HUB_UNREACHABLE",
  "HUB_BUSY",
  "HUB_INTERNAL",
  "AUTHENTICATION_REQUIRED",
  "AUTHENTICATION_FAILED",
  "INSTALLATION_LOCKED",
  "TRUST_EXPIRED",
  "TRUST_UNAVAILABLE",
  "TRUST_ROLLED_BACK",
  "TRUST_HISTORY_DIFFERS",
  "TRUST_REVISION_DIFFERS",
  "TRUST_REFUSED",
  "ORDER_REFUSED",
  "ORDER_REPLAYED",
  "ORDER_EXPIRED",
  "DOWNGRADE_REFUSED",
  "INSTALLATION_NOT_ENROLLED",
  "INSTALLATION_DIVERGED",
  "INSTALLATION_DISK_FULL",
  "INSTALLATION_NOT_WRITABLE",
  "INTERRUPTED",
  "UPDATE_POSTPONED",
] as const;

/** Runs until the signal comes. Never throws for what happens to an installation. */
export async function runAgent(options: AgentOptions): Promise<void> {
  await Promise.all(options.directories.map((directory) => new Watch(directory, options).run()));
}

/** Whether automatic updates are switched off, at the hub or here (domain 1.7). */
function isOff(semaphore: Semaphore, head: InstallHead): boolean {
  return !semaphore.autoUpdate || !head.settings.autoUpdate;
}

/** What a look at an installation ended in. */
type Look =
  | {
      readonly kind: "settled";
      readonly pollSeconds: number | null;
      /** Whether the next look may begin at once, because the hub will hold its answer back. */
      readonly again: boolean;
    }
  | { readonly kind: "failed"; readonly error: unknown };

class Watch {
  readonly #directory: string;
  readonly #options: AgentOptions;
  readonly #clock: Clock;
  readonly #random: Random;
  #poll: PollState = INITIAL_POLL;
  #polls = 0;
  #attempts: Attempts | null = null;
  #toldQuarantine: number | null = null;
  #toldDisabled: number | null = null;
  #toldInStep = false;
  /** A revision that waits for the time of large transfers, and the limits that it waits under. */
  #postponed: { readonly revision: number; readonly limits: string } | null = null;
  #verifiedAt: number;
  #trustedAt: number;
  /** Other signatures that the hub spoke of, and how often they were looked at. */
  #other: { readonly mark: string; looks: number } | null = null;
  #client: { readonly hub: string; readonly client: HubClient } | null = null;

  constructor(directory: string, options: AgentOptions) {
    this.#directory = directory;
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#random = options.random ?? systemRandom;
    this.#verifiedAt = this.#clock.monotonic();
    this.#trustedAt = this.#verifiedAt;
  }

  get #stopped(): boolean {
    return this.#options.signal?.aborted === true;
  }

  async run(): Promise<void> {
    const { once, follow, onEvent, signal } = this.#options;
    if (once !== true) await this.#clock.sleep(firstPollMs(this.#poll, this.#random.next()), signal);
    let begun = false;
    while (!this.#stopped) {
      if (!begun) begun = this.#begin();
      const look = await this.#look(begun);
      if (this.#stopped) break;
      // Also the only look tells its failure.
      const waitMs = this.#next(look);
      if (once === true) break;
      // A hub that is followed holds its answers back itself.
      if (follow && look.kind === "settled" && look.again) continue;
      await this.#clock.sleep(waitMs, signal);
    }
    await this.#client?.client.close();
    onEvent({ kind: "stopped", directory: this.#directory });
  }

  #begin(): boolean {
    try {
      const paths = locate(this.#directory);
      const { hub } = readInstallHead(paths);
      this.#attempts = readAttempts(paths);
      const revision = readInstalledRevision(paths)?.revision ?? null;
      this.#options.onEvent({ kind: "watching", directory: this.#directory, revision, hub: hub.url });
      return true;
    } catch {
      // The look says what is wrong, each time.
      return false;
    }
  }

  /** Works out the next pause, and tells a failure with it. */
  #next(look: Look): number {
    const outcome =
      look.kind === "settled"
        ? ({ kind: "answered", pollSeconds: look.pollSeconds } as const)
        : ({
            kind: "failed",
            retryAfterSeconds: isLockstepError(look.error) ? (look.error.retryAfterSeconds ?? null) : null,
          } as const);
    const { state, waitMs } = nextPoll(this.#poll, outcome, this.#random.next());
    this.#poll = state;
    if (look.kind === "failed")
      this.#options.onEvent({
        kind: "failed",
        directory: this.#directory,
        problem: describeProblem(look.error),
        retryMs: waitMs,
      });
    return waitMs;
  }

  async #look(mayFollow: boolean): Promise<Look> {
    try {
      return await this.#check(mayFollow);
    } catch (error) {
      return this.#stopped ? { kind: "settled", pollSeconds: null, again: false } : { kind: "failed", error };
    }
  }

  async #check(mayFollow: boolean): Promise<Look> {
    const { access, signal, onEvent } = this.#options;
    const directory = this.#directory;
    const paths = locate(directory);
    if (isUnfinished(paths)) await recoverFirst(paths, { environment: access.environment });
    const head = readInstallHead(paths);
    const installed = readInstalledRevision(paths)?.revision ?? null;
    const client = await this.#connect(head);
    // Where updates are switched off, only the settings say when they are switched on again.
    const unconditional = this.#toldDisabled !== null || this.#polls++ % POLLS_UNTIL_SETTINGS === 0;
    const follow = this.#options.follow && mayFollow && !unconditional;
    const beganAt = this.#clock.monotonic();
    const answer = await client.semaphore(unconditional ? null : (this.#toldQuarantine ?? installed), {
      signal,
      installation: head.id,
      ...(follow ? { waitSeconds: FOLLOW_SECONDS } : {}),
    });
    const heldBack = follow && this.#clock.monotonic() - beganAt >= HELD_BACK_MS_MIN;
    const pollSeconds = answer.kind === "equal" ? null : answer.semaphore.pollSeconds;
    const revision = answer.kind === "equal" ? answer.revision : answer.semaphore.revision;
    if (revision === installed) {
      this.#toldQuarantine = null;
      this.#toldDisabled = null;
      if (!this.#toldInStep) {
        this.#toldInStep = true;
        onEvent({ kind: "in-step", directory, revision });
        await report(client, paths.root, head, { outcome: "in-step", revision, problem: null });
      }
      if (await this.#lookAtSignaturesSometimes(revision, answer.signed))
        // A relay that holds back what is new gets no further than this: the hub itself is asked for a while.
        client.leaveRelay("now and then the hub itself is asked");
      await this.#verifySometimes(client, head, revision);
    } else if (answer.kind === "different" && isOff(answer.semaphore, head)) {
      this.#tellDisabled(answer.semaphore.autoUpdate ? "installation" : "hub", revision);
    } else if (this.#isPostponed(revision, answer, head))
      return { kind: "settled", pollSeconds, again: false };
    else if (!isQuarantined(this.#attempts, revision)) await this.#update(installed, revision, answer, head);
    else if (this.#toldQuarantine !== revision) {
      this.#toldQuarantine = revision;
      onEvent({ kind: "quarantined", directory, revision, failures: this.#attempts?.failures ?? 0 });
    }
    // A hub that answers at once although nothing has changed does not know how to hold back.
    const again =
      this.#toldDisabled === null &&
      this.#postponed === null &&
      (!follow || heldBack || answer.kind === "different");
    return { kind: "settled", pollSeconds, again };
  }

  /** One connection for each hub, kept between the polls. */
  async #connect(head: InstallHead): Promise<HubClient> {
    const hub = JSON.stringify(head.hub);
    if (this.#client?.hub !== hub) {
      await this.#client?.client.close();
      this.#client = {
        hub,
        client: await connectHub(head.hub, this.#options.access, locate(this.#directory)),
      };
    }
    return this.#client.client;
  }

  #tellDisabled(by: "hub" | "installation", to: number): void {
    if (this.#toldDisabled !== to)
      this.#options.onEvent({ kind: "disabled", directory: this.#directory, by, to });
    this.#toldDisabled = to;
  }

  async #update(
    installed: number | null,
    revision: number,
    answer: SemaphoreAnswer,
    head: InstallHead,
  ): Promise<void> {
    const { onEvent, signal } = this.#options;
    const directory = this.#directory;
    const paths = locate(directory);
    onEvent({ kind: "updating", directory, from: installed, to: revision });
    try {
      const result = await update(directory, {
        ...this.#options,
        trigger: "agent",
        ...(answer.kind === "equal"
          ? {}
          : { announced: { semaphore: answer.semaphore, atMs: this.#clock.monotonic() } }),
        progress: (event) => onEvent({ kind: "progress", directory, event }),
      });
      this.#attempts = null;
      this.#toldQuarantine = null;
      writeAttempts(paths, null);
      // Switched off between the two questions.
      if (result.kind === "disabled") {
        this.#tellDisabled(result.by, revision);
        return;
      }
      this.#toldDisabled = null;
      this.#toldInStep = true;
      if (result.kind === "already-in-step")
        return onEvent({ kind: "in-step", directory, revision: result.revision });
      const { add, replace, remove } = result.sums;
      const { from, to, receivedBytes } = result;
      onEvent({ kind: "updated", directory, from, to, changes: add + replace + remove, receivedBytes });
    } catch (error) {
      if (isLockstepError(error, "UPDATE_POSTPONED")) return this.#postpone(revision, answer, head);
      if (signal?.aborted !== true && !isLockstepError(error, ...NOT_ITS_FAULT)) {
        this.#attempts = countFailure(this.#attempts, revision);
        writeAttempts(paths, this.#attempts);
      }
      throw error;
    }
  }

  /** Until the window opens, or limits change, nothing is asked but whether there is another revision. */
  #postpone(revision: number, answer: SemaphoreAnswer, { settings }: InstallHead): void {
    const limits = this.#limits(answer, settings);
    this.#postponed = { revision, limits: JSON.stringify(limits) };
    const minutes = Math.max(1, minutesUntilTransfer(limits, this.#clock));
    this.#options.onEvent({ kind: "postponed", directory: this.#directory, to: revision, minutes });
  }

  /** Asked of the clock each time: minutes counted ahead would be wrong after a sleep of the machine, or where its clock was set. */
  #isPostponed(revision: number, answer: SemaphoreAnswer, { settings }: InstallHead): boolean {
    if (this.#postponed === null) return false;
    const limits = this.#limits(answer, settings);
    const isSame = this.#postponed.revision === revision && this.#postponed.limits === JSON.stringify(limits);
    if (isSame && minutesUntilTransfer(limits, this.#clock) > 0) return true;
    this.#postponed = null;
    return false;
  }

  #limits(answer: SemaphoreAnswer, settings: InstallHead["settings"]): TransferLimits {
    return transferLimits(settings.transfer, answer.kind === "equal" ? undefined : answer.semaphore.transfer);
  }

  /**
   * In step is what the hub says. Whether it still shows what is signed now, or the same for ever (A5), is looked at well
   * within the life of a timestamp, and at once where it speaks of another root or another content of this number itself; what is
   * wrong is an alarm and a failed look, and the installation goes on. True: after so long that it was time.
   */
  async #lookAtSignaturesSometimes(installed: number, signed: SignedMark | null): Promise<boolean> {
    const isTime = this.#clock.monotonic() - this.#trustedAt >= SIGNATURES_EVERY_MS;
    const other = this.#otherSigned(installed, signed);
    if (!isTime && other === null) return false;
    try {
      await lookAtSignatures(this.#directory, installed, this.#options);
    } catch (error) {
      // Told once; from now on it comes again when it is time.
      if (other !== null) other.looks = OTHER_LOOKS_MAX;
      throw error;
    }
    this.#trustedAt = this.#clock.monotonic();
    return isTime;
  }

  /** What the hub speaks of and nobody knows here; null: nothing, or it was looked at often enough. */
  #otherSigned(installed: number, signed: SignedMark | null): { looks: number } | null {
    if (signed === null) return null;
    const known = readKnownSigned(locate(this.#directory), installed);
    if (judgeMark(signed, known) === "as-known") return null;
    const mark = formatSignedMark(signed);
    if (this.#other?.mark !== mark) this.#other = { mark, looks: 0 };
    return this.#other.looks++ < OTHER_LOOKS_MAX ? this.#other : null;
  }

  /** Bit rot leaves the metadata alone, so from time to time everything is read (docs/adr/0002). */
  async #verifySometimes(client: HubClient, head: InstallHead, revision: number): Promise<void> {
    const every = this.#options.verifyEveryMs ?? VERIFY_EVERY_MS;
    if (every === 0 || this.#clock.monotonic() - this.#verifiedAt < every) return;
    this.#verifiedAt = this.#clock.monotonic();
    const directory = this.#directory;
    const { damages, edits, logBreak, unreadable } = await verify(directory, this.#options);
    if (logBreak !== null) {
      const { file, line } = logBreak;
      this.#options.onEvent({ kind: "log-altered", directory, file, line });
      await report(client, locate(directory).root, head, { outcome: "in-step", revision, problem: null });
    }
    const refused = notReadable(directory, unreadable);
    if (refused !== null) throw refused;
    if (damages.length === 0) return;
    const mend = edits === "replace";
    this.#options.onEvent({ kind: "damaged", directory, files: damages.length, repaired: mend });
    if (mend) await repair(directory, this.#options);
  }
}
