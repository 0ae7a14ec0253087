/**
 * Taking tasks: the short transaction that decides what one hub starts next, and the ones that put rows back.
 *
 * Who decides holds the table lock on dbqueue_dispatcher, so decisions happen one after the other over all hubs. LOCK
 * TABLE is the transaction's first statement and takes no snapshot, so the repeatable-read snapshot that the decision
 * rests on is younger than the lock and sees every earlier decision. Writers do not take this lock; one that commits a
 * request for a waiting row meanwhile makes the claim of that row fail with a serialization error, and the claim is
 * tried again: so a predecessor that came with that request is seen as well. A row that a writer is just about to
 * commit is locked by it and skipped; its notification comes with the commit.
 */
import {
  type BlockReason,
  type ClaimOptions,
  decideClaims,
  type ProcessingTask,
  type QueueState,
  type TaskDefinition,
  type WaitingTask,
} from "@lockstep/core";
import type pg from "pg";
import { beginStatement, commit, isRetryable } from "../db/connect.ts";
import type { TaskRow } from "./procedure.ts";

export interface Claim {
  readonly claim: string;
  readonly task: string;
  readonly rows: readonly TaskRow[];
}

export interface ClaimResult {
  readonly claim: Claim | null;
  /** How long until a task that is put off may come back, by the database's clock; null: none. */
  readonly nextDueMs: number | null;
  /** Set when a newer hub has changed the database meanwhile: nothing is claimed any more. */
  readonly newerSchema?: number;
}

export interface ClaimRequest extends Omit<ClaimOptions, "slots" | "unavailable"> {
  /** A fresh UUID: the claim's name. */
  readonly claim: string;
  readonly hubId: string;
  readonly slot: number;
  /** The schema that this hub knows: with a newer one it must not touch anything any more. */
  readonly schema: number;
}

/** Rows of one task that the decision looks at; the first of them by the order that it asks for. */
const ROWS_SEEN = { single: 100 };

/** A hub that freezes in the middle of its decision must not keep the others from deciding. */
const DECISION_IDLE_MS_MAX = 5_000;

/** The queue as the decision needs it, in one snapshot: call it inside a repeatable-read transaction. */
export async function readQueue(
  client: pg.PoolClient,
  bulkRowsMax: number,
): Promise<{ readonly state: QueueState; readonly now: number; readonly schema: number }> {
  const definitions = await client.query<TaskDefinition>(
    `select task, bulk, max_instance as "maxInstance",
       array(select p.predecessor from dbqueue_predecessor p where p.task = d.task order by 1) as predecessors
     from dbqueue_definition d order by task`,
  );
  const waiting = await client.query<WaitingTask>(
    `select row.* from (select distinct task from dbqueue_task) as named
     left join dbqueue_definition d using (task)
     cross join lateral (
       select id, task, object, sub_object as "subObject", attempts,
         (extract(epoch from not_before) * 1000)::float8 as "notBefore",
         (extract(epoch from idle_from) * 1000)::float8 as "idleFrom"
       from dbqueue_task t where t.task = named.task
       order by coalesce(not_before <= now(), true) desc,
         case when coalesce(not_before <= now(), true) then 0 else attempts end, id
       limit case when d.bulk then $1::int else $2::int end
     ) as row`,
    [bulkRowsMax, ROWS_SEEN.single],
  );
  const processing = await client.query<ProcessingTask>(
    `select task, object, sub_object as "subObject", claim from dbqueue_current`,
  );
  const { rows } = await client.query<{ stopped: boolean; now: number; schema: number }>(
    `select coalesce((select value = 'true'::jsonb from setting where name = 'DBQueue/Stopped'), false) as stopped,
       (extract(epoch from now()) * 1000)::float8 as now,
       (select max(number) from schema_migration) as schema`,
  );
  return {
    state: {
      definitions: definitions.rows,
      waiting: waiting.rows,
      processing: processing.rows,
      stopped: rows[0]?.stopped === true,
    },
    now: rows[0]?.now ?? 0,
    schema: rows[0]?.schema ?? 0,
  };
}

/**
 * Claims at most one task for this hub on this connection, which must then also run it: the claim names the
 * connection's server process, and the watchdog takes the claim away when that is gone.
 */
export async function claimNext(client: pg.PoolClient, request: ClaimRequest): Promise<ClaimResult> {
  for (;;) {
    try {
      await client.query(beginStatement({ isolation: "repeatable read" }));
      await client.query(`set local idle_in_transaction_session_timeout = ${DECISION_IDLE_MS_MAX}`);
      await client.query("lock table dbqueue_dispatcher in exclusive mode");
      const result = await decideAndTake(client, request);
      await commit(client);
      return result;
    } catch (error) {
      await client.query("rollback").catch(() => {
        throw error;
      });
      // Somebody asked for that very task in this moment. Each repetition means that somebody else got on.
      if (!isRetryable(error)) throw error;
    }
  }
}

