/**
 * Documents of a cluster in memory: texts by key, each compared and swapped on its revision, which grows with every write
 * of any of them. The point of comparison for stores that need consensus for the same.
 */
export interface SimDocument {
  readonly text: string;
  readonly revision: number;
}

export class SimDocumentStore {
  readonly #documents = new Map<string, SimDocument>();
  readonly #watchers = new Set<(key: string) => void>();
  #revision = 1;

  read(key: string): SimDocument | null {
    return this.#documents.get(key) ?? null;
  }

  list(prefix: string): ReadonlyMap<string, SimDocument> {
    return new Map(
      [...this.#documents]
        .filter(([key]) => key.startsWith(prefix))
        .sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0)),
    );
  }

  /** Writes if the document is at `expected` (0: there is none); null deletes. Returns the new revision, or null. */
  write(key: string, expected: number, text: string | null): number | null {
    if ((this.#documents.get(key)?.revision ?? 0) !== expected) return null;
    this.#revision += 1;
    if (text === null) this.#documents.delete(key);
    else this.#documents.set(key, { text, revision: this.#revision });
    for (const watcher of this.#watchers) watcher(key);
    return this.#revision;
  }

  /** Calls back after each write. Returns how to stop that. */
  watch(watcher: (key: string) => void): () => void {
    this.#watchers.add(watcher);
    return () => this.#watchers.delete(watcher);
  }
}
