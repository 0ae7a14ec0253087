import pg from "pg";

/**
 * The database sessions in which the job service exchanges results and steps.
 *
 * Everything there goes by index, and the tables swing between empty and huge faster than statistics follow: a plan that
 * was right for an empty table must not be kept for a full one. So the planner is told to take the index, and to plan
 * each statement once: otherwise it would plan the larger part of them anew each time, which takes longer than they do. The triggers
 * that wake waiting services are told that these sessions do so themselves, once they know what they did not give out.
 */
export const EXCHANGE_SESSION = [
  "set enable_seqscan = off",
  "set enable_hashjoin = off",
  "set enable_mergejoin = off",
  "set enable_bitmapscan = off",
  // What comes in line comes in the order of an index, or a hundred thousand steps would be read to find the first ten.
  "set enable_sort = off",
  "set enable_incremental_sort = off",
  "set plan_cache_mode = force_generic_plan",
  "set jit = off",
  "set lockstep.exchange = 'on'",
].join("; ");

/** Connections that exchanges of one hub use at once; whoever comes beyond that stands in line. */
export const EXCHANGES_AT_ONCE = 8;

/**
 * Has the statements that follow in this turn of the event loop travel in one write. Each alone would be a write of its
 * own, and wake the database for it.
 */
export function sendTogether(client: pg.ClientBase): void {
  if (!(client instanceof pg.Client)) return;
  const { stream } = client.connection;
  stream.cork();
  process.nextTick(() => stream.uncork());
}
