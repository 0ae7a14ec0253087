/**
 * Bytes that arrive in pieces and are wanted as one: copied together as they come. Keeping the pieces instead would
 * cost an object for each of them, and whoever sends decides how small they are: a byte each, if he means harm.
 */
export class GrowingBytes {
  #bytes = new Uint8Array(256);
  #length = 0;

  get length(): number {
    return this.#length;
  }

  add(piece: Uint8Array): void {
    const length = this.#length + piece.length;
    if (length > this.#bytes.length) {
      const larger = new Uint8Array(Math.max(length, 2 * this.#bytes.length));
      larger.set(this.#bytes.subarray(0, this.#length));
      this.#bytes = larger;
    }
    this.#bytes.set(piece, this.#length);
    this.#length = length;
  }

  /** All of it, and begins anew. The caller owns the bytes. */
  take(): Uint8Array {
    const all = this.#bytes.subarray(0, this.#length);
    this.#bytes = new Uint8Array(256);
    this.#length = 0;
    return all;
  }
}
