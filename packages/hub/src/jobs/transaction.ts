/**
 * The transactions of the job service.
 *
 * Everything in them goes by index, and the tables swing between empty and huge faster than statistics follow: a plan
 * that was right for an empty table must not be kept for a full one. So the planner is told to take the index. Triggers
 * that wake waiting exchanges are told that this transaction does so itself, once it knows what it did not give out.
 */
const SETTINGS = [
  "set local enable_seqscan = off",
  "set local enable_hashjoin = off",
  "set local enable_mergejoin = off",
  "set local enable_bitmapscan = off",
  "set local jit = off",
].join(";");

export const BEGIN_EXCHANGE = `begin isolation level read committed;${SETTINGS};set local lockstep.exchange = 'on'`;

/** Commits without waiting for the disk: for a transaction that nobody would miss. */
export const COMMIT_UNHURRIED = "set local synchronous_commit = off;commit";
