import { maskText } from "@lockstep/core";
import { LockstepError, type Reactivate, type Reactivated } from "@lockstep/protocol";
import type pg from "pg";
import { withTransaction } from "../db/connect.ts";
import { readSecrets } from "./secrets.ts";
import { type LockedStep, lockSteps, type StepEnding, settleProcesses, settleSteps } from "./steps.ts";

/**
 * A person decides about steps that wait for one: frozen, missing and over limit. Either one by one or all that match,
 * in one transaction, so that what was shown as done is done.
 *
 * `step`: the same again, with all its tries. `success` and `error`: as if it had ended so. `chain`: the whole process
 * from its beginning. A process of which another step is being worked on cannot begin anew: that step would run twice at
 * the same time.
 */
const STEPS_MAX = 10_000;
const MESSAGE_SHOWN = 300;

interface FoundStep {
  readonly id: number;
  readonly process: number;
  readonly processName: string;
  readonly name: string;
  readonly queue: string;
  readonly state: "frozen" | "missing" | "over-limit";
  readonly message: string;
  /** Another step of its process is loaded or processing. */
  readonly busy: boolean;
}

/** Carries the order out, or only says what it would do. An order that matches nothing changes nothing. */
export async function reactivate(pool: pg.Pool, order: Reactivate, by: string): Promise<Reactivated> {
  const dryRun = order.dryRun === true;
  return await withTransaction(pool, async ({ client }) => {
    const seen = await findSteps(client, order);
    const more = seen.length > STEPS_MAX;
    const wanted = seen.slice(0, STEPS_MAX);
    const locked = dryRun ? null : await lockSteps(client, await idsToLock(client, order, wanted));
    // What was seen before the lock may have gone on meanwhile.
    const found = locked === null ? wanted : keepWaiting(await findSteps(client, order), wanted);
    const refusals = found.map((step) =>
      order.as === "chain" && step.busy
        ? "another step of its process is being worked on; wait for its end, or cancel the process"
        : null,
    );
    if (locked !== null) {
      const accepted = new Set(found.filter((_, index) => refusals[index] === null).map(({ id }) => id));
      await carryOut(client, order.as, locked, accepted, by);
    }
    const secrets = await readSecrets(client, [...new Set(found.map(({ process }) => process))]);
    return {
      dryRun,
      as: order.as,
      more,
      steps: found.map(({ busy: _busy, ...step }, index) => ({
        ...step,
        message: maskText(step.message, secrets.get(step.process) ?? []).slice(0, MESSAGE_SHOWN),
        refused: refusals[index] ?? null,
      })),
    };
  });
}

async function findSteps(client: pg.PoolClient, { where }: Reactivate): Promise<FoundStep[]> {
  const { rows } = await client.query<FoundStep>(
    `select s.id, s.process_id as process, p.name as "processName", s.name, s.queue, s.state, s.message,
       exists (select from job_step o where o.process_id = s.process_id and o.state in ('loaded', 'processing')) as busy
     from job_step s join job_process p on p.id = s.process_id
     where s.state in ('frozen', 'missing', 'over-limit')
       and ($1::bigint[] is null or s.id = any($1)) and ($2::bigint is null or s.process_id = $2)
       and ($3::text is null or p.template = $3 or p.name = $3) and ($4::text is null or s.queue = $4)
       and ($5::text is null or s.component = $5) and ($6::text is null or s.task = $6)
       and ($7::text is null or s.state = $7)
       and ($8::text is null or strpos(lower(s.message), lower($8)) > 0)
     order by s.id limit $9`,
    [
      where.steps ?? null,
      where.process ?? null,
      where.template ?? null,
      where.queue ?? null,
      where.component ?? null,
      where.task ?? null,
      where.state ?? null,
      where.message ?? null,
      STEPS_MAX + 1,
    ],
  );
  return rows;
}

/** `chain` changes every step of the processes. */
async function idsToLock(
  client: pg.PoolClient,
  { as }: Reactivate,
  found: readonly FoundStep[],
): Promise<number[]> {
  if (as !== "chain") return found.map(({ id }) => id);
  const { rows } = await client.query<{ id: number }>(
    "select id from job_step where process_id = any($1) order by id",
    [[...new Set(found.map(({ process }) => process))]],
  );
  return rows.map(({ id }) => id);
}

function keepWaiting(now: readonly FoundStep[], wanted: readonly FoundStep[]): FoundStep[] {
  const ids = new Set(wanted.map(({ id }) => id));
  return now.filter(({ id }) => ids.has(id));
}

