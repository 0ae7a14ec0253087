import type { Random } from "@lockstep/platform";

/**
 * Chance that can be repeated: everything that a simulation draws follows from one number, which it prints.
 *
 * sfc32, seeded through splitmix32: small, fast, and without the visible patterns of shorter generators in the first
 * draws of neighbouring seeds. Not for keys.
 */
export class Prng implements Random {
  #a: number;
  #b: number;
  #c: number;
  #counter = 1;

  /** Any finite number is a seed; equal seeds draw equal sequences. */
  constructor(seed: number) {
    let state = (seed ^ Math.floor(seed / 2 ** 32)) >>> 0;
    const split = () => {
      state = (state + 0x9e3779b9) >>> 0;
      let mixed = state ^ (state >>> 16);
      mixed = Math.imul(mixed, 0x21f0aaad);
      mixed ^= mixed >>> 15;
      mixed = Math.imul(mixed, 0x735a2d97);
      return (mixed ^ (mixed >>> 15)) >>> 0;
    };
    this.#a = split();
    this.#b = split();
    this.#c = split();
    for (let round = 0; round < 12; round++) this.uint32();
  }

  uint32(): number {
    const sum = (this.#a + this.#b + this.#counter) >>> 0;
    this.#counter = (this.#counter + 1) >>> 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) >>> 0;
    this.#c = (((this.#c << 21) | (this.#c >>> 11)) + sum) >>> 0;
    return sum;
  }

  /** From 0 (included) to 1 (excluded). */
  next(): number {
    return this.uint32() / 2 ** 32;
  }

  /** A whole number from 0 (included) to `bound` (excluded). */
  below(bound: number): number {
    return Math.floor(this.next() * bound);
  }

  chance(probability: number): boolean {
    return this.next() < probability;
  }

  pick<T>(list: readonly [T, ...T[]]): T;
  pick<T>(list: readonly T[]): T | undefined;
  pick<T>(list: readonly T[]): T | undefined {
    return list[this.below(list.length)];
  }

  /** A generator of its own, so that what one part draws does not shift what another gets. */
  fork(): Prng {
    return new Prng(this.uint32() * 2 ** 20 + this.below(2 ** 20));
  }

  hex(length: number): string {
    return Array.from({ length }, () => this.below(256).toString(16).padStart(2, "0")).join("");
  }

  uuid(): string {
    const digits = this.hex(16);
    const variant = "89ab"[this.below(4)];
    return `${digits.slice(0, 8)}-${digits.slice(8, 12)}-4${digits.slice(13, 16)}-${variant}${digits.slice(17, 20)}-${digits.slice(20)}`;
  }
}
