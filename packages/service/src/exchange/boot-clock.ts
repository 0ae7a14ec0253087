import { openSync, readSync } from "node:fs";

/**
 * The clock of leases: milliseconds since the machine was started, the same in every process of the machine.
 *
 * It must go on while the machine sleeps, because the hub's does: the monotonic clock that timers use stands still then,
 * and a laptop or a paused virtual machine would wake up with a lease that looks fresh. Nobody can set it. On Linux it is
 * CLOCK_BOOTTIME, in hundredths of a second; elsewhere the monotonic clock has to do.
 *
 * It is asked with everything that happens to a step, so its file stays open, and is read at most once in a millisecond
 * of running time: the kernel says no more than hundredths of a second, and asking it takes longer than a decision. So
 * the sleep of the machine is noticed within a millisecond of its end.
 */
export const bootClock: () => number = process.platform === "linux" ? linuxClock() : monotonicClock;

const FRESH_MS = 1;

function linuxClock(): () => number {
  const bytes = Buffer.alloc(64);
  let file: number;
  try {
    file = openSync("/proc/uptime", "r");
  } catch {
    return monotonicClock;
  }
  let readAt = Number.NEGATIVE_INFINITY;
  let found = 0;
  return () => {
    const now = performance.now();
    if (now - readAt < FRESH_MS) return found;
    readAt = now;
    found = Number.parseFloat(bytes.toString("latin1", 0, readSync(file, bytes, 0, bytes.length, 0))) * 1000;
    return found;
  };
}

function monotonicClock(): number {
  return Number(process.hrtime.bigint() / 1_000_000n);
}
