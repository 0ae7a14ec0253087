import {
  type Clock,
  EMPTY_BASE,
  extendBase,
  GATHERED_REPORTS_TYPE,
  type GatheredAnswer,
  type GatheredReport,
  packFormerReports,
  packReports,
  type ReportBase,
  unpackAnswers,
} from "@lockstep/platform";
import { LockstepError } from "@lockstep/protocol/wire";
import type { Upstream } from "./upstream.ts";

/**
 * Brings reports to the hub: as what is different from those that it accepted here before, to a hub of an older version
 * together as they are, or each by itself.
 */
const PATH = "/v1/installations/reports";
const ANSWER_BYTES_MAX = 1024 * 1024;
/** A hub of an older version is not asked again for so long. */
const UNKNOWN_MS = 600_000;
const BASE_UNKNOWN = 409;
/** What a hub says that knows no gathered reports, or none like ours; it may ask for a token before it says so. */
const UNKNOWN: ReadonlySet<number> = new Set([400, 401, 403, 404, 405, 415]);
/** The address is known, and the former way may be. */
const UNREADABLE: ReadonlySet<number> = new Set([400, 415]);
const REFUSED: readonly number[] = [...UNKNOWN, 413];
const ACCEPTED: GatheredAnswer = { status: 204, type: "", body: "", retryAfter: null };
/** A hub of an older version takes everything for the present state. */
const FORMER_AGE_SECONDS_MAX = 120;

export class ReportUpload {
  readonly #hub: Upstream;
  readonly #clock: Clock;
  #base: ReportBase = EMPTY_BASE;
  #basesUnknownUntil = Number.NEGATIVE_INFINITY;
  #unknownUntil = Number.NEGATIVE_INFINITY;

  constructor(hub: Upstream, clock: Clock) {
    this.#hub = hub;
    this.#clock = clock;
  }

  /** Whether the hub takes reports of several together, as far as is known. */
  get gathers(): boolean {
    return this.#clock.monotonic() >= Math.min(this.#basesUnknownUntil, this.#unknownUntil);
  }

  /** What the hub answers to each, or what kept it from that, in the same order. Throws what kept it from answering at all. */
  async send(reports: readonly GatheredReport[]): Promise<readonly PromiseSettledResult<GatheredAnswer>[]> {
    const together = (await this.#sendOverBase(reports)) ?? (await this.#sendFormer(reports));
    if (together !== null) return together.map((value) => ({ status: "fulfilled", value }));
    return await Promise.allSettled(reports.map((report) => this.#sendInTime(report)));
  }

  /** What the hub answers to this one, which travels by itself. Throws the same. */
  async sendOne({ installation, authorization, body }: GatheredReport): Promise<GatheredAnswer> {
    const passed = await this.#hub.read(
      {
        method: "PUT",
        path: `/v1/installations/${installation}`,
        headers: authorization === null ? {} : { authorization },
        body,
        repeatable: true,
        accept: [404],
      },
      ANSWER_BYTES_MAX,
    );
    const type = passed.headers["content-type"] ?? "";
    return { status: passed.status, type, body: passed.body.toString("utf8"), retryAfter: null };
  }

  /** Null: the hub does not take them so. */
  async #sendOverBase(reports: readonly GatheredReport[]): Promise<readonly GatheredAnswer[] | null> {
    if (this.#clock.monotonic() < this.#basesUnknownUntil) return null;
    let base = this.#base;
    let answer = await this.#post(packReports(reports, base));
    if (answer.status === BASE_UNKNOWN) {
      // The hub began again, or it is another one.
      base = EMPTY_BASE;
      answer = await this.#post(packReports(reports, base));
    }
    if (UNKNOWN.has(answer.status)) {
      this.#basesUnknownUntil = this.#clock.monotonic() + UNKNOWN_MS;
      if (!UNREADABLE.has(answer.status)) this.#unknownUntil = this.#basesUnknownUntil;
    }
    if (REFUSED.includes(answer.status)) return null;
    const answers =
      answer.status === 204 ? reports.map(() => ACCEPTED) : this.#demandAnswers(answer.body, reports.length);
    this.#base = extendBase(
      base,
      reports.filter((_, n) => answers[n]?.status === 204),
    );
    return answers;
  }

  /** The same. */
  async #sendFormer(reports: readonly GatheredReport[]): Promise<readonly GatheredAnswer[] | null> {
    const old = reports.some(({ ageSeconds }) => ageSeconds > FORMER_AGE_SECONDS_MAX);
    if (old || reports.length < 2 || this.#clock.monotonic() < this.#unknownUntil) return null;
    const { status, body } = await this.#post(packFormerReports(reports));
    if (UNKNOWN.has(status)) this.#unknownUntil = this.#clock.monotonic() + UNKNOWN_MS;
    return REFUSED.includes(status) ? null : this.#demandAnswers(body, reports.length);
  }

  async #sendInTime(report: GatheredReport): Promise<GatheredAnswer> {
    if (report.ageSeconds <= FORMER_AGE_SECONDS_MAX) return await this.sendOne(report);
    throw new LockstepError("REQUEST_INVALID", "the hub would take an old report for the present state", {
      expected: `at most ${FORMER_AGE_SECONDS_MAX} s, as the hub is of an older version`,
      found: `${report.ageSeconds} s`,
      hint: "Update the hub.",
    });
  }

  #post(body: Buffer): ReturnType<Upstream["read"]> {
    return this.#hub.read(
      {
        method: "POST",
        path: PATH,
        headers: { "content-type": GATHERED_REPORTS_TYPE },
        body,
        repeatable: true,
        accept: [...REFUSED, BASE_UNKNOWN],
      },
      ANSWER_BYTES_MAX,
    );
  }

  #demandAnswers(body: Buffer, count: number): readonly GatheredAnswer[] {
    const answers = unpackAnswers(body, count);
    if (answers !== null) return answers;
    throw new LockstepError("HUB_ANSWER_INVALID", "the hub does not say what became of the reports", {
      expected: `answers to ${count} reports`,
      found: `${body.length} bytes of something else`,
    });
  }
}
