import type { Clock } from "@lockstep/platform";
import { LockstepError } from "@lockstep/protocol";
import type pg from "pg";
import type { SemaphoreWatch } from "./semaphore.ts";

/** A recalculation that finds nothing new moves no semaphore, so nobody is told: look again after this time. */
const LOOK_AGAIN_MS = 500;

/** The revision that carries a load, waiting up to `waitMs` for it; null when there is none yet. Throws NOT_FOUND. */
export async function loadRevision(
  pool: pg.Pool,
  load: number,
  options: {
    readonly waitMs: number;
    readonly signal: AbortSignal;
    readonly clock: Clock;
    readonly semaphore: SemaphoreWatch;
  },
): Promise<number | null> {
  const until = options.clock.monotonic() + options.waitMs;
  while (true) {
    const { rows } = await pool.query<{ revision: number | null }>(
      "select revision from release_load where id = $1",
      [load],
    );
    const row = rows[0];
    if (row === undefined)
      throw new LockstepError("NOT_FOUND", `the hub knows no load ${load}`, {
        found: load,
        hint: "A load that changed nothing has no number.",
      });
    const left = until - options.clock.monotonic();
    // A client that is told the number asks for it next, and the notification may still be on its way to us.
    if (row.revision !== null) await options.semaphore.reach(row.revision);
    if (row.revision !== null || left <= 0 || options.signal.aborted) return row.revision;
    await options.semaphore.waitForChange(Math.min(left, LOOK_AGAIN_MS), options.signal);
  }
}
