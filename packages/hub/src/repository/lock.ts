import { LockstepError } from "@lockstep/protocol";
import type pg from "pg";
import { sqlState } from "../db/connect.ts";
import { demandKnownSchema } from "../db/migrate.ts";

/**
 * Whoever changes file revisions through the hub holds this lock until its transaction ends, over all hubs of one
 * database. So a load decides on what is really there, and no content that it counts on is collected meanwhile.
 * Readers and the recalculation never take it, and an upload only when all of it is there: nobody waits for a slow line.
 */
const REPOSITORY_LOCK = 0x4c4f434b_00000002n;
/** Together with the wait at the gate shorter than what clients endure in silence. */
const WAIT_MS = 40_000;

/** Waits for the lock, within the transaction of `client`. Throws HUB_BUSY when another holds it for too long, DATABASE_SCHEMA_NEWER. */
export async function lockRepository(client: pg.PoolClient, waitMs = WAIT_MS): Promise<void> {
  try {
    await client.query(`set local lock_timeout = ${Math.max(1, Math.round(waitMs))}`);
    await client.query("select pg_advisory_xact_lock($1)", [REPOSITORY_LOCK]);
    await client.query("set local lock_timeout = 0");
    await demandKnownSchema(client);
  } catch (error) {
    if (sqlState(error) !== "55P03") throw error;
    throw new LockstepError("HUB_BUSY", "another change of files is under way", {
      expected: `its end within ${Math.round(waitMs / 1000)} s`,
      hint: "Try again when it is done.",
      retryAfterSeconds: 10,
      cause: error,
    });
  }
}

/** Takes the lock if nobody holds it. Returns whether it did. */
export async function tryLockRepository(client: pg.PoolClient): Promise<boolean> {
  const { rows } = await client.query<{ locked: boolean }>("select pg_try_advisory_xact_lock($1) as locked", [
    REPOSITORY_LOCK,
  ]);
  return rows[0]?.locked === true;
}
