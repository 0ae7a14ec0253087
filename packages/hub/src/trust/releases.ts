import type { ReleaseEntry } from "@lockstep/trust";
import type pg from "pg";

/** More at once are asked for in turns. */
const ENTRIES_MAX = 10_000;

/** The entries of the log of releases after `after`, up to `to`. */
export async function releaseEntries(
  pool: pg.Pool,
  epoch: number,
  after: number,
  to: number,
): Promise<ReleaseEntry[]> {
  const { rows } = await pool.query<ReleaseEntry>(
    `select index, revision, encode(digest, 'hex') as digest from trust_release
     where epoch = $1 and index > $2 and index <= $3 order by index limit $4`,
    [epoch, after, to, ENTRIES_MAX],
  );
  return rows;
}
