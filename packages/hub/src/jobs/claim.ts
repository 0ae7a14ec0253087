import {
  collectSecrets,
  countCharacters,
  type FullLimits,
  type JobLimit,
  JobLimitUse,
  type LimitedCandidate,
  type LimitedJobStep,
  mayRefer,
  REFERENCED_CHARACTERS_MAX,
  referencedSteps,
  resolveOutputs,
} from "@lockstep/core";
import type { ClaimedStep, Exchange } from "@lockstep/protocol";
import type pg from "pg";
import { readLargeParameters, SMALL_PARAMETERS } from "./large-parameters.ts";
import { readSecrets } from "./secrets.ts";

/**
 * Claims: the next steps of a queue, in order of priority, then of their fair place in line.
 *
 * Steps that no limit concerns are taken straight from the index, skipping what somebody else has locked. Steps under a
 * limit (component, task, exclusive object) are decided one exchange at a time over all hubs, under an advisory lock that
 * is only taken when the queue has such steps and there is room for them.
 */
export interface ClaimRequest {
  readonly queue: string;
  readonly instance: string;
  readonly sequence: number;
  readonly want: Exchange["want"];
  readonly updateOnly: boolean;
  readonly limits: readonly JobLimit[];
  /** Whether steps under a limit may be ready in the queue. */
  readonly limitedReady: boolean;
}

/** Key of the advisory lock of those who decide about limited steps. */
const LIMITS_LOCK = 0x4c4f434b_4a4f42n;
/** So many limited steps that may begin are looked at in one go. */
const CANDIDATES_MAX = 500;
/** So many limited steps are looked at in line before it is asked of which kinds one can begin at all. */
const WINDOW = 2000;
/** So many kinds, by component, task and object. */
const KINDS_MAX = 2000;
/** No answer brings more of one kind. */
const CLAIMS_MAX = 500;

type Execution = "internal" | "external";

export interface ClaimRow {
  readonly id: number;
  readonly claim: number;
  readonly attempt: number;
  readonly generation: number;
  readonly process: number;
  readonly processName: string;
  readonly name: string;
  readonly component: string;
  readonly task: string;
  readonly execution: Execution;
  /** Null: not small, and to be read. */
  readonly parameters: Readonly<Record<string, unknown>> | null;
  /** Null: none. An empty list of each step would be read like any other. */
  readonly hidden: string[] | null;
  readonly priority: number;
  readonly fair: number;
  readonly timeLimitSeconds: number | null;
  readonly onCrash: "rerun" | "freeze";
}

/** Makes the picked steps this instance's. Each gets its fencing token: a number higher than any before. */
const TAKE = `update job_step s set state = 'loaded', claim = nextval('job_claim'), claim_instance = $2,
    claim_sequence = $3, claimed_at = now(), started_at = null
  from picked, job_process p where s.id = picked.id and p.id = s.process_id
  returning s.id, s.claim, s.errors + s.crashes + 1 as attempt, s.generation, s.process_id as process,
    p.name as "processName", s.name, s.component, s.task, s.execution, ${SMALL_PARAMETERS} as parameters, nullif(s.hidden, '{}') as hidden, s.priority, s.fair,
    s.time_limit_s as "timeLimitSeconds", s.on_crash as "onCrash"`;

/** The first steps in line that no limit concerns, locked. */
const LINE = (execution: Execution, limit: string, components: string) => `(
  select id, priority, fair from job_step
  where queue = $1 and execution = '${execution}' and state = 'ready' and not limited
    and component <> all(${components}::text[])
  order by priority desc, fair, id limit ${limit} for update skip locked) as line`;

/** Claims what the service wants and may get, best first. */
export async function claimSteps(client: pg.ClientBase, request: ClaimRequest): Promise<ClaimRow[]> {
  const internal = Math.min(request.want.internal, CLAIMS_MAX);
  const external = Math.min(request.want.external, CLAIMS_MAX);
  const want = { internal, external };
  if (internal + external === 0) return [];
  const rows = request.updateOnly
    ? await claimUpdates(client, request, want)
    : request.limitedReady
      ? await claimMixed(client, request, want)
      : await claimUnlimited(client, request, want);
  return rows.sort((a, b) => byTurn(a, b));
}

interface Turn {
  readonly id: number;
  readonly priority: number;
  readonly fair: number;
}

