import type { ClaimedJobStep, JobStepEnd, JobSuccessor } from "@lockstep/core";
import { followEdges } from "@lockstep/core";
import type { StepResult } from "@lockstep/protocol";
import type pg from "pg";
import { toJsonText } from "./json-text.ts";

/**
 * Ends of steps, written: the one place that moves a step on and decides what follows. Used by exchanges, by the watch
 * and by whoever puts steps right by hand; all of them call `lockSteps` first.
 */
export interface LockedStep extends Omit<ClaimedJobStep, "state"> {
  readonly id: number;
  readonly process: number;
  readonly queue: string;
  readonly component: string;
  readonly exclusiveObject: string | null;
  readonly limited: boolean;
  readonly state: string;
  readonly claim: number | null;
  readonly instance: string | null;
  readonly machine: string;
  readonly claimedAt: Date | null;
  readonly startedAt: Date | null;
  readonly onSuccess: readonly number[];
  readonly onError: readonly number[];
  readonly hidden: readonly string[];
  readonly processHides: boolean;
  /** What a place in line for it is counted from. */
  readonly processFair: number;
  readonly queueTime: number;
}

/**
 * Locks the processes and steps in the order that everybody keeps (processes by id, steps by id) and reads them as they
 * then are. Steps that do not exist are left out.
 */
export async function lockSteps(client: pg.ClientBase, ids: readonly number[]): Promise<LockedStep[]> {
  if (ids.length === 0) return [];
  const { rows } = await client.query<LockedStep>({
    name: "job-lock-steps",
    text: `select s.id, s.process_id as process, s.queue, s.component, s.exclusive_object as "exclusiveObject", s.limited,
        s.state, s.claim, s.claim_instance as instance, coalesce(v.machine, '') as machine,
        s.claimed_at as "claimedAt", s.started_at as "startedAt",
        s.on_success as "onSuccess", s.on_error as "onError", s.hidden, p.hidden <> '{}' as "processHides",
        s.retries, s.retry_delay_s as "retryDelaySeconds", s.back_off as "backOff",
        s.ignore_errors as "ignoreErrors", s.freeze_on_error as "freezeOnError", s.on_crash as "onCrash",
        s.crashes_max as "crashesMax", s.errors, s.crashes, s.losses,
        p.fair as "processFair", coalesce(v.virtual_time, 0) as "queueTime"
      from job_step s join job_process p on p.id = s.process_id left join job_server v on v.queue = s.queue
      where s.id = any($1::bigint[]) order by p.id, s.id for no key update of p, s`,
    values: [ids],
  });
  return rows;
}

/** How the claim of a step ended, for its history. */
export interface RunEnd {
  readonly outcome: StepResult["outcome"] | "lost";
  readonly message: string;
  /** Milliseconds since 1970, by the service's clock. */
  readonly startedAt?: number | undefined;
  readonly endedAt?: number | undefined;
}

export interface StepEnding {
  readonly step: LockedStep;
  readonly end: JobStepEnd;
  /** What people read at the step; undefined: as it is. */
  readonly message?: string | undefined;
  readonly output?: Readonly<Record<string, unknown>> | undefined;
  /** Null: no claim of it has ended. */
  readonly run: RunEnd | null;
}

export interface Settled {
  readonly processes: readonly number[];
  /** Queues for which steps became ready. */
  readonly ready: ReadonlySet<string>;
  /** Steps that held a place under a limit and gave it back. */
  readonly freed: readonly Pick<LockedStep, "component" | "exclusiveObject">[];
}

export interface StepWrite {
  readonly id: number;
  readonly state: string;
  readonly outcome: string | null;
  readonly delay: number | null;
  readonly fair: number | null;
  readonly errors?: number;
  readonly crashes?: number;
  readonly losses?: number;
  readonly pending?: number;
  readonly taken?: number;
  readonly message?: string | undefined;
  readonly output?: Readonly<Record<string, unknown>> | undefined;
}

/** Writes the ends of locked steps, everything that follows from them, and their history. `settleProcesses` comes next. */
export async function settleSteps(client: pg.ClientBase, endings: readonly StepEnding[]): Promise<Settled> {
  const plan = await planSettlement(client, endings);
  await writeSettlement(client, plan);
  return plan;
}

