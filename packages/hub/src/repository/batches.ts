/** How many rows go into one statement: their parameters are text in memory, several times as long as the rows. */
export const ROWS_PER_STATEMENT = 4_000;

/** Cuts rows into batches for one statement each. */
export function* batches<T>(
  rows: readonly T[],
  size = ROWS_PER_STATEMENT,
): Generator<readonly T[], void, undefined> {
  for (let at = 0; at < rows.length; at += size) yield rows.length <= size ? rows : rows.slice(at, at + size);
}
