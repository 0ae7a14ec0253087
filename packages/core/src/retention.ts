/**
 * Which software revisions are kept (`Common/Revision/Keep`). Pure: the caller says what it knows, and drops what is
 * answered. The current revision is never dropped, nor one that an installation is still at: its manifest is what the
 * next update computes its delta from, and what `rollback` and `verify` compare with.
 */
export interface RetentionInput {
  readonly revisions: readonly number[];
  readonly current: number;
  /** How many of the newest are kept whatever else; at least the current one is. */
  readonly keep: number;
  /** What installations reported, and when, in milliseconds since 1970. */
  readonly reports: readonly { readonly revision: number | null; readonly seenAt: number }[];
  readonly now: number;
}

/** For how long an installation that is not heard of any more keeps its revision: 30 days. */
export const REPORT_COUNTS_MS = 30 * 24 * 60 * 60 * 1000;

/** The revisions to drop, lowest first. */
export function revisionsToDrop(input: RetentionInput): number[] {
  const inUse = new Set<number>();
  for (const { revision, seenAt } of input.reports)
    if (revision !== null && input.now - seenAt <= REPORT_COUNTS_MS) inUse.add(revision);
  const newestFirst = [...input.revisions].sort((a, b) => b - a);
  return newestFirst
    .filter(
      (number, index) => index >= Math.max(1, input.keep) && number !== input.current && !inUse.has(number),
    )
    .reverse();
}
