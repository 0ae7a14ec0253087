import type { ByteSource } from "./delta-format.ts";

/** Several contents one after the other as one. */
export class JoinedSource implements ByteSource {
  readonly size: number;
  readonly #parts: readonly ByteSource[];
  readonly #starts: readonly number[];

  constructor(parts: readonly ByteSource[]) {
    this.#parts = parts;
    const starts = [0];
    for (const part of parts) starts.push((starts.at(-1) ?? 0) + part.size);
    this.#starts = starts;
    this.size = starts.at(-1) ?? 0;
  }

  read(position: number, length: number): Uint8Array {
    let part = this.#partAt(position);
    const first = this.#parts[part];
    const start = this.#starts[part] ?? 0;
    // Most reads lie in one content, and need no copy.
    if (first !== undefined && position + length <= start + first.size)
      return first.read(position - start, length);
    const bytes = new Uint8Array(length);
    for (let at = position; at < position + length; part++) {
      const source = this.#parts[part];
      if (source === undefined) throw new RangeError(`read ${length} bytes at ${position} of ${this.size}`);
      const within = at - (this.#starts[part] ?? 0);
      const count = Math.min(source.size - within, position + length - at);
      if (count > 0) bytes.set(source.read(within, count), at - position);
      at += count;
    }
    return bytes;
  }

  /** The last part that begins at or before a position. */
  #partAt(position: number): number {
    let low = 0;
    let high = this.#parts.length;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if ((this.#starts[middle] ?? 0) <= position) low = middle;
      else high = middle;
    }
    return low;
  }
}
