import { createHash } from "node:crypto";
import {
  type Clock,
  GATHERED_REPORTS_LIMITS,
  type GatheredAnswer,
  type GatheredReport,
  gatheredSize,
  type Logger,
} from "@lockstep/platform";
import { ERRORS, fromErrorBody, isLockstepError } from "@lockstep/protocol/wire";
import type { ReportSpool, SpooledReport } from "./report-spool.ts";

/**
 * Reports for whose answer nobody waits. After a release those of a whole site come within a minute and go to the hub in one
 * request: when none has come for a moment, and a minute after the first at the latest. Each is on the disk before its sender is
 * told that it was taken, and stays until the hub has answered to it; of one installation the last counts.
 *
 * Tokens are in memory alone. After a restart a report waits until its token is shown here again, as installations do
 * whenever they ask for anything.
 */
export interface HeldReport {
  readonly installation: string;
  readonly authorization: string | null;
  readonly body: string;
}

export interface HoldingOptions {
  /** How long the first waits for others at most, in milliseconds; 0: nothing is held. */
  readonly holdMs: number;
  /** It waits no longer when none has come for so long. */
  readonly quietMs: number;
}

interface Held extends HeldReport {
  /** The digest of the credential that came with it; null: it came with none. */
  readonly credential: string | null;
  /** Whether `authorization` is what it came with: after a restart it has to be shown again. */
  readonly ready: boolean;
  readonly sizeBytes: number;
  /** Of the monotonic clock; may be before this process. */
  readonly atMs: number;
}

const LIMITS = GATHERED_REPORTS_LIMITS;
const HELD_MAX = 10_000;
const HELD_BYTES_MAX = 64 * 1024 * 1024;

const AGE_MS_MAX = LIMITS.ageSeconds * 1000;
/** Of one that was kept by a clock that stands before it: the hub takes it where it heard of nothing else for a day. */
const UNKNOWN_AGE_MS = AGE_MS_MAX - 3_600_000;
const PAUSE_MS_MIN = 30_000;
const PAUSE_MS_MAX = 300_000;
const ACCEPTED = "accepted";
const LATER = "later";

/** Reports that are under way. */
export interface TakenReports {
  readonly reports: readonly GatheredReport[];
  /** Says what became of each, in the same order; null: the hub could not be asked. They are held until it has answered. */
  settle(results: readonly (PromiseSettledResult<GatheredAnswer> | null)[]): void;
}

export class HeldReports {
  readonly #spool: ReportSpool;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #options: HoldingOptions;
  /** By installation. */
  readonly #held = new Map<string, Held>();
  readonly #sending = new Set<Held>();
  /** Those to which the hub answered that it cannot now. The others go on. */
  readonly #later = new WeakMap<Held, { readonly untilMs: number; readonly pauseMs: number }>();
  #bytes = 0;
  #firstMs: number | null = null;
  #lastMs = 0;
  /** After the hub could not be asked. */
  #notBeforeMs = Number.NEGATIVE_INFINITY;
  #pauseMs = 0;