function byTurn(a: Turn, b: Turn): number {
  return b.priority - a.priority || a.fair - b.fair || a.id - b.id;
}

function componentsOf(limits: readonly JobLimit[]): string[] {
  return [...new Set(limits.map(({ component }) => component))];
}

/** The usual case: one statement. */
async function claimUnlimited(client: pg.ClientBase, request: ClaimRequest, want: Exchange["want"]) {
  const { rows } = await client.query<ClaimRow>({
    name: "job-claim",
    text: `with internal as materialized (select id from ${LINE("internal", "$4", "$6")}),
        external as materialized (select id from ${LINE("external", "$5", "$6")}),
        picked as (select id from internal union all select id from external) ${TAKE}`,
    values: [
      request.queue,
      request.instance,
      request.sequence,
      want.internal,
      want.external,
      componentsOf(request.limits),
    ],
  });
  return rows;
}

async function claimUpdates(client: pg.ClientBase, request: ClaimRequest, want: Exchange["want"]) {
  const line = (execution: Execution, limit: string) => `(
    select id from job_step where queue = $1 and state = 'ready' and component = 'AutoUpdate'
      and execution = '${execution}' order by priority desc, fair, id limit ${limit} for update skip locked)`;
  const { rows } = await client.query<ClaimRow>({
    name: "job-claim-update",
    text: `with internal as materialized ${line("internal", "$4")}, external as materialized ${line("external", "$5")},
      picked as (select id from internal union all select id from external) ${TAKE}`,
    values: [request.queue, request.instance, request.sequence, want.internal, want.external],
  });
  return rows;
}

/** Limited and other steps compete for the same slots, so the first of both are laid side by side. */
async function claimMixed(client: pg.ClientBase, request: ClaimRequest, want: Exchange["want"]) {
  await client.query({
    name: "job-limits-lock",
    text: "select pg_advisory_xact_lock($1)",
    values: [LIMITS_LOCK],
  });
  // A statement of its own, after the lock: its snapshot shows what the one before us took.
  const running = await client.query<LimitedJobStep>({
    name: "job-limited-running",
    text: `select component, task, exclusive_object as "exclusiveObject" from job_step
      where limited and state in ('loaded', 'processing')`,
  });
  const use = new JobLimitUse(request.limits, running.rows);
  const chosen: number[] = [];
  for (const execution of wantedExecutions(want)) {
    const free = await client.query<Turn>({
      name: `job-line-${execution}`,
      text: `select id, priority, fair from ${LINE(execution, "$2", "$3")}`,
      values: [request.queue, want[execution], componentsOf(request.limits)],
    });
    const candidates = await readCandidates(client, { queue: request.queue, want }, execution, use.full());
    chosen.push(...chooseMixed(free.rows, candidates, use, want[execution]));
  }
  const { rows } = await client.query<ClaimRow>({
    name: "job-claim-chosen",
    text: `with picked as materialized (
        select id from job_step where id = any($4::bigint[]) and queue = $1 and state = 'ready' for update skip locked
      ) ${TAKE}`,
    values: [request.queue, request.instance, request.sequence, chosen],
  });
  return rows;
}

function chooseMixed(
  free: readonly Turn[],
  candidates: readonly (LimitedCandidate & Turn)[],
  use: JobLimitUse,
  max: number,
): number[] {
  const line = [
    ...free.map((turn) => ({ turn, limited: null })),
    ...candidates.map((turn) => ({ turn, limited: turn })),
  ];
  const chosen: number[] = [];
  for (const { turn, limited } of line.sort((a, b) => byTurn(a.turn, b.turn))) {
    if (chosen.length >= max) break;
    if (limited !== null) {
      if (!use.admits(limited)) continue;
      use.add(limited);
    }
    chosen.push(turn.id);
  }
  return chosen;
}

function wantedExecutions(want: Exchange["want"]): Execution[] {
  return (["internal", "external"] as const).filter((execution) => want[execution] > 0);
}

/** Of component and task: nothing of the kind can be admitted, whatever its object. */
const IS_FULL = `(component = any($4::text[]) or component || chr(1) || task = any($5::text[])
  or (component = any($6::text[]) and component || chr(1) || task <> all($7::text[])))`;
/** The steps under a limit that are ready for one kind of slot of the queue. */
const READY_LIMITED = `queue = $1 and execution = $2 and state = 'ready' and limited`;
const KIND = `component, task, coalesce(exclusive_object, '')`;

