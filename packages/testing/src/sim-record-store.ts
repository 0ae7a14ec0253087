/** What a store that compares and swaps answers: whether it wrote, and what stands there now. */
export interface SimSwap<R> {
  readonly swapped: boolean;
  readonly record: R | null;
  readonly revision: number;
}

/**
 * A coordination store without a disk or a network: one record that is compared and swapped, a fence that only grows, and
 * values that are written only under the fence's token. What a real store needs consensus for is trivial here, because
 * everything happens in one place, one thing after the other; that is the point of comparison.
 */
export class SimRecordStore<R> {
  #record: R | null = null;
  #revision = 0;
  #fence = 0;
  readonly #values = new Map<string, string>();
  readonly #watchers = new Set<(record: R, revision: number) => void>();

  read(): SimSwap<R> {
    return { swapped: false, record: this.#record, revision: this.#revision };
  }

  /** Writes if the record is still at `expected`. `fence`: what to raise the fence to, or null to leave it. */
  swap(expected: number, record: R, fence: number | null): SimSwap<R> {
    if (expected !== this.#revision || (fence !== null && fence <= this.#fence)) return this.read();
    this.#record = record;
    this.#revision += 1;
    if (fence !== null) this.#fence = fence;
    for (const watcher of this.#watchers) watcher(record, this.#revision);
    return { swapped: true, record, revision: this.#revision };
  }

  /** Writes all values only if the fence is exactly at `token`; null deletes. Returns whether it did. */
  writeGuarded(token: number, values: ReadonlyMap<string, string | null>): boolean {
    if (token !== this.#fence || token === 0) return false;
    for (const [key, value] of values)
      if (value === null) this.#values.delete(key);
      else this.#values.set(key, value);
    return true;
  }

  get values(): ReadonlyMap<string, string> {
    return new Map(this.#values);
  }

  /** Calls back after each swap. Returns how to stop that. */
  watch(watcher: (record: R, revision: number) => void): () => void {
    this.#watchers.add(watcher);
    return () => this.#watchers.delete(watcher);
  }
}