  constructor(
    { spool, left }: { readonly spool: ReportSpool; readonly left: readonly SpooledReport[] },
    clock: Clock,
    log: Logger,
    options: HoldingOptions,
  ) {
    this.#spool = spool;
    this.#clock = clock;
    this.#log = log;
    this.#options = options;
    for (const { installation, credential, body, at } of left) {
      const sizeBytes = gatheredSize({ installation, authorization: null, body });
      const ageMs = clock.now() >= at ? clock.now() - at : UNKNOWN_AGE_MS;
      const atMs = clock.monotonic() - ageMs;
      if (sizeBytes === null) void spool.remove(installation);
      else
        this.#set({
          installation,
          credential,
          authorization: null,
          ready: credential === null,
          body,
          sizeBytes,
          atMs,
        });
    }
    this.#dropOld();
    if (this.#held.size > 0) this.#came();
  }

  /** What is held of an installation; null: nothing. */
  find(installation: string): HeldReport | null {
    return this.#held.get(installation) ?? null;
  }

  /** Forgets what `find` gave, where nothing else came since: the hub has something newer. */
  forget(found: HeldReport): void {
    const held = this.#held.get(found.installation);
    if (held === found) this.#drop(held);
  }

  /** Takes one. False: it cannot be held, and has to be sent. */
  async put(report: HeldReport): Promise<boolean> {
    const sizeBytes = gatheredSize(report);
    if (this.#options.holdMs === 0 || sizeBytes === null || sizeBytes > LIMITS.textBytes) return false;
    if (this.#held.size >= HELD_MAX || this.#bytes + sizeBytes > HELD_BYTES_MAX) return false;
    const { installation, authorization, body } = report;
    const credential = authorization === null ? null : digestOf(authorization);
    const atMs = this.#clock.monotonic();
    const held: Held = { installation, authorization, body, credential, ready: true, sizeBytes, atMs };
    this.#set(held);
    try {
      await this.#spool.put({ installation, credential, body, at: this.#clock.now() });
    } catch (error) {
      this.#log.warn("a report cannot be held", { error });
      this.#drop(held);
      return false;
    }
    this.#came();
    return true;
  }

  /** A credential that somebody shows. Returns whether reports have waited for it: those came with it, and the hub judges it. */
  learn(authorization: string | undefined): boolean {
    if (authorization === undefined || !this.#isWaitedFor()) return false;
    const credential = digestOf(authorization);
    let found = false;
    for (const held of this.#held.values())
      if (!held.ready && held.credential === credential) {
        this.#set({ ...held, authorization, ready: true });
        found = true;
      }
    if (found) this.#came();
    return found;
  }

  #isWaitedFor(): boolean {
    for (const { ready } of this.#held.values()) if (!ready) return true;
    return false;
  }

  /** In how many milliseconds to send; 0: now; null: there is nothing to send. */
  dueInMs(): number | null {
    let [count, bytes, laterMs] = [0, 0, Number.POSITIVE_INFINITY];
    const now = this.#clock.monotonic();
    for (const held of this.#toSend()) {
      const untilMs = this.#later.get(held)?.untilMs ?? now;
      if (untilMs > now) laterMs = Math.min(laterMs, untilMs);
      else {
        count++;
        bytes += held.sizeBytes;
      }
    }
    if (count === 0) return laterMs === Number.POSITIVE_INFINITY ? null : this.#inMs(laterMs);
    const { holdMs, quietMs } = this.#options;
    const full = count >= LIMITS.entries || bytes >= LIMITS.textBytes;
    return this.#inMs(full ? now : Math.min((this.#firstMs ?? now) + holdMs, this.#lastMs + quietMs));
  }

  #inMs(due: number): number {
    const now = this.#clock.monotonic();
    return Math.max(0, Math.max(due, this.#notBeforeMs) - now);
  }

  /** Takes what fits beside `others`, by installation; each has to be settled. */
  take(others: { readonly count: number; readonly sizeBytes: number }): TakenReports {
    let { count, sizeBytes } = others;
    const taken: Held[] = [];
    this.#dropOld();
    const now = this.#clock.monotonic();
    for (const held of [...this.#toSend()].sort(byInstallation)) {
      if ((this.#later.get(held)?.untilMs ?? now) > now) continue;
      if (count < LIMITS.entries && sizeBytes + held.sizeBytes <= LIMITS.textBytes) {
        count++;
        sizeBytes += held.sizeBytes;
        taken.push(held);
      }
    }
    for (const held of taken) this.#sending.add(held);
    this.#firstMs = this.#toSend().next().done === true ? null : now;
    const reports = taken.map(({ installation, authorization, body, atMs }) => ({
      installation,
      authorization,
      body,
      ageSeconds: Math.floor((now - atMs) / 1000),
    }));
    return { reports, settle: (results) => this.#settle(taken, results) };
  }

  #settle(taken: readonly Held[], results: readonly (PromiseSettledResult<GatheredAnswer> | null)[]): void {
    let failed = false;
    for (const [n, held] of taken.entries()) {
      this.#sending.delete(held);
      const result = results[n] ?? null;
      const end = result === null ? LATER : endOf(result);
      if (end !== LATER) this.#drop(held);
      else if (result?.status === "fulfilled") this.#delay(held);
      else failed = true;
      if (end !== ACCEPTED && end !== LATER)
        this.#log.warn("the hub refused a report", { installation: held.installation, found: end });
    }
    if (failed) {
      this.#pauseMs = longerPause(this.#pauseMs);
      this.#notBeforeMs = this.#clock.monotonic() + this.#pauseMs;
      this.#firstMs ??= this.#clock.monotonic();
    } else this.#pauseMs = 0;
  }

  #delay(held: Held): void {
    const pauseMs = longerPause(this.#later.get(held)?.pauseMs ?? 0);
    this.#later.set(held, { untilMs: this.#clock.monotonic() + pauseMs, pauseMs });
  }

  /** Also those whose token nobody has shown. */
  #dropOld(): void {
    const now = this.#clock.monotonic();
    for (const held of this.#held.values())
      if (now - held.atMs > AGE_MS_MAX && !this.#sending.has(held)) {
        this.#log.warn("a report was too old to be sent", { installation: held.installation });
        this.#drop(held);
      }
  }

  *#toSend(): Generator<Held> {
    for (const held of this.#held.values()) if (held.ready && !this.#sending.has(held)) yield held;
  }

  #came(): void {
    this.#lastMs = this.#clock.monotonic();
    this.#firstMs ??= this.#lastMs;
  }

  #set(held: Held): void {
    const former = this.#held.get(held.installation);
    if (former !== undefined) this.#bytes -= former.sizeBytes;
    this.#held.set(held.installation, held);
    this.#bytes += held.sizeBytes;
  }

  #drop(held: Held): void {
    // Another may have come in its place.
    if (this.#held.get(held.installation) !== held) return;
    this.#held.delete(held.installation);
    this.#bytes -= held.sizeBytes;
    void this.#spool.remove(held.installation);
  }
}

function longerPause(pauseMs: number): number {
  return Math.min(PAUSE_MS_MAX, Math.max(PAUSE_MS_MIN, 2 * pauseMs));
}

/** What an answer comes to: accepted, to be sent later, or the code of what the hub said against it, where it was the hub. */
function endOf(result: PromiseSettledResult<GatheredAnswer>): string {
  if (result.status === "fulfilled") {
    const { status, body } = result.value;
    if (status >= 200 && status < 300) return ACCEPTED;
    return status === TOO_MANY || status >= 500 ? LATER : (codeOf(body) ?? LATER);
  }
  const { reason } = result;
  if (!isLockstepError(reason)) return LATER;
  const { http } = ERRORS[reason.code];
  return http >= 500 || http === TOO_MANY ? LATER : reason.code;
}

const TOO_MANY = 429;

function codeOf(body: string): string | null {
  try {
    return fromErrorBody(JSON.parse(body))?.code ?? null;
  } catch {
    return null;
  }
}

type OfInstallation = Pick<HeldReport, "installation">;

/** The order in which reports travel: as those before did, so that what is the same stands in the same place. */
export function byInstallation(a: OfInstallation, b: OfInstallation): number {
  if (a.installation === b.installation) return 0;
  return a.installation < b.installation ? -1 : 1;
}

function digestOf(authorization: string): string {
  return createHash("sha256").update(authorization).digest("hex");
}
