/** What is to happen, in the order of virtual time; what is due at one moment, in the order in which it was planned. */
export class Agenda {
  readonly #heap: Entry[] = [];
  #order = 0;

  get isEmpty(): boolean {
    return this.#heap.length === 0;
  }

  clear(): void {
    this.#heap.length = 0;
  }

  add(at: number, run: () => void): void {
    this.#order += 1;
    const heap = this.#heap;
    heap.push({ at, order: this.#order, run });
    for (let child = heap.length - 1; child > 0; ) {
      const parent = (child - 1) >> 1;
      if (!swapIfLater(heap, parent, child)) break;
      child = parent;
    }
  }

  /** Takes the earliest. Throws when there is none. */
  next(): { readonly at: number; readonly run: () => void } {
    const heap = this.#heap;
    const first = heap[0];
    const last = heap.pop();
    if (first === undefined || last === undefined) throw new Error("there is nothing to do");
    if (heap.length === 0) return first;
    heap[0] = last;
    for (let parent = 0; ; ) {
      const left = 2 * parent + 1;
      const [a, b] = [heap[left], heap[left + 1]];
      if (a === undefined) return first;
      const child = b !== undefined && isEarlier(b, a) ? left + 1 : left;
      if (!swapIfLater(heap, parent, child)) return first;
      parent = child;
    }
  }
}

interface Entry {
  readonly at: number;
  readonly order: number;
  readonly run: () => void;
}

const isEarlier = (a: Entry, b: Entry) => a.at < b.at || (a.at === b.at && a.order < b.order);

function swapIfLater(heap: Entry[], parent: number, child: number): boolean {
  const [above, below] = [heap[parent], heap[child]];
  if (above === undefined || below === undefined || !isEarlier(below, above)) return false;
  heap[parent] = below;
  heap[child] = above;
  return true;
}
