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
  "set plan_cache_mode = force_generic_plan",
  "set jit = off",
  "set lockstep.exchange = 'on'",
].join("; ");

/** Connections that exchanges of one hub use at once; whoever comes beyond that stands in line. */
export const EXCHANGES_AT_ONCE = 8;
