import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { NodeReport } from "@lockstep/core";

/**
 * How long things take on this machine that the times of a lease must allow for.
 *
 * - `guardDelayMs`: each guard says how long it did not look at its clock. Only the guard's own delay counts, because the
 *   deadline is an absolute time that it knows: what the daemon does late, it does not wait for. One single moment is left
 *   out, since a machine that was frozen once for a second is no slow machine; the second one within some minutes counts.
 * - `stopMs`: from each kill until nothing was left, as guard and daemon saw it. Kills are rare, so the worst of the last
 *   ones is kept, over lives of the daemon too; 0: there was none yet, and a drill would make one.
 * - `callMs`: of calls to the store.
 */
const STOPS_KEPT = 20;
/** What a figure loses with every beat: half of it within about a minute. */
const FADING = 0.99;
const FILE = "stop-times.json";

export class Measurements {
  readonly #file: string;
  readonly #stops: number[];
  #callMs = 0;
  /** The longest delay since the last beat; and the two longest of the last while. */
  #delayMs = 0;
  #delays: readonly [worst: number, second: number] = [0, 0];

  /** `directory`: of the node's daemon. */
  constructor(directory: string) {
    this.#file = join(directory, FILE);
    this.#stops = readStops(this.#file);
  }

  add(term: keyof NodeReport["measured"], ms: number): void {
    switch (term) {
      case "guardDelayMs":
        this.#delayMs = Math.max(this.#delayMs, ms);
        return;
      case "callMs":
        this.#callMs = Math.max(this.#callMs, ms);
        return;
      case "stopMs":
        this.#stops.push(round(ms));
        this.#stops.splice(0, this.#stops.length - STOPS_KEPT);
        try {
          writeFileSync(this.#file, JSON.stringify(this.#stops));
        } catch {
          // A full disk must not keep anybody from stopping; the next life has fewer figures.
        }
    }
  }

  /** With each beat. Guards that were late at the same moment were late once. */
  beat(): void {
    const [worst, second] = this.#delays;
    const now = this.#delayMs;
    this.#delays = [Math.max(worst, now) * FADING, Math.max(second, Math.min(worst, now)) * FADING];
    this.#delayMs = 0;
    this.#callMs *= FADING;
  }

  get values(): NodeReport["measured"] {
    return {
      stopMs: Math.max(0, ...this.#stops),
      guardDelayMs: round(this.#delays[1]),
      callMs: round(this.#callMs),
    };
  }
}

const round = (ms: number) => Math.round(ms * 100) / 100;

function readStops(file: string): number[] {
  try {
    const read: unknown = JSON.parse(readFileSync(file, "utf8"));
    return Array.isArray(read)
      ? read.filter((each) => typeof each === "number" && each >= 0).slice(-STOPS_KEPT)
      : [];
  } catch {
    return [];
  }
}
