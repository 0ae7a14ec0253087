/**
 * Time as a parameter: whoever decides by time takes a Clock, so that a test or a simulation owns the time.
 *
 * Two clocks, because they answer two questions. `now` says what people and files call the time; it jumps when somebody
 * sets it. `monotonic` measures how long something took; it only grows and means nothing outside this process.
 */
export interface Clock {
  /** Milliseconds since 1970, UTC. */
  now(): number;
  /** Milliseconds since some moment before this process began. */
  monotonic(): number;
  /** Resolves after `ms`, or at once (not rejecting) when the signal is or becomes aborted: look at the signal. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
}

/** Node runs a timer longer than this at once instead of late. */
const TIMER_MS_MAX = 2 ** 31 - 1;

/** The clocks of this machine. */
export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  sleep: async (ms, signal) => {
    const until = performance.now() + ms;
    for (let left = ms; left > 0 && signal?.aborted !== true; left = until - performance.now())
      await sleepOnce(Math.min(left, TIMER_MS_MAX), signal);
  },
};

function sleepOnce(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve) => {
    const wake = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", wake);
      resolve();
    };
    const timer = setTimeout(wake, ms);
    signal?.addEventListener("abort", wake, { once: true });
  });
}
