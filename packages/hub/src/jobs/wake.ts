/**
 * Waiting exchanges by queue. Waiting holds an entry here and a timer, and nothing of the database, so a thousand idle
 * services cost a hub next to nothing.
 *
 * Whoever is going to wait enters before looking for steps, so nothing that comes meanwhile is missed: a wake-up that
 * finds nobody waiting yet is remembered by the entry.
 */
export class JobWaiters {
  readonly #queues = new Map<string, Waiter>();

  /** Enters the line of a queue. Whoever waited for it before is overtaken and ends. */
  enter(queue: string): Waiter {
    const waiter = new Waiter(() => {
      if (this.#queues.get(queue) === waiter) this.#queues.delete(queue);
    });
    this.#queues.get(queue)?.overtake();
    this.#queues.set(queue, waiter);
    return waiter;
  }

  wake(queue: string): void {
    this.#queues.get(queue)?.wake();
  }

  wakeAll(): void {
    for (const waiter of this.#queues.values()) waiter.wake();
  }

  /** How many wait. */
  get size(): number {
    return this.#queues.size;
  }
}

export class Waiter {
  readonly #leave: () => void;
  #woken = false;
  #overtaken = false;
  #call: (() => void) | null = null;

  constructor(leave: () => void) {
    this.#leave = leave;
  }

  /** A newer request of the queue is there. */
  get overtaken(): boolean {
    return this.#overtaken;
  }

  /** Waits for the next wake-up, or since the last call of this. False: `ms` are over or the signal has aborted. */
  wait(ms: number, signal: AbortSignal): Promise<boolean> {
    if (this.#woken || this.#overtaken) {
      this.#woken = false;
      return Promise.resolve(true);
    }
    if (ms <= 0 || signal.aborted) return Promise.resolve(false);
    return new Promise((resolve) => {
      const end = (woken: boolean) => {
        clearTimeout(timer);
        signal.removeEventListener("abort", abort);
        this.#call = null;
        resolve(woken);
      };
      const timer = setTimeout(() => end(false), ms);
      const abort = () => end(false);
      signal.addEventListener("abort", abort, { once: true });
      this.#call = () => {
        this.#woken = false;
        end(true);
      };
    });
  }

  wake(): void {
    this.#woken = true;
    this.#call?.();
  }

  overtake(): void {
    this.#overtaken = true;
    this.#call?.();
  }

  leave(): void {
    this.#leave();
  }
}
