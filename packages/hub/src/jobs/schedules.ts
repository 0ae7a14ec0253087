import { expandTemplate, maskParameters } from "@lockstep/core";
import type { Clock, Logger } from "@lockstep/platform";
import {
  isLockstepError,
  type JobSchedule,
  LockstepError,
  type ScheduleList,
  type ScheduleState,
} from "@lockstep/protocol";
import { Cron } from "croner";
import type pg from "pg";
import { withTransaction } from "../db/connect.ts";
import { toJsonText } from "./json-text.ts";
import { startProcess } from "./start.ts";
import { readTemplate } from "./templates.ts";
import { WallClock } from "./wall-clock.ts";

/**
 * Processes that start by themselves.
 *
 * A schedule's row holds its next due time. Whichever hub comes first after that time locks the row, starts the process
 * and moves the time on, in one transaction; the others skip a locked row and find it done. The due time is also in the
 * process's idempotency key, so that not even a row that was put back by hand starts it twice.
 *
 * A due time that is met later than LATE_MS was missed: nobody ran. With `catchUp` one process starts for all that were
 * missed, for the newest of them; without, they are passed over. What counts is the database's clock, the same for all.
 *
 * Times are wall-clock times of a time zone. A time that the clocks skip in spring runs at the moment they skip to
 * (02:30 at 03:00); one that comes twice in autumn runs the first time alone. An expression that says every hour or
 * every so many minutes runs in both.
 */
const LATE_MS = 60_000;
/** So many due schedules are dealt with in one transaction each before anybody else gets a turn. */
const ROUND_MAX = 100;
const TICK_MS = 1_000;

/** Reads a cron expression. Returns the next time after `afterMs` in milliseconds since 1970, or null: never. Throws Error. */
export function nextDue(cron: string, timeZone: string, afterMs: number): number | null {
  const schedule = new Cron(cron, { timezone: timeZone, paused: true, mode: "5-or-6-parts" });
  try {
    const wall = WallClock.of(cron, timeZone);
    let due = schedule.nextRun(new Date(afterMs));
    while (due !== null && wall?.isRepeat(due.getTime()) === true) due = schedule.nextRun(due);
    const next = due?.getTime() ?? null;
    const gap = wall?.endOfGap(afterMs) ?? null;
    return gap === null || gap <= afterMs || (next !== null && next <= gap) ? next : gap;
  } finally {
    schedule.stop();
  }
}

interface ScheduleRow {
  readonly name: string;
  readonly template: string;
  readonly parameters: Record<string, unknown>;
  readonly cron: string;
  readonly timeZone: string;
  readonly enabled: boolean;
  readonly catchUp: boolean;
  readonly skipWhileRunning: boolean;
  readonly nextAt: Date | null;
  readonly lastAt: Date | null;
  readonly lastProcess: number | null;
  readonly lastProblem: string | null;
}

const COLUMNS = `s.name, s.template, s.parameters, s.cron, s.time_zone as "timeZone", s.enabled, s.catch_up as "catchUp",
  s.skip_while_running as "skipWhileRunning", s.next_at as "nextAt", s.last_at as "lastAt",
  s.last_process as "lastProcess", s.last_problem as "lastProblem"`;

export async function listSchedules(pool: pg.Pool): Promise<ScheduleList> {
  const { rows } = await pool.query<ScheduleRow & { readonly hidden: string[] | null }>(
    `select ${COLUMNS}, (select array_agg(key) from jsonb_each(t.definition -> 'parameters') as p(key, value)
         where value -> 'hidden' = 'true') as hidden
     from job_schedule s join job_template t on t.name = s.template order by s.name`,
  );
  return { schedules: rows.map((row) => toState(row, row.hidden ?? [])) };
}

function toState(row: ScheduleRow, hidden: readonly string[]): ScheduleState {
  const { name, template, cron, timeZone, enabled, catchUp, skipWhileRunning } = row;
  return {
    schedule: {
      name,
      template,
      parameters: maskParameters(row.parameters, hidden, []),
      cron,
      timeZone,
      enabled,
      catchUp,
      skipWhileRunning,
    },
    nextAt: row.nextAt?.getTime() ?? null,
    lastAt: row.lastAt?.getTime() ?? null,
    lastProcess: row.lastProcess,
    lastProblem: row.lastProblem,
  };
}

/**
 * Stores a schedule under its name, in place of the one that was there; its next time counts from now. A hidden value
 * that is given as `<HIDDEN>` stays what it was. Throws JOB_SCHEDULE_INVALID with every fault, JOB_TEMPLATE_UNKNOWN.
 */
