import { EMPTY_BASE, type ReportBase } from "@lockstep/platform";

/**
 * What relays have brought here lately, by the names of their bases. In memory alone: a hub that does not know a name says so, and is
 * sent the whole once. What was not built on for the longest time goes first.
 */
export class ReportBases {
  readonly #sizeBytesMax: number;
  readonly #bases = new Map<string, ReportBase>();
  #sizeBytes = 0;

  constructor(sizeBytesMax = SIZE_BYTES_MAX) {
    this.#sizeBytesMax = sizeBytesMax;
  }

  /** The base of a name; null: it is not here. */
  find(name: string): ReportBase | null {
    if (name === EMPTY_BASE.name) return EMPTY_BASE;
    const base = this.#bases.get(name);
    if (base === undefined) return null;
    this.#bases.delete(name);
    this.#bases.set(name, base);
    return base;
  }

  /** The one before stays for a while: the answer from which the relay learns of this one may get lost. */
  keep(base: ReportBase): void {
    const former = this.#bases.get(base.name);
    if (former !== undefined) this.#drop(former);
    this.#bases.set(base.name, base);
    this.#sizeBytes += base.sizeBytes;
    for (const oldest of this.#bases.values()) {
      if (this.#sizeBytes <= this.#sizeBytesMax) return;
      this.#drop(oldest);
    }
  }

  #drop({ name, sizeBytes }: ReportBase): void {
    this.#bases.delete(name);
    this.#sizeBytes -= sizeBytes;
  }
}

/** Of all together. Two bases of one relay share the texts that did not change. */
const SIZE_BYTES_MAX = 32 * 1024 * 1024;
