import { decideLoss } from "@lockstep/core";
import type { Clock, Logger } from "@lockstep/platform";
import type pg from "pg";
import { isRetryable, withTransaction } from "../db/connect.ts";
import { leaseMsOf } from "./server-row.ts";
import { lockSteps, settleProcesses, settleSteps } from "./steps.ts";
import { endByLoss, isClaimed } from "./told.ts";

/**
 * What time brings about: deferred steps become ready, leases end, old processes are deleted. Every hub does all of it;
 * locks that are skipped when somebody else has them make sure that each thing is done once.
 *
 * After the hubs or the database were away nobody could renew a lease. So no lease is ended before the services have had
 * one lease's time to come back: what they finished meanwhile then still counts.
 */
export interface JobWatchTuning {
  readonly intervalMs: number;
}

export interface JobWatch {
  /** Does everything that is due once. */
  run(): Promise<void>;
  close(): Promise<void>;
}

const INTERVAL_MS = 1_000;
/** So many steps become ready in one transaction. */
const DEFERRED_ROWS = 1_000;
/** So many processes are deleted in one transaction, and how often somebody looks. */
const OLD_ROWS = 200;
const OLD_INTERVAL_MS = 60_000;
const KEEP_DAYS_USUAL = 30;

export function startJobWatch(options: {
  readonly pool: pg.Pool;
  readonly clock: Clock;
  readonly log: Logger;
  readonly tuning?: Partial<JobWatchTuning>;
}): JobWatch {
  const { pool, clock, log } = options;
  const intervalMs = options.tuning?.intervalMs ?? INTERVAL_MS;
  const closing = new AbortController();
  let leaseMs = leaseMsOf(undefined);
  /** Since when the database could be reached without a gap; null: not at present. */
  let reachableSince: number | null = null;
  let lastRun = Number.NEGATIVE_INFINITY;
  let oldDoneAt = Number.NEGATIVE_INFINITY;
  let running: Promise<void> | null = null;

  async function once(): Promise<void> {
    const now = clock.monotonic();
    // A gap: this hub stood still or could not reach the database.
    if (reachableSince === null || now - lastRun > Math.max(leaseMs / 2, 5 * intervalMs))
      reachableSince = now;
    try {
      leaseMs = leaseMsOf(await readSetting(pool, "Common/Jobs/LeaseSeconds"));
      lastRun = now;
      await readyDeferred(pool);
      if (now - reachableSince >= leaseMs) await endLeases(pool, log);
    } catch (error) {
      if (isRetryable(error)) return;
      reachableSince = null;
      if (!closing.signal.aborted) log.warn("cannot look after the job service", { error });
      return;
    }
    if (now - oldDoneAt < OLD_INTERVAL_MS) return;
    oldDoneAt = now;
    // Apart: whatever keeps old processes from being deleted must keep no lease from ending.
    await deleteOld(pool).catch((error: unknown) => {
      if (!closing.signal.aborted) log.warn("old processes cannot be deleted", { error });
    });
  }

  function run(): Promise<void> {
    running ??= once().finally(() => {
      running = null;
    });
    return running;
  }

  async function loop(): Promise<void> {
    while (!closing.signal.aborted) {
      await run();
      await clock.sleep(intervalMs, closing.signal);
    }
  }

  const ended = loop();
  return {
    run,
    close: async () => {
      closing.abort();
      await ended;
    },
  };
}

async function readSetting(pool: pg.Pool, name: string): Promise<unknown> {
  const { rows } = await pool.query<{ value: unknown }>("select value from setting where name = $1", [name]);
  return rows[0]?.value;
}

/** Deferred steps whose time has come. Another hub that does the same skips them. */
async function readyDeferred(pool: pg.Pool): Promise<void> {
  for (;;) {
    const { rows } = await pool.query<{ due: boolean }>(
      "select exists (select from job_step where state = 'deferred' and ready_at <= now()) as due",
    );
    if (rows[0]?.due !== true) return;
    const moved = await withTransaction(pool, async ({ client }) => {
      // Their processes first, as everywhere; one that somebody works on comes the next time.
      const { rows: processes } = await client.query<{ id: number }>(
        `select id from job_process where id in (
           select process_id from job_step where state = 'deferred' and ready_at <= now()
           order by ready_at limit $1
         ) order by id for no key update skip locked`,
        [DEFERRED_ROWS],
      );
      const { rows: due } = await client.query<{ id: number }>(
        `select id from job_step where state = 'deferred' and ready_at <= now() and process_id = any($1::bigint[])
         order by ready_at limit $2`,
        [processes.map(({ id }) => id), DEFERRED_ROWS],
      );
      if (due.length > 0) await client.query("select job_make_ready($1)", [due.map(({ id }) => id)]);
      return due.length;
    });
    if (moved < DEFERRED_ROWS) return;
  }
}

/** Leases that ended: what their services had goes back, or is frozen. One server at a time. */
async function endLeases(pool: pg.Pool, log: Logger): Promise<void> {
  for (;;) {
    const { rows } = await pool.query<{ queue: string }>(
      `select queue from job_server v where lease_until < now() and exists (
         select from job_step s where s.claim_instance = v.instance and s.state in ('loaded', 'processing')
       ) limit 100`,
    );
    let ended = 0;
    for (const { queue } of rows) if (await endLease(pool, log, queue)) ended += 1;
    if (ended === 0) return;
  }
}

async function endLease(pool: pg.Pool, log: Logger, queue: string): Promise<boolean> {
  return await withTransaction(pool, async ({ client }) => {
    const { rows } = await client.query<{ instance: string }>(
      `select instance from job_server where queue = $1 and lease_until < clock_timestamp()
       for no key update skip locked`,
      [queue],
    );
    const instance = rows[0]?.instance;
    if (instance === undefined) return false;
    const { rows: held } = await client.query<{ id: number }>(
      "select id from job_step where claim_instance = $1 and state in ('loaded', 'processing')",
      [instance],
    );
    const steps = await lockSteps(
      client,
      held.map(({ id }) => id),
    );
    const endings = steps
      .filter(isClaimed)
      .filter((step) => step.instance === instance)
      .map((step) => endByLoss(step, decideLoss(step, "service-ended"), true));
    if (endings.length === 0) return false;
    const { processes } = await settleSteps(client, endings);
    await settleProcesses(client, processes);
    await client.query("select pg_notify('lockstep_job', '')");
    log.warn("a job server has been silent for too long; its steps go back", {
      queue,
      steps: endings.length,
    });
    return true;
  });
}

/** Processes that ended long ago, with their steps and history. */
async function deleteOld(pool: pg.Pool): Promise<void> {
  const setting = await readSetting(pool, "Common/Jobs/KeepDays");
  const days = typeof setting === "number" && setting >= 1 ? Math.floor(setting) : KEEP_DAYS_USUAL;
  for (;;) {
    const deleted = await withTransaction(pool, async ({ client }) => {
      const { rows } = await client.query<{ id: number }>(
        `select id from job_process where finished_at < now() - make_interval(days => $1)
         order by finished_at limit $2 for update skip locked`,
        [days, OLD_ROWS],
      );
      const ids = rows.map(({ id }) => id);
      if (ids.length === 0) return 0;
      await client.query(
        "delete from job_run_end where step_id in (select id from job_step where process_id = any($1::bigint[]))",
        [ids],
      );
      await client.query("delete from job_process where id = any($1::bigint[])", [ids]);
      return ids.length;
    });
    if (deleted < OLD_ROWS) return;
  }
}
