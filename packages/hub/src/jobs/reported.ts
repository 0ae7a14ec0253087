import type { StepResult } from "@lockstep/protocol";
import type pg from "pg";
import type { LockedStep } from "./steps.ts";

/**
 * What a service reports on, and the short way for most of it.
 *
 * Nearly every step succeeds, says nothing, has no successors and holds no place under a limit. To read the thirty columns
 * that a decision may depend on, for each of them, takes longer than to end it. So the database tells these apart while it
 * locks them, and they are ended by one statement that names them and their times. Every other one is read in full and
 * decided in core.
 */

/** The end of a step by a success with nothing to say, of which nothing can follow but the end of its process. */
export interface PlainEnd {
  readonly id: number;
  readonly process: number;
  readonly claim: number;
  /** Milliseconds since 1970, by the service's clock. */
  readonly startedAt: number | null;
  readonly endedAt: number | null;
}

/** The same as `LockedStep` from a query that shows most steps in short. */
interface LockedRow {
  readonly id: number;
  readonly process: number;
  readonly claim: number | null;
  readonly full:
    | (Omit<LockedStep, "id" | "process" | "claim" | "claimedAt" | "startedAt"> & {
        readonly claimedAt: number | null;
        readonly startedAt: number | null;
      })
    | null;
}

/**
 * Locks like `lockSteps` the steps that an instance reports on. Most of them succeeded, say nothing, have no successors
 * and hold no place under a limit: these come as `plain`, with what little there is to do about them, because reading the
 * other thirty columns of each takes longer than to end it.
 */
export async function lockReported(
  client: pg.ClientBase,
  { instance, results }: { readonly instance: string; readonly results: readonly StepResult[] },
): Promise<{ readonly plain: readonly PlainEnd[]; readonly steps: readonly LockedStep[] }> {
  if (results.length === 0) return { plain: [], steps: [] };
  const resultOf = new Map<number, StepResult | null>();
  // Told of twice, a step is looked at in full.
  for (const result of results) resultOf.set(result.step, resultOf.has(result.step) ? null : result);
  const claims = [...resultOf.values()].map((result) =>
    result !== null && isPlain(result) ? result.claim : 0,
  );
  const { rows } = await client.query<LockedRow>({
    name: "job-lock-reported",
    text: `select s.id, s.process_id as process, s.claim,
        case when s.claim <> d.claim or s.claim_instance is distinct from $3::uuid or s.limited
          or s.state not in ('loaded', 'processing') or s.on_success <> '{}' or s.on_error <> '{}'
        then jsonb_build_object('queue', s.queue, 'component', s.component, 'exclusiveObject', s.exclusive_object,
          'limited', s.limited, 'state', s.state, 'instance', s.claim_instance,
          'machine', coalesce((select v.machine from job_server v where v.queue = s.queue), ''),
          'claimedAt', extract(epoch from s.claimed_at) * 1000, 'startedAt', extract(epoch from s.started_at) * 1000,
          'onSuccess', s.on_success, 'onError', s.on_error, 'hidden', s.hidden, 'processHides', p.hidden <> '{}',
          'retries', s.retries, 'retryDelaySeconds', s.retry_delay_s, 'backOff', s.back_off,
          'ignoreErrors', s.ignore_errors, 'freezeOnError', s.freeze_on_error, 'onCrash', s.on_crash,
          'crashesMax', s.crashes_max, 'errors', s.errors, 'crashes', s.crashes, 'losses', s.losses,
          'processFair', p.fair,
          'queueTime', coalesce((select v.virtual_time from job_server v where v.queue = s.queue), 0)) end as full
      from unnest($1::bigint[], $2::bigint[]) as d(id, claim) join job_step s on s.id = d.id
        join job_process p on p.id = s.process_id
      order by p.id, s.id for no key update of p, s`,
    values: [numbers([...resultOf.keys()]), numbers(claims), instance],
  });
  const plain: PlainEnd[] = [];
  const steps: LockedStep[] = [];
  for (const { id, process, claim, full } of rows)
    if (full !== null) {
      const at = (ms: number | null) => (ms === null ? null : new Date(ms));
      steps.push({
        ...full,
        id,
        process,
        claim,
        claimedAt: at(full.claimedAt),
        startedAt: at(full.startedAt),
      });
    } else {
      const result = resultOf.get(id);
      plain.push({
        id,
        process,
        claim: claim ?? 0,
        startedAt: result?.startedAt ?? null,
        endedAt: result?.endedAt ?? null,
      });
    }
  return { plain, steps };
}

function isPlain({ outcome, message, output }: StepResult): boolean {
  return (
    outcome === "success" &&
    (message ?? "") === "" &&
    (output === undefined || Object.keys(output).length === 0)
  );
}

/** An array of numbers as the database reads it; made by the driver, each of them would be escaped. */
function numbers(values: readonly (number | null)[]): string {
  return `{${values.map((value) => value ?? "null").join(",")}}`;
}

/** Writes plain ends and their history: what `writeSettlement` would write, without a decision to carry out. */
export async function writePlainEnds(
  client: pg.ClientBase,
  ends: readonly PlainEnd[],
  { instance, machine }: { readonly instance: string; readonly machine: string },
): Promise<void> {
  if (ends.length === 0) return;
  await client.query({
    name: "job-plain-ends",
    text: `with moved as (
        update job_step s set state = 'finished', outcome = 'success', ready_at = null, message = '',
          claim_instance = null, claim_sequence = null
        from unnest($1::bigint[], $2::float8[], $3::float8[]) as d(id, started, ended)
        where s.id = d.id
        returning s.claim, s.id, s.errors + s.crashes + 1 as attempt, s.queue, s.claimed_at, s.started_at, d.started, d.ended
      )
      insert into job_run_end
        (claim, step_id, attempt, queue, machine, instance, claimed_at, started_at, ended_at, outcome)
      select claim, id, attempt, queue, $4, $5, claimed_at, coalesce(to_timestamp(started / 1000), started_at),
        coalesce(to_timestamp(ended / 1000), now()), 'success'
      from moved`,
    values: [
      numbers(ends.map(({ id }) => id)),
      numbers(ends.map(({ startedAt }) => startedAt)),
      numbers(ends.map(({ endedAt }) => endedAt)),
      machine,
      instance,
    ],
  });
}