export async function putSchedule(pool: pg.Pool, schedule: JobSchedule): Promise<ScheduleState> {
  return await withTransaction(pool, async ({ client }) => {
    // Nobody may remove the template in the meantime.
    await client.query("select from job_template where name = $1 for key share", [schedule.template]);
    const template = await readTemplate(client, schedule.template);
    const { rows } = await client.query<{ now: Date; parameters: Record<string, unknown> | null }>(
      "select now() as now, (select parameters from job_schedule where name = $1 for update) as parameters",
      [schedule.name],
    );
    const now = rows[0]?.now.getTime() ?? 0;
    const former = rows[0]?.parameters ?? {};
    const parameters = Object.fromEntries(
      Object.entries(schedule.parameters ?? {}).map(([name, value]) => [
        name,
        value === "<HIDDEN>" && template.parameters?.[name]?.hidden === true ? former[name] : value,
      ]),
    );
    const timeZone = schedule.timeZone ?? "UTC";
    const { due, faults } = checkTimes(schedule.cron, timeZone, now);
    for (const [name, value] of Object.entries(parameters))
      if (value === undefined)
        faults.push({
          where: `parameters.${name}`,
          problem: "<HIDDEN> stands for a stored value, and none is stored here",
        });
    const expanded = expandTemplate(template, parameters);
    if ("faults" in expanded)
      faults.push(...expanded.faults.map(({ at, problem }) => ({ where: at.join("."), problem })));
    if (faults.length > 0)
      throw new LockstepError("JOB_SCHEDULE_INVALID", `the schedule ${schedule.name} cannot be stored`, {
        faults,
        hint: "Nothing was stored. docs/operating/jobs.md describes the fields.",
      });
    const enabled = schedule.enabled ?? true;
    const stored = await client.query<ScheduleRow>(
      `insert into job_schedule as s
         (name, template, parameters, cron, time_zone, enabled, catch_up, skip_while_running, next_at)
       values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
       on conflict (name) do update set template = excluded.template, parameters = excluded.parameters,
         cron = excluded.cron, time_zone = excluded.time_zone, enabled = excluded.enabled,
         catch_up = excluded.catch_up, skip_while_running = excluded.skip_while_running,
         next_at = excluded.next_at, last_problem = null
       returning ${COLUMNS}`,
      [
        schedule.name,
        schedule.template,
        toJsonText(parameters),
        schedule.cron,
        timeZone,
        enabled,
        schedule.catchUp ?? false,
        schedule.skipWhileRunning ?? false,
        enabled && due !== null ? new Date(due) : null,
      ],
    );
    const [row] = stored.rows;
    if (row === undefined) throw new LockstepError("INTERNAL", "a schedule was stored and is not there");
    const hidden = Object.keys(template.parameters ?? {}).filter(
      (name) => template.parameters?.[name]?.hidden === true,
    );
    return toState(row, hidden);
  });
}

function checkTimes(cron: string, timeZone: string, now: number) {
  const faults: { where: string; problem: string }[] = [];
  let due: number | null = null;
  if (!isTimeZone(timeZone))
    faults.push({
      where: "timeZone",
      problem: `${JSON.stringify(timeZone)} is no time zone such as Europe/Berlin`,
    });
  else
    try {
      due = nextDue(cron, timeZone, now);
      if (due === null)
        faults.push({ where: "cron", problem: `${JSON.stringify(cron)} fits no moment to come` });
    } catch (error) {
      const found = error instanceof Error ? error.message.replace(/^CronPattern: /, "") : String(error);
      faults.push({ where: "cron", problem: `${JSON.stringify(cron)}: ${found}` });
    }
  return { due, faults };
}

function isTimeZone(name: string): boolean {
  try {
    new Intl.DateTimeFormat("en", { timeZone: name });
    return true;
  } catch {
    return false;
  }
}

/** Throws JOB_SCHEDULE_UNKNOWN. Processes that it has started go on. */
export async function removeSchedule(pool: pg.Pool, name: string): Promise<void> {
  const { rowCount } = await pool.query("delete from job_schedule where name = $1", [name]);
  if (rowCount === 0)
    throw new LockstepError("JOB_SCHEDULE_UNKNOWN", `there is no schedule ${JSON.stringify(name)}`, {
      hint: "lockstep job schedule list shows what there is.",
    });
}

/** Deals with every schedule that is due now. Returns how many due times it dealt with. */
export async function runDueSchedules(pool: pg.Pool, log: Logger): Promise<number> {
  // Asked outside a transaction: most of the time there is none.
  let dealt = 0;
  const failed: string[] = [];
  for (let round = 0; round < ROUND_MAX; round++) {
    const { rows } = await pool.query<{ due: boolean }>(
      "select exists (select from job_schedule where next_at <= now() and name <> all($1::text[])) as due",
      [failed],
    );
    if (rows[0]?.due !== true) break;
    let name: string | null = null;
    try {
      const found = await runNextDue(pool, log, failed, (taken) => {
        name = taken;
      });
      if (!found) break;
      dealt += 1;
    } catch (error) {
      if (name === null) throw error;
      // It is tried again the next time; until then it holds up none of those that are due after it.
      failed.push(name);
      log.warn("a schedule could not be run", { schedule: name, error });
    }
  }
  return dealt;
}

