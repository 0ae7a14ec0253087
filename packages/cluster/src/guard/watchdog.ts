import { closeSync, constants, openSync, writeSync } from "node:fs";

/**
 * A watchdog device: once opened, the machine is reset unless it is fed in time; the letter V before it is closed calls
 * it off (kernel: Documentation/watchdog/watchdog-api.rst). It covers for the case that nothing in this machine runs in
 * time any more, or that a service cannot be killed. Its own time limit is set where the driver is loaded, and must be
 * less than what the others wait beyond our trust.
 */
export class Watchdog {
  readonly #device: string;
  readonly #refused: (problem: string) => void;
  #file: number | null = null;
  #fedAt = Number.NEGATIVE_INFINITY;
  #isRefused = false;

  constructor(device: string, refused: (problem: string) => void) {
    this.#device = device;
    this.#refused = refused;
  }

  /** At `now` all is well. Opens it if need be, and feeds it every so often. */
  feed(now: number): void {
    if (this.#isRefused || now < this.#fedAt + FEED_MS) return;
    this.#fedAt = now;
    this.#attempt(() => {
      this.#file ??= openSync(this.#device, constants.O_WRONLY | constants.O_NONBLOCK);
      writeSync(this.#file, "\0");
    });
  }

  /** Nothing is left that it would have to end. */
  callOff(): void {
    const file = this.#file;
    if (file === null) return;
    this.#file = null;
    this.#fedAt = Number.NEGATIVE_INFINITY;
    this.#attempt(() => {
      writeSync(file, "V");
      closeSync(file);
    });
  }

  #attempt(act: () => void): void {
    try {
      act();
    } catch (error) {
      // Said once, not with every feed.
      this.#isRefused = true;
      this.#refused(`watchdog ${this.#device}: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
}

const FEED_MS = 500;