export interface Settlement extends Settled {
  readonly writes: readonly StepWrite[];
  readonly places: readonly { readonly id: number; readonly fair: number }[];
  readonly runs: readonly object[];
  /** Queues for which steps under a limit became ready. */
  readonly limitedReady: ReadonlySet<string>;
}

/** Decides what the ends of locked steps bring about, reading what follows them. */
export async function planSettlement(
  client: pg.ClientBase,
  endings: readonly StepEnding[],
): Promise<Settlement> {
  const places = new Places(endings.map(({ step }) => step));
  const writes: StepWrite[] = endings.map(({ step, end, message, output }) => ({
    id: step.id,
    state: end.state,
    outcome: end.outcome,
    delay: end.delayMs,
    fair: end.state === "ready" ? places.next(step.process, step.queue) : null,
    errors: end.errors,
    crashes: end.crashes,
    losses: end.losses,
    message,
    output,
  }));
  const again = endings.filter(({ end }) => end.state === "ready").map(({ step }) => step);
  const ready = new Set(again.map(({ queue }) => queue));
  const limitedReady = new Set(again.filter(({ limited }) => limited).map(({ queue }) => queue));
  for (const { change, successor } of await readFollowing(client, endings)) {
    places.see(successor);
    const { id, state, pending, taken, delayMs } = change;
    const skipped = state === "skipped";
    if (state === "ready") ready.add(successor.queue);
    if (state === "ready" && successor.limited) limitedReady.add(successor.queue);
    writes.push({
      id,
      state: skipped ? "finished" : state,
      outcome: skipped ? "skipped" : null,
      delay: delayMs,
      fair: state === "ready" ? places.next(successor.process, successor.queue) : null,
      pending,
      taken,
    });
  }
  return {
    writes,
    places: places.written(),
    runs: runsOf(endings),
    limitedReady,
    processes: [...new Set(endings.map(({ step }) => step.process))],
    ready,
    freed: endings.filter(({ step, run }) => step.limited && run !== null).map(({ step }) => step),
  };
}

/** Writes a plan: one statement. */
export async function writeSettlement(
  client: pg.ClientBase,
  { writes, places, runs }: Settlement,
): Promise<void> {
  await client.query({
    name: "job-settle-steps",
    text: `with moved as (
        update job_step s set state = d.state, outcome = d.outcome,
          ready_at = now() + make_interval(secs => d.delay / 1000),
          fair = coalesce(d.fair, s.fair), errors = coalesce(d.errors, s.errors),
          crashes = coalesce(d.crashes, s.crashes), losses = coalesce(d.losses, s.losses),
          pending = coalesce(d.pending, s.pending), taken = coalesce(d.taken, s.taken),
          message = coalesce(d.message, s.message), output = coalesce(d.output, s.output),
          claim_instance = null, claim_sequence = null
        from jsonb_to_recordset($1::jsonb) as d(id bigint, state text, outcome text, delay float8, fair bigint,
          errors int, crashes int, losses int, pending int, taken int, message text, output jsonb)
        where s.id = d.id
      ), placed as (
        update job_process p set fair = f.fair
        from jsonb_to_recordset($2::jsonb) as f(id bigint, fair bigint) where p.id = f.id
      )
      insert into job_run_end
        (claim, step_id, attempt, queue, machine, instance, claimed_at, started_at, ended_at, outcome, message)
      select claim, step, attempt, queue, machine, instance, to_timestamp(claimed / 1000), to_timestamp(started / 1000),
        coalesce(to_timestamp(ended / 1000), now()), outcome, message
      from jsonb_to_recordset($3::jsonb) as r(claim bigint, step bigint, attempt int, queue text, machine text,
        instance uuid, claimed float8, started float8, ended float8, outcome text, message text)`,
    values: [toJsonText(writes), toJsonText(places), toJsonText(runs)],
  });
}

function runsOf(endings: readonly StepEnding[]): object[] {
  return endings.flatMap(({ step, run }) =>
    run === null
      ? []
      : [
          {
            claim: step.claim,
            step: step.id,
            attempt: step.errors + step.crashes + 1,
            queue: step.queue,
            machine: step.machine,
            instance: step.instance,
            claimed: step.claimedAt?.getTime() ?? null,
            started: run.startedAt ?? step.startedAt?.getTime() ?? null,
            ended: run.endedAt ?? null,
            outcome: run.outcome,
            message: run.message,
          },
        ],
  );
}

