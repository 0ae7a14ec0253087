import type { IsolationLevel, Transaction } from "../db/connect.ts";

/** One waiting row as its procedure sees it. */
export interface TaskRow {
  readonly id: number;
  /** What the task is about, or "": the meaning is the procedure's. */
  readonly object: string;
  readonly subObject: string;
  /** How often it was tried before and failed. */
  readonly attempts: number;
}

export interface TaskRun {
  /**
   * The one transaction in which everything must happen: the row leaves the queue in it too, so what the procedure
   * wrote and the end of the task are one. Never commit, never roll back, never write elsewhere.
   */
  readonly transaction: Transaction;
  /** One row, or all rows of the slot for a bulk task. */
  readonly rows: readonly TaskRow[];
  readonly hubId: string;
  /** Aborted when the hub cannot wait any longer: whatever happens then is rolled back and the rows are given back. */
  readonly signal: AbortSignal;
}

/**
 * How a run ended; nothing returned means done. To fail, throw: everything is rolled back, and the rows are put off
 * for longer each time, with the error's message as the reason.
 */
export type TaskOutcome =
  | {
      readonly kind: "done";
      /** For the journal. */
      readonly detail?: string;
      /** Rows of a bulk task that could not be done now; the others are. */
      readonly deferred?: readonly { readonly id: number; readonly reason: string }[];
    }
  /** Cannot be done now: rolled back, tried again as soon as nothing else is queued. */
  | { readonly kind: "deferred"; readonly reason: string };

export interface Procedure {
  /** `LOCKSTEP-K-SoftwareRevision` */
  readonly task: string;
  readonly description: string;
  /** Gets all waiting rows at once. */
  readonly bulk: boolean;
  /** How many runs of it there may be at once over all hubs; 1: one after the other. */
  readonly maxInstance: number;
  /** Tasks that must not be queued when this one starts. */
  readonly predecessors: readonly string[];
  /**
   * Default "repeatable read": all statements see the database as of the first, so no half of a concurrent load.
   * A run that loses against a concurrent writer (serialization failure, deadlock) is repeated; a procedure that
   * itself writes watched tables and reads with one statement only may choose "read committed" and avoid that.
   */
  readonly isolation?: IsolationLevel;
  /**
   * Which of the rows still have their object: the others end silently, without error. Called within the transaction.
   * Left out: all have.
   */
  present?(run: TaskRun): Promise<ReadonlySet<number>>;
  run(run: TaskRun): Promise<TaskOutcome | undefined>;
}
