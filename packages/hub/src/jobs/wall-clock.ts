import { Cron } from "croner";

/**
 * Times that the clocks skip or show twice.
 *
 * The library of cron expressions treats a single time of the day as people expect: 02:30 starts at 03:00 where the
 * clocks skip it, and once where it comes twice. Several (15,45 2 * * *) it passes over or doubles, and it passes over
 * what is missing before midnight, as in Nuuk. So the next time is also looked for on a clock without a zone: where the
 * zone has no such moment, the end of the gap is due; and what the wall has shown before is not due again. Only what is
 * meant for every hour starts in each hour that passes, and misses nothing by one that is not there.
 */
const EVERY_HOUR = /^(?:\*|\?|\*\/1|0-23)$/;
const HOUR_MS = 3_600_000;

export class WallClock {
  readonly #cron: string;
  readonly #clock: Intl.DateTimeFormat;

  private constructor(cron: string, timeZone: string) {
    this.#cron = cron;
    this.#clock = new Intl.DateTimeFormat("en-US", {
      timeZone,
      calendar: "gregory",
      numberingSystem: "latn",
      hourCycle: "h23",
      year: "numeric",
      month: "numeric",
      day: "numeric",
      hour: "numeric",
      minute: "numeric",
      second: "numeric",
    });
  }

  /** Null where the clocks of the zone do not matter to the expression. */
  static of(cron: string, timeZone: string): WallClock | null {
    const fields = cron.trim().split(/\s+/);
    const isEveryHour = cron.startsWith("@hourly") || EVERY_HOUR.test(fields.at(-4) ?? "");
    return timeZone === "UTC" || isEveryHour ? null : new WallClock(cron, timeZone);
  }

  /** The end of the gap in which the next time after `afterMs` lies, in milliseconds since 1970; null: it lies in none. */
  endOfGap(afterMs: number): number | null {
    const floating = new Cron(this.#cron, { timezone: "UTC", paused: true, mode: "5-or-6-parts" });
    try {
      const due = floating.nextRun(new Date(this.#shown(afterMs)))?.getTime();
      return due === undefined ? null : this.#firstBehindGap(due);
    } finally {
      floating.stop();
    }
  }

  /** Whether the wall shows at this moment what it has shown before. */
  isRepeat(ms: number): boolean {
    const shown = this.#shown(ms);
    const former = shown - this.#offset(ms - 26 * HOUR_MS);
    return former < ms && this.#shown(former) === shown;
  }

  /** What the wall shows at a moment, as if it were UTC. */
  #shown(ms: number): number {
    const parts = this.#clock.formatToParts(ms);
    const part = (wanted: Intl.DateTimeFormatPartTypes) =>
      Number(parts.find(({ type }) => type === wanted)?.value ?? 0);
    return Date.UTC(
      part("year"),
      part("month") - 1,
      part("day"),
      part("hour"),
      part("minute"),
      part("second"),
    );
  }

  #offset(ms: number): number {
    return this.#shown(ms) - ms;
  }

  /** Null where the wall shows `due` at some moment. */
  #firstBehindGap(due: number): number | null {
    const [before, after] = [this.#offset(due - 26 * HOUR_MS), this.#offset(due + 26 * HOUR_MS)];
    const isShown = (offset: number) => this.#shown(due - offset) === due;
    if (after <= before || isShown(before) || isShown(after)) return null;
    // The clocks jump between these two: the first is before the gap, the second behind it.
    let [low, high] = [due - after, due - before];
    while (high - low > 1000) {
      const middle = Math.floor((low + high) / 2000) * 1000;
      if (this.#shown(middle) > due) high = middle;
      else low = middle;
    }
    return high;
  }
}
