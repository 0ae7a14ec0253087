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
 * Starts a process within the transaction of `client`. The template has been checked. Throws JOB_START_INVALID with
 * every fault of the values.
 */
export async function startProcess(client: pg.PoolClient, order: StartOrder): Promise<Started> {
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
  const { rows } = await client.query<{ id: number }>(
    `insert into job_process (name, template, state, priority, parameters, hidden, started_by, idempotency_key)
     values ($1, $2, $3, $4, $5, $6, $7, $8) on conflict (idempotency_key) do nothing returning id`,
    [
      template.name,
      order.storedAs,
      overLimit ? "stuck" : "running",
      expanded.priority,
      toJsonText(expanded.parameters),
      [...expanded.hidden],
      order.startedBy,
      order.idempotencyKey ?? null,
    ],
  );
  const process = rows[0]?.id;
  if (process === undefined) {
    // Somebody else used the key in this moment, and has committed.
    const other = await findByKey(client, order.idempotencyKey);
    if (other !== null) return other;
    throw new LockstepError("INTERNAL", "a process was not started, and no other has its key");
  }
  await insertSteps(client, process, expanded, { overLimit, startAt: order.startAt ?? null });
  return { process, created: true, overLimit };
}

async function findByKey(client: pg.PoolClient, key: string | undefined): Promise<Started | null> {
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
async function isOverLimit(client: pg.PoolClient, { name, limit }: JobTemplate): Promise<boolean> {
  if (limit === undefined) return false;
  await client.query("select pg_advisory_xact_lock($1, hashtext($2))", [LIMIT_LOCK_CLASS, name]);
  const { rows } = await client.query<{ running: number }>(
    `select count(*) as running from job_process p where p.name = $1 and p.finished_at is null
       and not exists (select from job_step s where s.process_id = p.id and s.state = 'over-limit')`,
    [name],
  );
  return (rows[0]?.running ?? 0) >= limit;
}

async function insertSteps(
  client: pg.PoolClient,
  process: number,
  { steps }: ExpandedProcess,
  how: { readonly overLimit: boolean; readonly startAt: number | null },
): Promise<void> {
  const { rows } = await client.query<{ id: number }>(
    "select nextval(pg_get_serial_sequence('job_step', 'id')) as id from generate_series(1, $1)",
    [steps.length],
  );
  const ids = rows.map(({ id }) => id);
  const idsOf = (places: readonly number[]) => places.map((place) => ids[place] ?? 0);
  const values = steps.map((step, index) => ({
    ...step,
    id: ids[index],
    onSuccess: idsOf(step.onSuccess),
    onError: idsOf(step.onError),
    ...firstState(step, how),
  }));
  await client.query(
    `insert into job_step (id, process_id, name, component, task, queue, execution, parameters, hidden, state, priority,
       on_success, on_error, pending, ready_at, delay_s, retries, retry_delay_s, back_off, ignore_errors,
       freeze_on_error, on_crash, crashes_max, time_limit_s, exclusive_object)
     select id, $1, name, component, task, queue, execution, parameters, hidden, state, priority, "onSuccess",
       "onError", pending,
       case when state = 'deferred' then greatest(now(), to_timestamp("startAt" / 1000.0)) + make_interval(secs => "delaySeconds") end,
       "delaySeconds", retries, "retryDelaySeconds", "backOff", "ignoreErrors", "freezeOnError", "onCrash",
       "crashesMax", "timeLimitSeconds", "exclusiveObject"
     from jsonb_to_recordset($2::jsonb) as s(id bigint, name text, component text, task text, queue text,
       execution text, parameters jsonb, hidden text[], state text, priority int, "onSuccess" bigint[],
       "onError" bigint[], pending int, "startAt" bigint, "delaySeconds" int, retries int, "retryDelaySeconds" int,
       "backOff" boolean, "ignoreErrors" boolean, "freezeOnError" boolean, "onCrash" text, "crashesMax" int,
       "timeLimitSeconds" int, "exclusiveObject" text)`,
    [process, toJsonText(values)],
  );
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