/**
 * The first limited steps in line that are not certain to be kept back.
 *
 * Usually they are found among the first ones in line. Where those all wait for something that is full, there may be a
 * hundred thousand of them: then the index is walked from kind to kind (component, task, object), past all that is full
 * at one stride, and the first of each kind that may begin are taken.
 */
async function readCandidates(
  client: pg.ClientBase,
  { queue, want }: Pick<ClaimRequest, "queue" | "want">,
  execution: Execution,
  full: FullLimits,
): Promise<(LimitedCandidate & Turn)[]> {
  const pairs = (tasks: FullLimits["tasks"]) => tasks.map(([component, task]) => `${component}\u0001${task}`);
  const values = [
    queue,
    execution,
    full.objects,
    full.components,
    pairs(full.tasks),
    full.shared,
    pairs(full.own),
    CANDIDATES_MAX,
  ];
  const first = await client.query<LimitedCandidate & Turn>({
    name: "job-limited-candidates",
    text: `with line as materialized (
        select id, component, task, exclusive_object, priority, fair from job_step
        where ${READY_LIMITED} order by priority desc, fair, id limit $9)
      select id, component, task, exclusive_object as "exclusiveObject", priority, fair from line
      where (exclusive_object is null or exclusive_object <> all($3::text[])) and not ${IS_FULL}
      order by priority desc, fair, id limit $8`,
    values: [...values, WINDOW],
  });
  if (first.rows.length >= want[execution]) return first.rows;
  const { rows } = await client.query<LimitedCandidate & Turn>({
    name: "job-limited-kinds",
    text: `with recursive kinds as (
        (select component, task, coalesce(exclusive_object, '') as object, ${IS_FULL} as is_full
          from job_step where ${READY_LIMITED} order by ${KIND} limit 1)
        union all
        select next.* from kinds k, lateral (
          select component, task, coalesce(exclusive_object, ''), ${IS_FULL} from job_step
          where ${READY_LIMITED} and (${KIND}) > (k.component, k.task, case when k.is_full then U&'\\+10FFFF' else k.object end)
          order by ${KIND} limit 1) next
      ), free as materialized (
        select component, task, object from kinds where not is_full and object <> all($3::text[]) limit $9
      )
      select step.* from free f, lateral (
        select id, component, task, exclusive_object as "exclusiveObject", priority, fair from job_step
        where ${READY_LIMITED} and component = f.component and task = f.task and coalesce(exclusive_object, '') = f.object
        order by priority desc, fair, id limit case when f.object = '' then $8::int else 1 end) step
      order by priority desc, fair, id limit $8`,
    values: [...values, KINDS_MAX],
  });
  return rows;
}

/** A step that cannot begin, because of the outputs that its parameters name. */
export interface UnresolvedStep {
  readonly id: number;
  readonly claim: number;
  readonly problem: string;
}

type WholeRow = ClaimRow & { readonly parameters: Readonly<Record<string, unknown>> };

/** An answer brings no more parameters than this, but always those of one step. */
const ANSWER_CHARACTERS_MAX = 32 * 1024 * 1024;

/**
 * Claimed steps as their service gets them, with the outputs of earlier steps put in. Those for which an answer has no
 * room are left out of it: their service does not name them the next time, so they go back, and come with a later one.
 */
export async function presentSteps(
  client: pg.ClientBase,
  claimed: readonly ClaimRow[],
): Promise<{ readonly steps: ClaimedStep[]; readonly unresolved: UnresolvedStep[] }> {
  const rows = await readLargeParameters(client, claimed, ANSWER_CHARACTERS_MAX);
  const referring = new Set(rows.filter(({ parameters }) => mayRefer(parameters)));
  const outputs = await readOutputs(client, [...referring]);
  // Nothing hidden can be in a step that neither hides anything nor takes anything over from another.
  const mayHold = (row: WholeRow) =>
    row.hidden !== null || (referring.has(row) && referencedSteps(row.parameters).length > 0);
  const hiding = new Set(rows.filter(mayHold).map((row) => row.process));
  const secrets = hiding.size === 0 ? null : await readSecrets(client, [...hiding]);
  const waited = await readWaits(client, rows);
  const steps: ClaimedStep[] = [];
  const unresolved: UnresolvedStep[] = [];
  let characters = 0;
  for (const row of rows) {
    if (characters > ANSWER_CHARACTERS_MAX) break;
    const resolved = referring.has(row)
      ? resolveOutputs(row.parameters, outputs.get(row.process) ?? new Map())
      : ({ kind: "resolved", parameters: row.parameters } as const);
    if (resolved.kind === "missing")
      unresolved.push({
        id: row.id,
        claim: row.claim,
        problem: `there is no output ${resolved.references.join(", ")}`,
      });
    else if (resolved.kind === "too-long")
      unresolved.push({
        id: row.id,
        claim: row.claim,
        problem: `the outputs that it names have more than ${REFERENCED_CHARACTERS_MAX} characters`,
      });
    else {
      characters += countCharacters(resolved.parameters);
      const step = presentStep(row, resolved.parameters);
      if (row.component === WAIT) step.waitedMs = waited.get(row.id) ?? 0;
      const inside = presentSecrets(resolved.parameters, secrets?.get(row.process) ?? []);
      if (inside.length > 0) step.secrets = inside;
      steps.push(step);
    }
  }
  return { steps, unresolved };
}

