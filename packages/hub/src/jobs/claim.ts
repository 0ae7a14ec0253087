import {
  collectSecrets,
  type FullLimits,
  type JobLimit,
  JobLimitUse,
  type LimitedCandidate,
  type LimitedJobStep,
  referencedSteps,
  resolveOutputs,
} from "@lockstep/core";
import type { ClaimedStep, Exchange } from "@lockstep/protocol";
import type pg from "pg";
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
  readonly parameters: Readonly<Record<string, unknown>>;
  readonly hidden: string[];
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
    p.name as "processName", s.name, s.component, s.task, s.execution, s.parameters, s.hidden, s.priority, s.fair,
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
    const candidates = await readCandidates(client, request.queue, execution, use.full());
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

/** The first limited steps in line that are not certain to be kept back. */
async function readCandidates(
  client: pg.ClientBase,
  queue: string,
  execution: Execution,
  full: FullLimits,
): Promise<(LimitedCandidate & Turn)[]> {
  const pairs = (tasks: FullLimits["tasks"]) => tasks.map(([component, task]) => `${component}\u0001${task}`);
  const { rows } = await client.query<LimitedCandidate & Turn>({
    name: "job-limited-candidates",
    text: `select id, component, task, exclusive_object as "exclusiveObject", priority, fair from job_step
      where queue = $1 and execution = $2 and state = 'ready' and limited
        and (exclusive_object is null or exclusive_object <> all($3::text[]))
        and component <> all($4::text[]) and component || chr(1) || task <> all($5::text[])
        and (component <> all($6::text[]) or component || chr(1) || task = any($7::text[]))
      order by priority desc, fair, id limit $8`,
    values: [
      queue,
      execution,
      full.objects,
      full.components,
      pairs(full.tasks),
      full.shared,
      pairs(full.own),
      CANDIDATES_MAX,
    ],
  });
  return rows;
}

/** A step whose parameters name outputs that do not exist. */
export interface UnresolvedStep {
  readonly id: number;
  readonly claim: number;
  readonly references: readonly string[];
}

/** Claimed steps as their service gets them, with the outputs of earlier steps put in. */
export async function presentSteps(
  client: pg.ClientBase,
  rows: readonly ClaimRow[],
): Promise<{ readonly steps: ClaimedStep[]; readonly unresolved: UnresolvedStep[] }> {
  const outputs = await readOutputs(client, rows);
  // Nothing hidden can be in a step that neither hides anything nor takes anything over from another.
  const mayHold = ({ hidden, parameters }: ClaimRow) =>
    hidden.length > 0 || referencedSteps(parameters).length > 0;
  const hiding = new Set(rows.filter(mayHold).map((row) => row.process));
  const secrets = hiding.size === 0 ? null : await readSecrets(client, [...hiding]);
  const steps: ClaimedStep[] = [];
  const unresolved: UnresolvedStep[] = [];
  for (const row of rows) {
    const resolved = resolveOutputs(row.parameters, outputs.get(row.process) ?? new Map());
    if (resolved.kind === "missing")
      unresolved.push({ id: row.id, claim: row.claim, references: resolved.references });
    else
      steps.push({
        ...presentStep(row, resolved.parameters),
        ...presentSecrets(resolved.parameters, secrets?.get(row.process) ?? []),
      });
  }
  return { steps, unresolved };
}

/**
 * The hidden values of the process within the step's parameters: a parameter may be more than the secret that was put
 * into it, and the service must know the secret where it turns up alone. Others are none of its business.
 */
function presentSecrets(
  parameters: Readonly<Record<string, unknown>>,
  known: readonly string[],
): Pick<ClaimedStep, "secrets"> {
  if (known.length === 0) return {};
  const texts = collectSecrets([{ parameters, hidden: Object.keys(parameters) }]);
  const secrets = known.filter((secret) => texts.some((text) => text.includes(secret)));
  return secrets.length === 0 ? {} : { secrets };
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
    parameters: { ...parameters },
    hidden: row.hidden,
    priority: row.priority,
    timeLimitMs: row.timeLimitSeconds === null ? null : row.timeLimitSeconds * 1000,
    onCrash: row.onCrash,
  };
}

type Outputs = Map<number, Map<string, Readonly<Record<string, unknown>>>>;

async function readOutputs(client: pg.ClientBase, rows: readonly ClaimRow[]): Promise<Outputs> {
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
