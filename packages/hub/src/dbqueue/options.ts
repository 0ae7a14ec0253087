/** The numbers of the DBQueue Processor. Times in milliseconds. */
export interface DbQueueTuning {
  /** Claims that one hub processes at once. Each takes one database connection. */
  readonly slots: number;
  /** At the latest after this time the dispatcher looks again, also when no notification came (behaviour 80). */
  readonly pollMs: number;
  /** How often a hub says that it is alive. */
  readonly heartbeatMs: number;
  /** A hub that was silent for this long has its claims taken away. A multiple of heartbeatMs. */
  readonly deadAfterMs: number;
  /** How long a task that cannot be done now stays put off while other tasks keep the queue busy. */
  readonly deferMs: number;
  /** The shortest pause before a deferred task returns to an empty queue: keeps it from spinning. */
  readonly idleReturnMs: number;
  /** Back-off of failing tasks. */
  readonly retryBaseMs: number;
  readonly retryMaxMs: number;
  /** From this many failed tries on, a task that is put off no longer holds up its followers. */
  readonly blockingAttempts: number;
  /** Most rows of one bulk claim: what a procedure can hold in memory with ease. */
  readonly bulkRowsMax: number;
  /** Most rows of the journal. */
  readonly journalRowsMax: number;
  /** How often a run that lost against a concurrent transaction is repeated at once. */
  readonly conflictTries: number;
}

export const DEFAULT_TUNING: DbQueueTuning = {
  slots: 4,
  pollMs: 30_000,
  heartbeatMs: 5_000,
  deadAfterMs: 60_000,
  deferMs: 60_000,
  idleReturnMs: 1_000,
  retryBaseMs: 1_000,
  retryMaxMs: 300_000,
  blockingAttempts: 3,
  bulkRowsMax: 1_000,
  journalRowsMax: 2_000,
  conflictTries: 8,
};
