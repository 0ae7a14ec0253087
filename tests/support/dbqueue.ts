/** DBQueue Processors for tests: quick numbers, and waiting for what must come without counting on time. */
import { silentLogger } from "@lockstep/platform";
import type pg from "pg";
import type { DbQueueTuning } from "../../packages/hub/src/dbqueue/options.ts";
import type { Procedure, TaskRun } from "../../packages/hub/src/dbqueue/procedure.ts";
import { createDbQueue, type DbQueueProcessor } from "../../packages/hub/src/dbqueue/processor.ts";
import type { TestDatabase } from "./postgres.ts";

export const QUICK: Partial<DbQueueTuning> = {
  pollMs: 200,
  heartbeatMs: 50,
  idleReturnMs: 20,
  retryBaseMs: 20,
  retryMaxMs: 200,
};

export function procedure(task: string, run: Procedure["run"], more: Partial<Procedure> = {}): Procedure {
  return { task, description: "", bulk: false, maxInstance: 1, predecessors: [], run, ...more };
}

export async function startQueue(
  database: Pick<TestDatabase, "pool" | "beforeClose">,
  procedures: readonly Procedure[],
  tuning: Partial<DbQueueTuning> = {},
): Promise<DbQueueProcessor & { readonly hubId: string }> {
  const hubId = crypto.randomUUID();
  const queue = createDbQueue({
    pool: database.pool,
    procedures,
    hubId,
    log: silentLogger,
    tuning: { ...QUICK, ...tuning },
  });
  await queue.start();
  let stopped: Promise<void> | null = null;
  const stop: DbQueueProcessor["stop"] = (options) => {
    stopped ??= queue.stop(options);
    return stopped;
  };
  database.beforeClose(() => stop({ graceMs: 0 }));
  return { ...bound(queue), stop, hubId };
}

function bound(queue: DbQueueProcessor): DbQueueProcessor {
  return {
    start: () => queue.start(),
    stop: (options) => queue.stop(options),
    wake: () => queue.wake(),
    status: () => queue.status(),
    setStopped: (stopped, reason) => queue.setStopped(stopped, reason),
  };
}

/** Puts tasks in as any writer would. */
export async function ask(
  database: Pick<TestDatabase, "pool">,
  task: string,
  objects: readonly string[] = [""],
) {
  await database.pool.query("select dbqueue_insert_bulk($1, $2)", [task, objects]);
}

/** Waits until the condition holds; there is no time limit but the test runner's. */
export async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await condition())) await new Promise((resolve) => setTimeout(resolve, 10));
}

/** Whether nothing waits and nothing is being processed. */
export async function isIdle(pool: pg.Pool): Promise<boolean> {
  const { rows } = await pool.query<{ idle: boolean }>(
    "select not exists (select from dbqueue_task) and not exists (select from dbqueue_current) as idle",
  );
  return rows[0]?.idle === true;
}

/** The ground truth of who did what how often: a table that the procedures count in. */
export async function createCounter(pool: pg.Pool): Promise<void> {
  await pool.query("create table counter (object text primary key, n int not null)");
}

/** Counts the objects of a run, in its transaction. */
export async function count(run: TaskRun): Promise<undefined> {
  for (const { object } of run.rows) {
    await run.transaction.client.query(
      "insert into counter values ($1, 1) on conflict (object) do update set n = counter.n + 1",
      [object],
    );
  }
}

export async function counts(pool: pg.Pool): Promise<Map<string, number>> {
  const { rows } = await pool.query<{ object: string; n: number }>(
    "select object, n from counter order by object",
  );
  return new Map(rows.map(({ object, n }) => [object, n]));
}

/** A door that a procedure waits at. */
export function gate() {
  let open: () => void = () => {};
  let arrive: () => void = () => {};
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  const arrived = new Promise<void>((resolve) => {
    arrive = resolve;
  });
  return {
    open,
    /** Resolves when the first one stands at the door. */
    arrived,
    pass: async () => {
      arrive();
      await opened;
    },
  };
}
