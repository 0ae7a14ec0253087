import { LockstepError } from "@lockstep/protocol";

/**
 * Lets a limited number of costly answers be made at a time. Whoever comes beyond that waits in line; when the line is
 * full as well, the hub says that it is busy and when to come back, which keeps it alive under any load.
 */
export class Gate {
  readonly #limit: number;
  readonly #lineMax: number;
  readonly #line: (() => void)[] = [];
  #inside = 0;

  constructor(limit: number, lineMax: number) {
    this.#limit = limit;
    this.#lineMax = lineMax;
  }

  /** Waits for a place and returns what gives it back; calling that twice is harmless. Throws HUB_BUSY. */
  async enter(): Promise<() => void> {
    if (this.#inside >= this.#limit) {
      if (this.#line.length >= this.#lineMax)
        throw new LockstepError("HUB_BUSY", "the hub has as much to do as it can take", {
          expected: `at most ${this.#limit + this.#lineMax} at once`,
          hint: "Try again after the time that Retry-After says.",
          retryAfterSeconds: 5,
        });
      await new Promise<void>((resolve) => this.#line.push(resolve));
    } else this.#inside++;
    let left = false;
    return () => {
      if (left) return;
      left = true;
      const next = this.#line.shift();
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
}
