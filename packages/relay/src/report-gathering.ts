import {
  type Clock,
  GATHERED_REPORTS_LIMITS,
  type GatheredAnswer,
  type GatheredReport,
  gatheredSize,
  type Logger,
} from "@lockstep/platform";
import {
  byInstallation,
  type HeldReport,
  HeldReports,
  type HoldingOptions,
  type TakenReports,
} from "./held-reports.ts";
import { ReportSpool } from "./report-spool.ts";
import { ReportUpload } from "./report-upload.ts";
import type { Upstream } from "./upstream.ts";

/**
 * After a release all installations of a site report within a minute, and nearly the same. Those for whose answer nobody waits are taken and
 * go to the hub together (`held-reports.ts`). For the others somebody waits a second at most: what comes within that goes in one
 * request, along with all that is held; each who reported gets what the hub said to its own report, and nothing before the hub has said it.
 */
export interface ReportAnswer {
  readonly status: number;
  readonly type: string;
  readonly body: Buffer;
  readonly retryAfter: string | null;
}

export interface GatheringOptions extends HoldingOptions {
  /** How long the first that is waited for waits for others, in milliseconds; 0: nobody waits. */
  readonly windowMs: number;
  /** As many go without waiting longer. */
  readonly reportsMax: number;
}

export const DEFAULT_GATHERING: GatheringOptions = {
  windowMs: 1_000,
  holdMs: 60_000,
  quietMs: 10_000,
  reportsMax: GATHERED_REPORTS_LIMITS.entries,
};

interface Waiting {
  readonly report: GatheredReport;
  readonly answered: PromiseWithResolvers<ReportAnswer>;
}

interface Batch {
  readonly waiting: Waiting[];
  readonly full: AbortController;
  sizeBytes: number;
}

export class ReportGathering {
  readonly #upload: ReportUpload;
  readonly #held: HeldReports;
  readonly #clock: Clock;
  readonly #options: GatheringOptions;
  readonly #stopping: AbortSignal;
  #open: Batch | null = null;
  #woken = new AbortController();
  /** Sends what is held; null: nothing is. */
  #sending: Promise<void> | null = null;

  private constructor(
    upload: ReportUpload,
    held: HeldReports,
    clock: Clock,
    options: GatheringOptions,
    stopping: AbortSignal,
  ) {
    this.#upload = upload;
    this.#held = held;
    this.#clock = clock;
    this.#options = options;
    this.#stopping = stopping;
  }

  /** With what an earlier process left in the directory. Throws what the file system throws. */
  static async open(
    directory: string,
    hub: Upstream,
    parts: { readonly clock: Clock; readonly log: Logger; readonly stopping: AbortSignal },
    options: GatheringOptions,
  ): Promise<ReportGathering> {
    const { clock, log, stopping } = parts;
    const held = new HeldReports(await ReportSpool.open(directory), clock, log, options);
    const gathering = new ReportGathering(new ReportUpload(hub, clock), held, clock, options, stopping);
    gathering.#look();
    return gathering;
  }

  /** Takes a report for whose answer nobody waits. False: it was not taken, and has to be sent. */
  async hold(report: HeldReport): Promise<boolean> {
    const taken = await this.#held.put(report);
    if (taken) this.#look();
    return taken;
  }

