import { decideClaims, orderTasks } from "@lockstep/core";
import type { DbQueue } from "@lockstep/protocol";
import type pg from "pg";
import { withTransaction } from "../db/connect.ts";
import { describeBlock, readQueue } from "./claim.ts";
import type { DbQueueTuning } from "./options.ts";

const JOURNAL_ROWS = 100;

/** What waits, what runs, what was put off, and why (GET /v1/dbqueue), in one snapshot over all hubs. */
export function readStatus(pool: pg.Pool, tuning: DbQueueTuning): Promise<DbQueue> {
  return withTransaction(
    pool,
    async ({ client, db }) => {
      const { state, now } = await readQueue(client, tuning.bulkRowsMax);
      const known = new Set(state.definitions.map(({ task }) => task));
      const { blocked } = decideClaims(state, now, { ...tuning, slots: Infinity, capable: known });
      const ordered = orderTasks(state.definitions);
      const counts = await readCounts(client);
      const reason = await db
        .selectFrom("setting")
        .select("value")
        .where("name", "=", "DBQueue/StoppedReason")
        .executeTakeFirst();
      const journal = await db
        .selectFrom("dbqueue_journal")
        .selectAll()
        .orderBy("id", "desc")
        .limit(JOURNAL_ROWS)
        .execute();
      const tasks = [...new Set([...known, ...counts.keys()])].map((task) => {
        const count = counts.get(task);
        const block = blocked.get(task);
        return {
          task,
          sortOrder: (ordered.kind === "order" ? ordered.order.get(task) : undefined) ?? 0,
          waiting: (count?.waiting ?? 0) - (count?.deferred ?? 0),
          processing: count?.processing ?? 0,
          deferred: count?.deferred ?? 0,
          oldestAt: count?.oldestAt?.getTime() ?? null,
          blockedBy: block === undefined ? null : describeBlock(block),
          lastError: count?.lastError ?? null,
        };
      });
      return {
        stopped: state.stopped,
        stoppedReason:
          state.stopped && typeof reason?.value === "string" && reason.value !== "" ? reason.value : null,
        tasks: tasks.sort((a, b) => a.sortOrder - b.sortOrder || (a.task < b.task ? -1 : 1)),
        journal: journal.map(({ at, task, event, detail }) => ({ at: at.getTime(), task, event, detail })),
      };
    },
    { isolation: "repeatable read", readOnly: true },
  );
}

interface TaskCounts {
  readonly task: string;
  readonly waiting: number;
  readonly deferred: number;
  readonly processing: number;
  readonly oldestAt: Date | null;
  readonly lastError: string | null;
}

async function readCounts(client: pg.PoolClient): Promise<ReadonlyMap<string, TaskCounts>> {
  const { rows } = await client.query<TaskCounts>(
    `select coalesce(w.task, c.task) as task, coalesce(waiting, 0) as waiting, coalesce(deferred, 0) as deferred,
       coalesce(processing, 0) as processing, least(w.oldest, c.oldest) as "oldestAt", reason as "lastError"
     from (
       select task, count(*) as waiting, count(*) filter (where not_before > now()) as deferred,
         min(created_at) as oldest, (array_agg(deferred_reason order by id desc) filter (where deferred_reason is not null))[1] as reason
       from dbqueue_task group by task
     ) as w full join (
       select task, count(*) as processing, min(created_at) as oldest from dbqueue_current group by task
     ) as c on c.task = w.task`,
  );
  return new Map(rows.map((row) => [row.task, row]));
}
