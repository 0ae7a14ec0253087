import { type ExpandedProcess, type ExpandedStep, expandTemplate } from "@lockstep/core";
import { type JobTemplate, LockstepError } from "@lockstep/protocol";
import type pg from "pg";
import { toJsonText } from "./json-text.ts";

/**
 * Starting a process: all its steps are written in one transaction, those that nothing precedes as ready. Whoever waits
 * for their queues is told by the database.
 */
export interface StartOrder {
  readonly template: JobTemplate;
  /** The name under which the processes of this kind are found together; null: the template came with the order. */
  readonly storedAs: string | null;
  readonly parameters: Readonly<Record<string, unknown>>;
  readonly priority?: number | undefined;
  /** Milliseconds since 1970. */
  readonly startAt?: number | undefined;
  readonly idempotencyKey?: string | undefined;
  readonly startedBy: string;
}

export interface Started {
  readonly process: number;
  /** False: the key had been used, and this is what it started. */
  readonly created: boolean;
  readonly overLimit: boolean;
}

/** Of the advisory locks: whoever counts the processes of a template against its limit holds the one of its name. */
const LIMIT_LOCK_CLASS = 0x4c4f434b;

/**
 * Starts a process, by one statement that is whole in itself; only where the template has a limit `client` must be in a
 * transaction, which holds the count until its end. The template has been checked. Throws JOB_START_INVALID with every
 * fault of the values.
 */
export async function startProcess(client: pg.Pool | pg.PoolClient, order: StartOrder): Promise<Started> {
  const { template } = order;
  const known = await findByKey(client, order.idempotencyKey);
  if (known !== null) return known;
  const expanded = expandTemplate(template, order.parameters, order.priority);
  if ("faults" in expanded)
    throw new LockstepError("JOB_START_INVALID", `${JSON.stringify(template.name)} cannot be started so`, {
      faults: expanded.faults.map(({ at, problem }) => ({ where: at.join("."), problem })),
      hint: `Nothing was started. lockstep job template show ${template.name} lists the parameters.`,
    });
  const overLimit = await isOverLimit(client, template);
  const { rows } = await client.query<{ id: number }>({
    name: "job-start",
    text: START,
    values: [
      template.name,
      order.storedAs,
      overLimit ? "stuck" : "running",
      expanded.priority,
      toJsonText(expanded.parameters),
      [...expanded.hidden],
      order.startedBy,
      order.idempotencyKey ?? null,
      toJsonText(stepRows(expanded, { overLimit, startAt: order.startAt ?? null })),
      expanded.steps.length,
    ],
  });
  const process = rows[0]?.id;
  if (process === undefined) {
    // Somebody else used the key in this moment, and has committed.
    const other = await findByKey(client, order.idempotencyKey);
    if (other !== null) return other;
    throw new LockstepError("INTERNAL", "a process was not started, and no other has its key");
  }
  return { process, created: true, overLimit };
}

async function findByKey(client: pg.Pool | pg.PoolClient, key: string | undefined): Promise<Started | null> {
  if (key === undefined) return null;
  const { rows } = await client.query<{ id: number; overLimit: boolean }>(
    `select id, exists (select from job_step s where s.process_id = p.id and s.state = 'over-limit') as "overLimit"
     from job_process p where idempotency_key = $1`,
    [key],
  );
  const [row] = rows;
  return row === undefined ? null : { process: row.id, created: false, overLimit: row.overLimit };
}

/** A mass of processes of one kind is most often a mistake: beyond its limit they wait for a person. */
async function isOverLimit(client: pg.Pool | pg.PoolClient, { name, limit }: JobTemplate): Promise<boolean> {
  if (limit === undefined) return false;
  await client.query("select pg_advisory_xact_lock($1, hashtext($2))", [LIMIT_LOCK_CLASS, name]);
  const { rows } = await client.query<{ running: number }>(
    `select count(*) as running from job_process p where p.name = $1 and p.finished_at is null
       and not exists (select from job_step s where s.process_id = p.id and s.state = 'over-limit')`,
    [name],
  );
  return (rows[0]?.running ?? 0) >= limit;
}

/**
 * The process with all its steps, in one statement: each turn to the database would be time that the first step waits.
 * Steps name one another by their places in the list until their ids are drawn. Those that are ready get their place in
 * line at once, as job_make_ready would give it: behind what their queue has given out, one behind the other.
 */
const START = `with ids as materialized (
    select array_agg(nextval(pg_get_serial_sequence('job_step', 'id'))) as ids from generate_series(1, $10::int)
  ), given as materialized (
    select s.*, case when s.state = 'ready' then coalesce(v.virtual_time, 0)
        + row_number() over (partition by s.state = 'ready' order by s.priority desc, s.place) else 0 end as fair
    from jsonb_to_recordset($9::jsonb) as s(place int, name text, component text, task text, queue text,
        execution text, parameters jsonb, hidden text[], state text, priority int, "onSuccess" int[],
        "onError" int[], pending int, "startAt" bigint, "delaySeconds" int, retries int, "retryDelaySeconds" int,
        "backOff" boolean, "ignoreErrors" boolean, "freezeOnError" boolean, "onCrash" text, "crashesMax" int,
        "timeLimitSeconds" int, "exclusiveObject" text)
      left join job_server v using (queue)
  ), process as (
    insert into job_process (name, template, state, priority, parameters, hidden, started_by, idempotency_key, fair)
    select $1, $2, $3, $4, $5::jsonb, $6, $7, $8, coalesce(max(fair), 0) from given
    on conflict (idempotency_key) where idempotency_key is not null do nothing returning id
  ), steps as (
    insert into job_step (id, process_id, name, component, task, queue, execution, parameters, hidden, state, priority,
      fair, on_success, on_error, pending, ready_at, delay_s, retries, retry_delay_s, back_off, ignore_errors,
      freeze_on_error, on_crash, crashes_max, time_limit_s, exclusive_object)
    select ids.ids[place], process.id, name, component, task, queue, execution, parameters, hidden, state, priority,
      fair, array(select ids.ids[next] from unnest("onSuccess") as next),
      array(select ids.ids[next] from unnest("onError") as next), pending,
      case when state = 'deferred' then greatest(now(), to_timestamp("startAt" / 1000.0)) + make_interval(secs => "delaySeconds") end,
      "delaySeconds", retries, "retryDelaySeconds", "backOff", "ignoreErrors", "freezeOnError", "onCrash",
      "crashesMax", "timeLimitSeconds", "exclusiveObject"
    from given, process, ids order by place
  )
  select id from process`;

function stepRows(
  { steps }: ExpandedProcess,
  how: { readonly overLimit: boolean; readonly startAt: number | null },
): object[] {
  // Arrays of the database begin at 1.
  const oneUp = (places: readonly number[]) => places.map((place) => place + 1);
  return steps.map((step, index) => ({
    ...step,
    place: index + 1,
    onSuccess: oneUp(step.onSuccess),
    onError: oneUp(step.onError),
    ...firstState(step, how),
  }));
}

function firstState(
  step: ExpandedStep,
  { overLimit, startAt }: { readonly overLimit: boolean; readonly startAt: number | null },
): { state: string; startAt: number | null } {
  if (step.pending > 0) return { state: "waiting", startAt: null };
  if (overLimit) return { state: "over-limit", startAt: null };
  // A moment that has passed is none to wait for; the watch makes it ready within a second.
  return startAt !== null || step.delaySeconds > 0
    ? { state: "deferred", startAt }
    : { state: "ready", startAt: null };
}
