/**
 * The one queue of a simulated world: what happens next, by true time. What is due at one moment happens in the order in
 * which it was planned, so that equal seeds give equal runs.
 */
export class SimAgenda {
  /** A binary heap in three parallel lists; far cheaper than objects in the runs of a long night. */
  readonly #at: number[] = [];
  readonly #order: number[] = [];
  readonly #run: (() => void)[] = [];
  #planned = 0;
  #now = 0;

  /** True time in milliseconds, which no simulated process can see. */
  get now(): number {
    return this.#now;
  }

  /** Plans `run` for the true time `at`; what lies in the past happens next. */
  plan(at: number, run: () => void): void {
    this.#planned += 1;
    this.#at.push(Math.max(at, this.#now));
    this.#order.push(this.#planned);
    this.#run.push(run);
    for (let child = this.#at.length - 1; child > 0; ) {
      const parent = (child - 1) >> 1;
      if (!this.#isLater(parent, child)) break;
      this.#exchange(parent, child);
      child = parent;
    }
  }

  after(ms: number, run: () => void): void {
    this.plan(this.#now + ms, run);
  }

  /** Lets everything happen that is due up to `end`. */
  runUntil(end: number): void {
    for (;;) {
      const at = this.#at[0];
      const run = this.#run[0];
      if (at === undefined || run === undefined || at > end) break;
      this.#now = at;
      this.#dropFirst();
      run();
    }
    this.#now = end;
  }

  #dropFirst(): void {
    const last = this.#at.length - 1;
    this.#exchange(0, last);
    this.#at.pop();
    this.#order.pop();
    this.#run.pop();
    for (let parent = 0; ; ) {
      const left = 2 * parent + 1;
      if (left >= last) return;
      const child = left + 1 < last && this.#isLater(left, left + 1) ? left + 1 : left;
      if (!this.#isLater(parent, child)) return;
      this.#exchange(parent, child);
      parent = child;
    }
  }

  #isLater(a: number, b: number): boolean {
    const [atA = 0, atB = 0] = [this.#at[a], this.#at[b]];
    return atA > atB || (atA === atB && (this.#order[a] ?? 0) > (this.#order[b] ?? 0));
  }

  #exchange(a: number, b: number): void {
    exchange(this.#at, a, b);
    exchange(this.#order, a, b);
    exchange(this.#run, a, b);
  }
}

function exchange<T>(list: T[], a: number, b: number): void {
  const [first, second] = [list[a], list[b]];
  if (first === undefined || second === undefined) return;
  list[a] = second;
  list[b] = first;
}
