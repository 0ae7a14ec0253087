import type { Clock } from "@lockstep/platform";

/**
 * Does one thing again whenever somebody asks, and from time to time by itself: never twice at once, and never less often
 * than asked. What fails is tried again after a pause.
 */
export interface RefresherOptions {
  /** Resolves when it is done; rejects when it could not be done. */
  readonly act: () => Promise<void>;
  /** It could not be done. Told once, until it works again. */
  readonly failed: (error: unknown) => void;
  readonly everyMs: number;
  readonly retryMs: number;
  readonly clock: Clock;
}

export class Refresher {
  readonly #options: RefresherOptions;
  readonly #ending = new AbortController();
  #wake = new AbortController();
  #isWanted = true;
  #isFailing = false;

  constructor(options: RefresherOptions) {
    this.#options = options;
  }

  /** As soon as possible, once more. */
  request(): void {
    this.#isWanted = true;
    this.#wake.abort();
  }

  /** Goes on until `end`; then resolves. */
  async run(): Promise<void> {
    const { act, failed, everyMs, retryMs, clock } = this.#options;
    while (!this.#ending.signal.aborted) {
      this.#isWanted = false;
      this.#wake = new AbortController();
      let pauseMs = everyMs;
      try {
        await act();
        this.#isFailing = false;
      } catch (error) {
        if (!this.#isFailing) failed(error);
        this.#isFailing = true;
        pauseMs = retryMs;
      }
      // After a failure a request need not be answered at once: it would fail too.
      if (this.#isWanted && !this.#isFailing) continue;
      const signals = this.#isFailing ? [this.#ending.signal] : [this.#ending.signal, this.#wake.signal];
      await clock.sleep(pauseMs, AbortSignal.any(signals));
    }
  }

  end(): void {
    this.#ending.abort();
  }
}
