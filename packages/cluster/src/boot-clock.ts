import { uptime } from "node:os";

/**
 * The clock of leases: milliseconds since the machine was started, the same in every process of the machine, which nobody
 * can set and which goes on while the machine sleeps. The monotonic clock of timers stands still then, and a node would
 * wake with a lease that looks fresh.
 *
 * The system tells it in hundredths of a second. In between it is carried by the monotonic clock; a sleep shows as a
 * step of the difference. Two processes agree to within ten milliseconds, which belong to the guard delay.
 */
export function bootClock(): () => number {
  // Elsewhere the monotonic clock has to do; it is one for all processes too.
  if (process.platform !== "linux") return () => Number(process.hrtime.bigint()) / 1e6;
  let ahead = Number.NEGATIVE_INFINITY;
  return () => {
    const monotonic = Number(process.hrtime.bigint()) / 1e6;
    // What the system tells is cut off, never ahead; so the largest difference is the truest, and it only grows.
    ahead = Math.max(ahead, uptime() * 1000 - monotonic);
    return monotonic + ahead;
  };
}
