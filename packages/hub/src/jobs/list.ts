import { maskParameters, maskText, type Parameters, showParameters } from "@lockstep/core";
import {
  type JobProcessState,
  LockstepError,
  type ProcessDetail,
  type ProcessList,
  type ProcessSummary,
  type StepDetail,
  type StepRun,
} from "@lockstep/protocol";
import type pg from "pg";
import { withTransaction } from "../db/connect.ts";
import { readSecrets } from "./secrets.ts";

/** Looking at processes: lists for whoever runs them, and one of them with its steps and every try. */
export interface ProcessFilter {
  readonly state?: JobProcessState | undefined;
  readonly template?: string | undefined;
  /** A part of the name, of who started it, or of a step's message. */
  readonly text?: string | undefined;
  /** Only processes with lower numbers. */
  readonly before?: number | undefined;
  readonly limit?: number | undefined;
}

const PAGE_USUAL = 50;
/** Of one step, the newest: one that waits for something may be asked every second for weeks. */
const RUNS_MAX = 100;

interface ProcessRow {
  readonly id: number;
  readonly name: string;
  readonly template: string | null;
  readonly state: JobProcessState;
  readonly priority: number;
  readonly createdAt: Date;
  readonly finishedAt: Date | null;
  readonly startedBy: string;
  readonly steps: Record<string, number> | null;
}

const PROCESS_COLUMNS = `p.id, p.name, p.template, p.state, p.priority, p.created_at as "createdAt",
  p.finished_at as "finishedAt", p.started_by as "startedBy",
  (select jsonb_object_agg(c.state, c.count) from (
    select state, count(*) as count from job_step where process_id = p.id group by state) c) as steps`;

/** The newest first, a page at a time. */
export async function listProcesses(pool: pg.Pool, filter: ProcessFilter): Promise<ProcessList> {
  const limit = filter.limit ?? PAGE_USUAL;
  const { rows } = await pool.query<ProcessRow>(
    `select ${PROCESS_COLUMNS} from job_process p
     where ($1::text is null or p.state = $1) and ($2::text is null or p.template = $2 or p.name = $2)
       and ($3::bigint is null or p.id < $3)
       and ($4::text is null or p.name ilike $4 or p.started_by ilike $4
         or exists (select from job_step s where s.process_id = p.id and s.message ilike $4))
     order by p.id desc limit $5`,
    [
      filter.state ?? null,
      filter.template ?? null,
      filter.before ?? null,
      filter.text === undefined ? null : `%${filter.text.replaceAll(/[\\%_]/g, (each) => `\\${each}`)}%`,
      limit + 1,
    ],
  );
  const page = rows.slice(0, limit);
  return {
    processes: page.map(toSummary),
    next: rows.length > limit ? (page.at(-1)?.id ?? null) : null,
  };
}

/** One process, without its steps. Throws JOB_PROCESS_UNKNOWN. */
export async function readProcess(client: pg.Pool | pg.PoolClient, id: number): Promise<ProcessSummary> {
  const { rows } = await client.query<ProcessRow>(
    `select ${PROCESS_COLUMNS} from job_process p where p.id = $1`,
    [id],
  );
  const [row] = rows;
  if (row !== undefined) return toSummary(row);
  throw new LockstepError("JOB_PROCESS_UNKNOWN", `there is no process ${id}`, {
    hint: "lockstep job list shows the processes; old ones are deleted.",
  });
}

function toSummary(row: ProcessRow): ProcessSummary {
  const { createdAt, finishedAt, steps, ...rest } = row;
  return {
    ...rest,
    createdAt: createdAt.getTime(),
    finishedAt: finishedAt?.getTime() ?? null,
    steps: steps ?? {},
  };
}

interface StepRow extends Omit<StepDetail, "readyAt" | "runs"> {
  readonly readyAt: Date | null;
}

interface RunRow extends Omit<StepRun, "claimedAt" | "startedAt" | "endedAt"> {
  readonly step: number;
  readonly claimedAt: Date;
  readonly startedAt: Date | null;
  readonly endedAt: Date | null;
}

/** One process with its steps and their tries, in one snapshot, without a hidden value. Throws JOB_PROCESS_UNKNOWN. */
export async function readProcessDetail(pool: pg.Pool, id: number): Promise<ProcessDetail> {
  return await withTransaction(
    pool,
    async ({ client }) => {
      const process = await readProcess(client, id);
      const secrets = (await readSecrets(client, [id])).get(id) ?? [];
      const { rows: own } = await client.query<{ parameters: Parameters; hidden: string[] }>(
        "select parameters, hidden from job_process where id = $1",
        [id],
      );
      const { rows: steps } = await client.query<StepRow & { readonly hidden: string[] }>(
        `select id, process_id as process, name, component, task, queue, execution, state, outcome, priority, parameters,
           hidden, output, on_success as "onSuccess", on_error as "onError", ready_at as "readyAt", errors, crashes,
           message
         from job_step where process_id = $1 order by id`,
        [id],
      );
      const { rows: runs } = await client.query<RunRow>(
        `select r.* from unnest($1::bigint[]) as s(id), lateral (
           select step_id as step, claim, attempt, queue, machine, claimed_at as "claimedAt", started_at as "startedAt",
             ended_at as "endedAt", outcome, message
           from job_run where step_id = s.id order by claim desc limit $2) r
         order by claim`,
        [steps.map((step) => step.id), RUNS_MAX],
      );
      const runsOf = Map.groupBy(runs, ({ step }) => step);
      const outputs = new Map(steps.map(({ name, output }) => [name, output]));
      return {
        process,
        parameters: maskParameters(own[0]?.parameters ?? {}, own[0]?.hidden ?? [], secrets),
        steps: steps.map(({ hidden, ...step }) => ({
          ...step,
          parameters: maskParameters(showParameters(step.parameters, outputs), hidden, secrets),
          output: maskParameters(step.output, hidden, secrets),
          message: maskText(step.message, secrets),
          readyAt: step.state === "deferred" ? (step.readyAt?.getTime() ?? null) : null,
          runs: (runsOf.get(step.id) ?? []).map((run) => toRun(run, secrets)),
        })),
      };
    },
    { isolation: "repeatable read", readOnly: true },
  );
}

function toRun({ step: _step, ...run }: RunRow, secrets: readonly string[]): StepRun {
  return {
    ...run,
    message: maskText(run.message, secrets),
    claimedAt: run.claimedAt.getTime(),
    startedAt: run.startedAt?.getTime() ?? null,
    endedAt: run.endedAt?.getTime() ?? null,
  };
}