async function decideAndTake(client: pg.PoolClient, request: ClaimRequest): Promise<ClaimResult> {
  const { state, now, schema } = await readQueue(client, request.bulkRowsMax);
  if (schema > request.schema) return { claim: null, nextDueMs: null, newerSchema: schema };
  const unavailable = new Set<number>();
  for (;;) {
    const { claims, nextDueAt } = decideClaims(state, now, { ...request, slots: 1, unavailable });
    const nextDueMs = nextDueAt === null ? null : Math.max(0, nextDueAt - now);
    const wanted = claims[0];
    if (wanted === undefined) return { claim: null, nextDueMs };
    const rows = await take(client, request, wanted.ids);
    if (rows.length > 0) return { claim: { claim: request.claim, task: wanted.task, rows }, nextDueMs };
    // All of them locked by writers that are about to commit: another task may go first.
    for (const id of wanted.ids) unavailable.add(id);
  }
}

async function take(
  client: pg.PoolClient,
  request: ClaimRequest,
  ids: readonly number[],
): Promise<readonly TaskRow[]> {
  const { rows } = await client.query<TaskRow>(
    `with locked as (
       select id from dbqueue_task where id = any($1::bigint[]) for update skip locked
     ), taken as (
       delete from dbqueue_task where id in (select id from locked) returning *
     )
     insert into dbqueue_current
       (id, task, object, sub_object, created_at, attempts, claim, hub, slot, pid, backend_start)
     select taken.id, task, object, sub_object, created_at, attempts, $2, $3, $4, self.pid, self.backend_start
     from taken, pg_stat_activity as self where self.pid = pg_backend_pid()
     returning id, object, sub_object as "subObject", attempts`,
    [ids, request.claim, request.hubId, request.slot],
  );
  return rows;
}

/** How rows return to the queue. */
export interface PutBack {
  /** What the journal calls it. */
  readonly event: "deferred" | "failed" | "given-back";
  readonly reason: string;
  /** Milliseconds until they may be tried again; null: at once. */
  readonly notBeforeMs: number | null;
  /** Milliseconds until they may return to an otherwise empty queue; null: not before notBeforeMs. */
  readonly idleFromMs: number | null;
  /** Whether this counts as a failed try. */
  readonly countsAsAttempt: boolean;
}

/**
 * Puts rows of a claim back among the waiting ones; all of them when no ids are given. One that waits there already,
 * put in by a newer change, absorbs it. Returns how many rows the claim still held.
 */
export async function putBack(
  client: pg.Pool | pg.PoolClient,
  claim: string,
  how: PutBack,
  ids: readonly number[] | null = null,
): Promise<number> {
  const { rowCount } = await client.query(
    `with back as (
       delete from dbqueue_current where claim = $1 and ($2::bigint[] is null or id = any($2)) returning *
     ), queued as (
       insert into dbqueue_task
         (id, task, object, sub_object, created_at, not_before, idle_from, attempts, deferred_reason)
       select id, task, object, sub_object, created_at,
         clock_timestamp() + make_interval(secs => $3::float8 / 1000),
         clock_timestamp() + make_interval(secs => $4::float8 / 1000),
         attempts + $5, $6
       from back order by task, object, sub_object
       on conflict (task, object, sub_object) do update
         set attempts = excluded.attempts, created_at = least(dbqueue_task.created_at, excluded.created_at)
     ), written as (
       insert into dbqueue_journal (task, event, detail)
       select task, $7, case when count(*) = 1 then '' else count(*) || ' rows: ' end || $8
       from back group by task
     ), told as (
       select pg_notify('lockstep_dbqueue', '') from back limit 1
     )
     select back.id from back left join told on true`,
    [
      claim,
      ids,
      how.notBeforeMs,
      how.idleFromMs,
      how.countsAsAttempt ? 1 : 0,
      how.notBeforeMs === null ? null : how.reason,
      how.event,
      how.reason,
    ],
  );
  return rowCount ?? 0;
}

/** A block reason for people. */
export function describeBlock(reason: BlockReason): string {
  switch (reason.kind) {
    case "stopped":
      return "the emergency stop is set";
    case "no-procedure":
      return "no hub has a procedure for it";
    case "predecessor":
      return `waits for ${reason.task}`;
    case "instances":
      return `runs already (at most ${reason.max} at once)`;
    case "deferred":
      return `put off until ${new Date(reason.until).toISOString()}`;
    case "slots":
      return "all slots are busy";
  }
}