/** Returns false when every due schedule is in the hands of another hub. Tells first which one it takes. */
async function runNextDue(
  pool: pg.Pool,
  log: Logger,
  except: readonly string[],
  take: (name: string) => void,
): Promise<boolean> {
  return await withTransaction(pool, async ({ client }) => {
    const { rows } = await client.query<ScheduleRow & { readonly now: Date }>(
      `select ${COLUMNS}, now() as now from job_schedule s where next_at <= now() and name <> all($1::text[])
       order by next_at, name limit 1 for update skip locked`,
      [except],
    );
    const [row] = rows;
    if (row?.nextAt == null) return false;
    take(row.name);
    const plan = planDue(row, row.nextAt.getTime(), row.now.getTime());
    const result =
      plan.startFor === null
        ? { process: null, problem: plan.problem }
        : await startDue(client, row, plan.startFor);
    if (result.problem !== null)
      log.warn("a schedule started no process", { schedule: row.name, problem: result.problem });
    await client.query(
      `update job_schedule set next_at = $2, last_at = $3, last_process = coalesce($4, last_process), last_problem = $5
       where name = $1`,
      [
        row.name,
        plan.nextAt === null ? null : new Date(plan.nextAt),
        new Date(plan.dealtWith),
        result.process,
        result.problem,
      ],
    );
    return true;
  });
}

interface DuePlan {
  /** The due time for which a process is to start; null: none. */
  readonly startFor: number | null;
  readonly problem: string | null;
  readonly dealtWith: number;
  readonly nextAt: number | null;
}

/** What a due time asks for, by how late it is met. Times in milliseconds since 1970. */
export function planDue(
  schedule: Pick<ScheduleRow, "cron" | "timeZone" | "catchUp">,
  due: number,
  now: number,
): DuePlan {
  const following = (after: number) => nextDue(schedule.cron, schedule.timeZone, after);
  if (now - due <= LATE_MS) return { startFor: due, problem: null, dealtWith: due, nextAt: following(due) };
  const nextAt = following(now);
  const newest = newestBefore(schedule, due, now);
  const since = new Date(due).toISOString();
  return schedule.catchUp
    ? { startFor: newest, problem: null, dealtWith: newest, nextAt }
    : { startFor: null, problem: `nobody ran at ${since}; passed over`, dealtWith: newest, nextAt };
}

/** The newest due time up to now. A schedule of every second that was away for a year has millions of them. */
function newestBefore(
  { cron, timeZone }: Pick<ScheduleRow, "cron" | "timeZone">,
  due: number,
  now: number,
): number {
  for (let back = LATE_MS; back < now - due; back *= 4) {
    let newest = nextDue(cron, timeZone, now - back);
    if (newest === null || newest > now) continue;
    for (let next = nextDue(cron, timeZone, newest); next !== null && next <= now; ) {
      newest = next;
      next = nextDue(cron, timeZone, newest);
    }
    return newest;
  }
  return due;
}

async function startDue(
  client: pg.PoolClient,
  row: ScheduleRow,
  due: number,
): Promise<{ process: number | null; problem: string | null }> {
  if (row.skipWhileRunning && row.lastProcess !== null) {
    const { rows } = await client.query("select from job_process where id = $1 and finished_at is null", [
      row.lastProcess,
    ]);
    if (rows.length > 0) return { process: null, problem: `process ${row.lastProcess} has not ended yet` };
  }
  await client.query("savepoint start");
  try {
    const { process } = await startProcess(client, {
      template: await readTemplate(client, row.template),
      storedAs: row.template,
      parameters: row.parameters,
      idempotencyKey: `schedule:${row.name}:${new Date(due).toISOString()}`,
      startedBy: `schedule ${row.name}`,
    });
    await client.query("release savepoint start");
    return { process, problem: null };
  } catch (error) {
    // A template that has changed since is a matter for people; anything else is tried again.
    if (!isLockstepError(error, "JOB_START_INVALID", "JOB_TEMPLATE_UNKNOWN")) throw error;
    await client.query("rollback to savepoint start");
    const said = error.faults.map(({ where, problem }) => `${where} ${problem}`).join("; ");
    return { process: null, problem: said === "" ? error.message : `${error.message}: ${said}` };
  }
}

export interface ScheduleRunner {
  stop(): Promise<void>;
}

/** Looks every second for schedules that are due, until it is stopped. */
export function startSchedules(pool: pg.Pool, clock: Clock, log: Logger): ScheduleRunner {
  const stopping = new AbortController();
  const run = async () => {
    while (!stopping.signal.aborted) {
      try {
        await runDueSchedules(pool, log);
      } catch (error) {
        log.warn("schedules could not be run", { error });
      }
      await clock.sleep(TICK_MS, stopping.signal);
    }
  };
  const running = run();
  return {
    stop: async () => {
      stopping.abort();
      await running;
    },
  };
}