  /** A credential that somebody shows: what a report came with before a restart. */
  learn(authorization: string | undefined): void {
    if (this.#held.learn(authorization)) this.#look();
  }

  /** Resolves when nothing is under way any more; what was held and not accepted is there at the next start. */
  async ended(): Promise<void> {
    await this.#sending;
  }

  /** What the hub answers to this report. Throws what kept the hub from answering. */
  async send(report: HeldReport): Promise<ReportAnswer> {
    const former = this.#held.find(report.installation);
    const answer = await this.#send(report);
    // A hub of an older version, which hears of no ages, would take the former for the newer one.
    if (former !== null && answer.status >= 200 && answer.status < 300) this.#held.forget(former);
    return answer;
  }

  async #send({ installation, authorization, body }: HeldReport): Promise<ReportAnswer> {
    const report: GatheredReport = { installation, authorization, body, ageSeconds: 0 };
    const sizeBytes = gatheredSize(report);
    const alone = this.#options.windowMs === 0 || !this.#upload.gathers;
    if (alone || sizeBytes === null || sizeBytes > GATHERED_REPORTS_LIMITS.textBytes)
      return answerOf(await this.#upload.sendOne(report));
    if (this.#open !== null && this.#open.sizeBytes + sizeBytes > GATHERED_REPORTS_LIMITS.textBytes)
      this.#close(this.#open);
    const batch = this.#open ?? this.#begin();
    const answered = Promise.withResolvers<ReportAnswer>();
    batch.waiting.push({ report, answered });
    batch.sizeBytes += sizeBytes;
    if (batch.waiting.length >= this.#options.reportsMax) this.#close(batch);
    return await answered.promise;
  }

  #begin(): Batch {
    const batch: Batch = { waiting: [], full: new AbortController(), sizeBytes: 0 };
    this.#open = batch;
    const signal = AbortSignal.any([batch.full.signal, this.#stopping]);
    void this.#clock.sleep(this.#options.windowMs, signal).then(async () => {
      this.#close(batch);
      await this.#sendBatch(batch);
    });
    return batch;
  }

  #close(batch: Batch): void {
    if (this.#open === batch) this.#open = null;
    batch.full.abort();
  }

  /** Never throws: each who waits is told. */
  async #sendBatch({ waiting, sizeBytes }: Batch): Promise<void> {
    const along = this.#held.take({ count: waiting.length, sizeBytes });
    const [only] = waiting;
    if (along.reports.length === 0 && waiting.length === 1 && only !== undefined) {
      only.answered.resolve(this.#upload.sendOne(only.report).then(answerOf));
      return;
    }
    try {
      const results = await this.#sendTogether(waiting, along);
      for (const { report, answered } of waiting) {
        const result = results.get(report);
        if (result?.status === "fulfilled") answered.resolve(answerOf(result.value));
        else answered.reject(result?.reason);
      }
    } catch (error) {
      for (const { answered } of waiting) answered.reject(error);
    }
  }

  /** In the order of installations, as what was sent before; of one installation the held report is the older one. */
  async #sendTogether(
    waiting: readonly Waiting[],
    along: TakenReports,
  ): Promise<ReadonlyMap<GatheredReport, PromiseSettledResult<GatheredAnswer>>> {
    const reports = [...along.reports, ...waiting.map(({ report }) => report)].sort(byInstallation);
    const results = new Map<GatheredReport, PromiseSettledResult<GatheredAnswer>>();
    try {
      for (const [n, result] of (await this.#upload.send(reports)).entries()) {
        const report = reports[n];
        if (report !== undefined) results.set(report, result);
      }
    } finally {
      along.settle(along.reports.map((report) => results.get(report) ?? null));
    }
    return results;
  }

  /** Sends what is held as soon as it is due. */
  #look(): void {
    this.#woken.abort();
    this.#sending ??= this.#sendWhenDue().finally(() => {
      this.#sending = null;
      // What came in this moment.
      if (this.#held.dueInMs() !== null && !this.#stopping.aborted) this.#look();
    });
  }

  /** Never throws. */
  async #sendWhenDue(): Promise<void> {
    for (;;) {
      const dueMs = this.#held.dueInMs();
      if (dueMs === null) return;
      if (dueMs > 0 && !this.#stopping.aborted) {
        this.#woken = new AbortController();
        await this.#clock.sleep(dueMs, AbortSignal.any([this.#woken.signal, this.#stopping]));
        continue;
      }
      const taken = this.#held.take({ count: 0, sizeBytes: 0 });
      // All may have been too old; a request without reports is none.
      if (taken.reports.length > 0) await this.#sendTogether([], taken).catch(() => undefined);
      // The last try.
      if (this.#stopping.aborted) return;
    }
  }
}

function answerOf({ status, type, body, retryAfter }: GatheredAnswer): ReportAnswer {
  return { status, type, body: Buffer.from(body), retryAfter };
}
