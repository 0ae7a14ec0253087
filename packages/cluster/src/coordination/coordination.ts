import type { LeaseRecord, Observation } from "@lockstep/core";
import type { Documents } from "./documents.ts";

/**
 * What a cluster needs of a store that several machines agree on: one record for each virtual server that is compared and
 * swapped, a fence beside it, and values that are written only under the fence's token.
 *
 * Record and fence are two things on purpose. The record changes with every renewal; the fence only with a new owner.
 * A guarded write depends on the fence alone, so that it neither waits for renewals nor makes them wait.
 *
 * Nothing in the store is a time. Records are never deleted: a token must not come back.
 *
 * Every call ends within the time limit that the store was opened with. One that fails with COORDINATION_UNREACHABLE may
 * have happened, or may still happen; whoever wrote learns by the next look.
 */
export interface Coordination {
  readonly documents: Documents;
  /** What stands there now, as the majority knows it: never something older than a finished write. */
  read(name: string): Promise<Observation>;
  /** Writes if the record is still as it was seen. */
  swap(name: string, swap: RecordSwap): Promise<SwapAnswer>;
  /**
   * Tells of changes until the signal is aborted; then resolves. It connects anew by itself. A hint: changes may come
   * late, be left out when newer ones follow, or not come at all for a while.
   */
  watch(name: string, tell: (observation: Observation) => void, signal: AbortSignal): Promise<void>;
  /** Writes all values if the fence is exactly at `token`, else none; null deletes. Returns whether it wrote. */
  writeGuarded(name: string, token: number, values: ReadonlyMap<string, string | null>): Promise<boolean>;
  /** The values of a virtual server whose key begins with `prefix` (all without one), as of one moment. */
  readValues(name: string, prefix?: string): Promise<ReadonlyMap<string, string>>;
  /** Their keys alone. */
  readValueKeys(name: string, prefix: string): Promise<readonly string[]>;
  /** Ends every connection. */
  close(): Promise<void>;
}

export interface RecordSwap {
  /** The revision that was seen; 0: there is no record yet. */
  readonly expected: number;
  readonly record: LeaseRecord;
  /** The owner changes: the fence moves to the record's token in the same transaction. */
  readonly takes: boolean;
}

export type SwapAnswer =
  | { readonly swapped: true; readonly revision: number }
  | { readonly swapped: false; readonly observation: Observation };