async function carryOut(
  client: pg.PoolClient,
  as: Reactivate["as"],
  locked: readonly LockedStep[],
  accepted: ReadonlySet<number>,
  by: string,
): Promise<void> {
  const steps = locked.filter(({ id }) => accepted.has(id));
  const processes = [...new Set(steps.map(({ process }) => process))].sort((a, b) => a - b);
  if (steps.length === 0) return;
  if (as === "chain") await beginAnew(client, processes);
  else if (as === "step") await beginAgain(client, [...accepted], by);
  else {
    const endings = steps.map((step): StepEnding => {
      const { errors, crashes, losses } = step;
      return {
        step,
        end: { errors, crashes, losses, state: "finished", outcome: as, delayMs: null },
        message: `counted as ${as} by ${by}`,
        run: null,
      };
    });
    await settleSteps(client, endings);
  }
  await settleProcesses(client, processes);
}

/** All tries and crashes of the steps are there again; what they did stays in their history. */
async function beginAgain(client: pg.PoolClient, ids: readonly number[], by: string): Promise<void> {
  await client.query(
    `update job_step set errors = 0, crashes = 0, losses = 0, message = $2 where id = any($1)`,
    [ids, `reactivated by ${by}`],
  );
  await client.query("select job_make_ready($1)", [ids]);
}

/** A new generation of every step: as the template had them, with another idempotency key for their effects. */
async function beginAnew(client: pg.PoolClient, processes: readonly number[]): Promise<void> {
  await client.query(
    `with way as (
       select unnest(on_success || on_error) as id from job_step where process_id = any($1)
     ), incoming as (
       select id, count(*)::int as pending from way group by id
     )
     update job_step s set state = 'waiting', outcome = null, pending = coalesce(i.pending, 0), taken = 0, ready_at = null,
       errors = 0, crashes = 0, losses = 0, output = '{}', message = '', generation = s.generation + 1,
       claim_instance = null, claim_sequence = null, claimed_at = null, started_at = null
     from job_step o left join incoming i on i.id = o.id
     where s.id = o.id and s.process_id = any($1)`,
    [processes],
  );
  await client.query(
    `update job_step set state = 'deferred', ready_at = now() + make_interval(secs => delay_s)
     where process_id = any($1) and pending = 0 and delay_s > 0`,
    [processes],
  );
  const { rows } = await client.query<{ id: number }>(
    "select id from job_step where process_id = any($1) and pending = 0 and delay_s = 0 order by id",
    [processes],
  );
  await client.query("select job_make_ready($1)", [rows.map(({ id }) => id)]);
}

/**
 * Ends a process: what has not begun never will, and services that work on its steps are told to stop. Throws
 * JOB_PROCESS_UNKNOWN, JOB_PROCESS_ENDED.
 */
export async function cancelProcess(pool: pg.Pool, id: number, by: string): Promise<void> {
  await withTransaction(pool, async ({ client }) => {
    const { rows: ids } = await client.query<{ id: number }>(
      "select id from job_step where process_id = $1 order by id",
      [id],
    );
    const steps = await lockSteps(
      client,
      ids.map((row) => row.id),
    );
    const { rows } = await client.query<{ state: string; ended: boolean }>(
      "select state, finished_at is not null as ended from job_process where id = $1 for no key update",
      [id],
    );
    const [process] = rows;
    if (process === undefined)
      throw new LockstepError("JOB_PROCESS_UNKNOWN", `there is no process ${id}`, {
        hint: "lockstep job list shows the processes; old ones are deleted.",
      });
    if (process.ended)
      throw new LockstepError("JOB_PROCESS_ENDED", `process ${id} has ended already`, {
        expected: "a process that runs or is stuck",
        found: process.state,
      });
    const message = `cancelled by ${by}`;
    const open = steps.filter(({ state }) => state !== "finished");
    // Successors are among the open steps, so none of them has to be found, and no edge decided.
    const { freed } = await settleSteps(
      client,
      open.map((step): StepEnding => {
        const { errors, crashes, losses } = step;
        const worked = step.state === "loaded" || step.state === "processing";
        return {
          step: { ...step, onSuccess: [], onError: [] },
          end: { errors, crashes, losses, state: "finished", outcome: "cancelled", delayMs: null },
          message,
          run: worked ? { outcome: "lost", message } : null,
        };
      }),
    );
    await client.query("update job_process set state = 'cancelled', finished_at = now() where id = $1", [id]);
    // Whoever works on it is told to stop; what waited for a place under a limit may be in any queue.
    const told = freed.length > 0 ? [""] : [...new Set(open.map(({ queue }) => queue))];
    await client.query("select pg_notify('lockstep_job', queue) from unnest($1::text[]) as queue", [told]);
  });
}
