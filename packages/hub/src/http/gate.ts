import type { Clock } from "@lockstep/platform";
import { LockstepError } from "@lockstep/protocol";

/**
 * Lets a limited number of costly answers be made at a time. Whoever comes beyond that waits in line for a while; when
 * the line is full as well, or does not get on, the hub says that it is busy and when to come back, which keeps it alive
 * under any load, and tells the waiting client something before it takes the silence for a fault.
 */
export class Gate {
  readonly #limit: number;
  readonly #lineMax: number;
  readonly #waitMs: number;
  readonly #clock: Clock;
  readonly #line = new Set<() => void>();
  #inside = 0;

  /** `waitMs`: how long somebody stands in line at most. */
  constructor(limit: number, lineMax: number, options: { readonly waitMs: number; readonly clock: Clock }) {
    this.#limit = limit;
    this.#lineMax = lineMax;
    this.#waitMs = options.waitMs;
    this.#clock = options.clock;
  }

  /** Waits for a place and returns what gives it back; calling that twice is harmless. Throws HUB_BUSY. */
  async enter(): Promise<() => void> {
    if (this.#inside < this.#limit) this.#inside++;
    else if (this.#line.size >= this.#lineMax || !(await this.#queue())) throw this.#busy();
    let left = false;
    return () => {
      if (left) return;
      left = true;
      const [next] = this.#line;
      if (next === undefined) this.#inside--;
      else next();
    };
  }

  /** Runs `work` inside. */
  async through<T>(work: () => Promise<T>): Promise<T> {
    const leave = await this.enter();
    try {
      return await work();
    } finally {
      leave();
    }
  }

  /** Stands in line. True: somebody who left has given us the place. */
  async #queue(): Promise<boolean> {
    const settled = new AbortController();
    let called = false;
    const call = () => {
      called = true;
      this.#line.delete(call);
      settled.abort();
    };
    this.#line.add(call);
    await this.#clock.sleep(this.#waitMs, settled.signal);
    this.#line.delete(call);
    return called;
  }

  #busy(): LockstepError {
    return new LockstepError("HUB_BUSY", "the hub has as much to do as it can take", {
      expected: `at most ${this.#limit} at once, ${this.#lineMax} in line for ${this.#waitMs / 1000} s`,
      hint: "Try again after the time that Retry-After says.",
      retryAfterSeconds: 5,
    });
  }
}
