/**
 * Claims of the dead. A claim names the database session whose transaction will end it, so it is dead
 *
 * - when that session is gone: its transaction has been rolled back, or has committed and then the claim is gone too;
 * - when its hub has not said for a long time that it is alive (frozen, cut off): the session is ended first, so that
 *   no transaction of the old run stays open beside the new one.
 *
 * Even if both were wrong nothing is done twice: a run commits only together with the removal of its own claim.
 */
import { backOffMs } from "@lockstep/core";
import type { Logger } from "@lockstep/platform";
import type pg from "pg";
import { putBack } from "./claim.ts";
import type { DbQueueTuning } from "./options.ts";

interface DeadClaim {
  readonly claim: string;
  readonly task: string;
  readonly hub: string;
  readonly attempts: number;
  readonly gone: boolean;
}

/** Gives the claims of dead hubs and ended sessions back. Returns how many rows. */
export async function giveBackDead(
  client: pg.Pool | pg.PoolClient,
  tuning: DbQueueTuning,
  log: Logger,
): Promise<number> {
  const dead = await client.query<DeadClaim>(
    `with held as (
       select claim, min(task) as task, min(hub) as hub, max(attempts) as attempts,
         min(pid) as pid, min(backend_start) as backend_start
       from dbqueue_current group by claim
     ), judged as (
       select held.*,
         not exists (select from pg_stat_activity a
           where a.pid = held.pid and coalesce(a.backend_start = held.backend_start, true)) as gone,
         not exists (select from dbqueue_hub h
           where h.hub = held.hub and h.heartbeat_at > clock_timestamp() - make_interval(secs => $1::float8 / 1000)) as silent
       from held
     )
     select claim, task, hub, attempts, gone,
       case when silent and not gone then (
         select bool_and(pg_terminate_backend(a.pid)) from pg_stat_activity a
         where a.pid = judged.pid and a.backend_start = judged.backend_start and a.usename = current_user
       ) end as ended
     from judged where gone or silent`,
    [tuning.deadAfterMs],
  );
  let rows = 0;
  for (const claim of dead.rows) {
    const attempts = claim.attempts + 1;
    const reason = claim.gone
      ? `the session of hub ${claim.hub} ended in the middle`
      : `hub ${claim.hub} has been silent for too long`;
    const back = await putBack(client, claim.claim, {
      event: "given-back",
      reason,
      // The first time at once: most likely the hub was killed, not the task at fault.
      notBeforeMs:
        claim.attempts === 0
          ? null
          : backOffMs(attempts, { baseMs: tuning.retryBaseMs, maxMs: tuning.retryMaxMs }),
      idleFromMs: null,
      countsAsAttempt: true,
    });
    if (back > 0) log.warn("a task was given back", { task: claim.task, claim: claim.claim, reason });
    rows += back;
  }
  return rows;
}

/** Says that this hub is alive; with `firstTime` also since when. */
export async function heartbeat(client: pg.Pool | pg.PoolClient, hubId: string): Promise<void> {
  await client.query(
    `insert into dbqueue_hub (hub, heartbeat_at) values ($1, clock_timestamp())
     on conflict (hub) do update set heartbeat_at = excluded.heartbeat_at`,
    [hubId],
  );
}

/** Keeps the journal bounded, and forgets hubs that have long been gone. */
export async function prune(client: pg.Pool | pg.PoolClient, journalRowsMax: number): Promise<void> {
  await client.query(
    `delete from dbqueue_journal where id <= (
       select id from dbqueue_journal order by id desc offset $1 limit 1)`,
    [journalRowsMax],
  );
  await client.query("delete from dbqueue_hub where heartbeat_at < now() - interval '1 day'");
}
