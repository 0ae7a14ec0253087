import type { Prng } from "./prng.ts";
import type { SimAgenda } from "./sim-agenda.ts";

/** How bad a network is. Probabilities for each message. */
export interface NetworkFaults {
  readonly loss: number;
  readonly duplicate: number;
  /** A message that takes up to `slowMs` instead of up to `usualMs`; so messages overtake each other. */
  readonly slow: number;
  readonly usualMs: number;
  readonly slowMs: number;
}

/**
 * A network of named places. Messages get lost, come twice, late and out of order; each direction between two places can
 * be cut by itself. When it heals, what was still on its way late is lost, as with connections that are made anew.
 */
export class SimNetwork {
  readonly #agenda: SimAgenda;
  readonly #prng: Prng;
  readonly #faults: NetworkFaults;
  readonly #cuts = new Map<string, number>();
  #healed = false;
  #era = 0;
  readonly counts = { sent: 0, lost: 0, duplicated: 0, cut: 0, slow: 0 };

  constructor(agenda: SimAgenda, prng: Prng, faults: NetworkFaults) {
    this.#agenda = agenda;
    this.#prng = prng;
    this.#faults = faults;
  }

  /** Cuts one direction until the true time `until`. */
  cut(from: string, to: string, until: number): void {
    const link = `${from}>${to}`;
    this.#cuts.set(link, Math.max(until, this.#cuts.get(link) ?? 0));
  }

  heal(): void {
    this.#healed = true;
    this.#era += 1;
    this.#cuts.clear();
  }

  /** Carries one message: `deliver` is called never, once or twice. */
  send(from: string, to: string, deliver: () => void): void {
    this.counts.sent += 1;
    const copies = !this.#healed && this.#prng.chance(this.#faults.duplicate) ? 2 : 1;
    if (copies === 2) this.counts.duplicated += 1;
    for (let copy = 0; copy < copies; copy++) this.#carry(from, to, deliver);
  }

  #carry(from: string, to: string, deliver: () => void): void {
    if (!this.#healed && this.#prng.chance(this.#faults.loss)) {
      this.counts.lost += 1;
      return;
    }
    if (this.#isCut(from, to)) return;
    const era = this.#era;
    this.#agenda.after(this.#delay(), () => {
      if (era === this.#era && !this.#isCut(from, to)) deliver();
    });
  }

  #isCut(from: string, to: string): boolean {
    const isCut = (this.#cuts.get(`${from}>${to}`) ?? 0) > this.#agenda.now;
    if (isCut) this.counts.cut += 1;
    return isCut;
  }

  #delay(): number {
    const { slow, slowMs, usualMs } = this.#faults;
    if (this.#healed || !this.#prng.chance(slow)) return this.#prng.next() * usualMs;
    this.counts.slow += 1;
    return this.#prng.next() * slowMs;
  }
}
