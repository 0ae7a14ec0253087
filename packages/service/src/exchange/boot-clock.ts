import { uptime } from "node:os";

/**
 * The clock of leases: milliseconds since the machine was started, the same in every process of the machine.
 *
 * It must go on while the machine sleeps, because the hub's does: the monotonic clock that timers use stands still then,
 * and a laptop or a paused virtual machine would wake up with a lease that looks fresh. Nobody can set it. On Linux it is
 * CLOCK_BOOTTIME, in hundredths of a second; elsewhere the monotonic clock has to do.
 */
export const bootClock: () => number =
  process.platform === "linux" ? () => uptime() * 1000 : () => Number(process.hrtime.bigint() / 1_000_000n);