/** The component whose steps want to know how long they have been waiting. */
const WAIT = "Wait";

/**
 * How long steps that wait have done so, in milliseconds: from the first of their claims in a row that ended without a
 * decision. Not named: this claim is the first.
 */
async function readWaits(
  client: pg.ClientBase,
  rows: readonly ClaimRow[],
): Promise<ReadonlyMap<number, number>> {
  const waiting = rows.filter(({ component }) => component === WAIT).map(({ id }) => id);
  if (waiting.length === 0) return new Map();
  const found = await client.query<{ id: number; waited: number }>({
    name: "job-waits",
    text: `select w.id, floor(extract(epoch from now() - first.at) * 1000)::float8 as waited
      from unnest($1::bigint[]) as w(id), lateral (
        select min(r.claimed_at) as at from job_run_end r where r.step_id = w.id and r.claim > coalesce((
          select max(d.claim) from job_run_end d where d.step_id = w.id and d.outcome in ('success', 'error')), 0)
      ) first where first.at is not null`,
    values: [waiting],
  });
  return new Map(found.rows.map(({ id, waited }) => [id, Math.max(0, waited)]));
}

/**
 * The hidden values of the process within the step's parameters: a parameter may be more than the secret that was put
 * into it, and the service must know the secret where it turns up alone. Others are none of its business.
 */
function presentSecrets(parameters: Readonly<Record<string, unknown>>, known: readonly string[]): string[] {
  if (known.length === 0) return [];
  const texts = collectSecrets([{ parameters, hidden: Object.keys(parameters) }]);
  return known.filter((secret) => texts.some((text) => text.includes(secret)));
}

function presentStep(row: ClaimRow, parameters: Readonly<Record<string, unknown>>): ClaimedStep {
  return {
    id: row.id,
    claim: row.claim,
    attempt: row.attempt,
    idempotencyKey: row.generation === 0 ? `step-${row.id}` : `step-${row.id}-${row.generation}`,
    process: { id: row.process, name: row.processName },
    name: row.name,
    component: row.component,
    task: row.task,
    execution: row.execution,
    parameters,
    hidden: row.hidden ?? [],
    priority: row.priority,
    timeLimitMs: row.timeLimitSeconds === null ? null : row.timeLimitSeconds * 1000,
    onCrash: row.onCrash,
  };
}

type Outputs = Map<number, Map<string, Readonly<Record<string, unknown>>>>;

async function readOutputs(client: pg.ClientBase, rows: readonly WholeRow[]): Promise<Outputs> {
  const wanted = rows.flatMap(({ process, parameters }) =>
    referencedSteps(parameters).map((name) => ({ process, name })),
  );
  const outputs: Outputs = new Map();
  if (wanted.length === 0) return outputs;
  const found = await client.query<{ process: number; name: string; output: Record<string, unknown> }>({
    name: "job-outputs",
    text: `select process_id as process, name, output from job_step
      where process_id = any($1::bigint[]) and name = any($2::text[]) and state = 'finished'`,
    values: [
      [...new Set(wanted.map(({ process }) => process))],
      [...new Set(wanted.map(({ name }) => name))],
    ],
  });
  for (const { process, name, output } of found.rows) {
    const steps = outputs.get(process) ?? new Map<string, Record<string, unknown>>();
    outputs.set(process, steps.set(name, output));
  }
  return outputs;
}