interface SuccessorRow extends JobSuccessor {
  readonly limited: boolean;
  readonly process: number;
  readonly queue: string;
  readonly processFair: number;
  readonly queueTime: number;
}

/** The steps whose edges are decided by these endings, with what becomes of them. */
async function readFollowing(client: pg.ClientBase, endings: readonly StepEnding[]) {
  const ended = endings.flatMap(({ step, end }) =>
    end.outcome === null || step.onSuccess.length + step.onError.length === 0
      ? []
      : [{ outcome: end.outcome, onSuccess: step.onSuccess, onError: step.onError }],
  );
  if (ended.length === 0) return [];
  const known = new Map<number, SuccessorRow>();
  for (;;) {
    const followed = followEdges(ended, known);
    if (followed.kind === "decided")
      return followed.changes.flatMap((change) => {
        const successor = known.get(change.id);
        return successor === undefined ? [] : [{ change, successor }];
      });
    const { rows } = await client.query<SuccessorRow>({
      name: "job-successors",
      text: `select s.id, s.process_id as process, s.queue, s.limited, s.pending, s.taken, s.delay_s as "delaySeconds",
          s.on_success as "onSuccess", s.on_error as "onError", p.fair as "processFair",
          coalesce(v.virtual_time, 0) as "queueTime"
        from job_step s join job_process p on p.id = s.process_id left join job_server v on v.queue = s.queue
        where s.id = any($1::bigint[])`,
      values: [followed.ids],
    });
    for (const row of rows) known.set(row.id, row);
    // A successor that was deleted by hand: nothing follows there.
    for (const id of followed.ids) if (!known.has(id)) known.set(id, goneSuccessor(id));
  }
}

function goneSuccessor(id: number): SuccessorRow {
  return {
    id,
    pending: 0,
    taken: 0,
    delaySeconds: 0,
    onSuccess: [],
    onError: [],
    process: 0,
    limited: false,
    queue: "",
    processFair: 0,
    queueTime: 0,
  };
}

/**
 * Fair places in line: a step that becomes ready stands behind what its process had put there before and behind what the
 * queue has already given out. So a process with ten thousand steps has them spread over ten thousand places, and one
 * that comes later has its first step among the next ones.
 */
class Places {
  readonly #processes = new Map<number, number>();
  readonly #queues = new Map<string, number>();
  readonly #changed = new Set<number>();

  constructor(steps: Iterable<Pick<SuccessorRow, "process" | "queue" | "processFair" | "queueTime">>) {
    for (const step of steps) this.see(step);
  }

  see(step: Pick<SuccessorRow, "process" | "queue" | "processFair" | "queueTime">): void {
    if (!this.#processes.has(step.process)) this.#processes.set(step.process, step.processFair);
    this.#queues.set(step.queue, step.queueTime);
  }

  next(process: number, queue: string): number {
    const place = Math.max(this.#processes.get(process) ?? 0, this.#queues.get(queue) ?? 0) + 1;
    this.#processes.set(process, place);
    this.#changed.add(process);
    return place;
  }

  written(): { id: number; fair: number }[] {
    return [...this.#changed].sort((a, b) => a - b).map((id) => ({ id, fair: this.#processes.get(id) ?? 0 }));
  }
}

/**
 * Brings the state of locked processes up to date with their steps. Scalar subqueries and not `exists`: that could be
 * answered by hashing the whole table. `offset 0`: each is asked once. Before and behind `finished` in the order of the
 * index is what is not finished, without a look at what is.
 */
export async function settleProcesses(client: pg.ClientBase, processes: readonly number[]): Promise<void> {
  if (processes.length === 0) return;
  await client.query({
    name: "job-settle-processes",
    text: `update job_process p set state = n.state,
        finished_at = case when n.state in ('finished', 'failed') then now() end
      from (
        select given as id, case
          when (select true from job_step where process_id = given and state > 'finished' limit 1) is null
            and (select true from job_step where process_id = given and state < 'finished' limit 1) is null
          then case
            when (select true from job_step where process_id = given and outcome = 'error' and on_error = '{}' limit 1)
              then 'failed'
            else 'finished' end
          when (select true from job_step where process_id = given
            and state in ('ready', 'deferred', 'loaded', 'processing') limit 1) then 'running'
          else 'stuck' end as state
        from unnest($1::bigint[]) as given offset 0
      ) n where p.id = n.id and p.state <> n.state and p.state <> 'cancelled'`,
    values: [processes],
  });
}
