import type { SimAgenda } from "./sim-agenda.ts";

/** A machine's clock: it only grows, it began somewhere, and it runs too fast or too slow, now more and now less. */
export class DriftingClock {
  readonly #agenda: SimAgenda;
  #rate: number;
  #base: number;
  #since: number;

  /** `rate` 1: as fast as true time. */
  constructor(agenda: SimAgenda, offset: number, rate: number) {
    this.#agenda = agenda;
    this.#rate = rate;
    this.#base = offset;
    this.#since = agenda.now;
  }

  now(): number {
    return this.#base + (this.#agenda.now - this.#since) * this.#rate;
  }

  /** When this clock will show `local`, in true time, if its rate stays as it is. */
  trueTime(local: number): number {
    return this.#since + (local - this.#base) / this.#rate;
  }

  setRate(rate: number): void {
    this.#base = this.now();
    this.#since = this.#agenda.now;
    this.#rate = rate;
  }
}
