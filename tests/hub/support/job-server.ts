/** A job server driven by hand: sends one exchange at a time, as a test says. */
import assert from "node:assert/strict";
import type { Exchange, ExchangeAnswer, StepResult } from "@lockstep/protocol";
import type pg from "pg";
import { ask } from "./requests.ts";
import type { TestHub } from "./test-hub.ts";

export type ExchangeChanges = Partial<Omit<Exchange, "queue" | "instance">>;

export interface JobServer {
  readonly queue: string;
  readonly instance: string;
  /** Claims in hand: those given and not reported yet. */
  readonly claims: Map<number, number>;
  /** Sends the next exchange; holds what it was given. Fails the test when the hub refuses. */
  exchange(changes?: ExchangeChanges): Promise<ExchangeAnswer>;
  /** The same, and only the code of the refusal. */
  refused(changes?: ExchangeChanges): Promise<string>;
  /** Asks for steps without waiting. */
  take(internal?: number, external?: number, changes?: ExchangeChanges): Promise<ExchangeAnswer["steps"]>;
  /** Reports one result of a step in hand, and asks for nothing. */
  report(
    step: number,
    outcome: StepResult["outcome"],
    more?: Partial<StepResult>,
  ): Promise<ExchangeAnswer["results"][number]["verdict"]>;
}

export interface JobServerOptions extends ExchangeChanges {
  readonly instance?: string;
}

export function jobServer(
  hub: Pick<TestHub, "url" | "token">,
  queue: string,
  options: JobServerOptions = {},
): JobServer {
  const { instance = crypto.randomUUID(), ...always } = options;
  const claims = new Map<number, number>();
  let sequence = 0;
  const request = (changes: ExchangeChanges): Exchange => {
    sequence += 1;
    return {
      queue,
      instance,
      sequence,
      answered: sequence - 1,
      holding: [...claims.values()],
      started: [],
      results: [],
      want: { internal: 0, external: 0 },
      waitMs: 0,
      machine: "machine",
      revision: null,
      installation: null,
      version: "0.1.0",
      statusUrl: null,
      ...always,
      ...changes,
    };
  };
  const send = (changes: ExchangeChanges) =>
    ask(hub, "POST", "/v1/jobs/exchange", { body: request(changes) });
  const exchange = async (changes: ExchangeChanges = {}) => {
    const answer = await send(changes);
    assert.equal(answer.status, 200, answer.body.toString("utf8"));
    const document = answer.json() as unknown as ExchangeAnswer;
    for (const { step, claim } of changes.results ?? []) if (claims.get(step) === claim) claims.delete(step);
    for (const { id, claim } of document.steps) claims.set(id, claim);
    for (const [step, claim] of claims) if (document.lost.includes(claim)) claims.delete(step);
    return document;
  };
  return {
    queue,
    instance,
    claims,
    exchange,
    refused: async (changes = {}) => {
      const answer = await send(changes);
      const { error } = answer.json() as { error?: { code: string } };
      return error?.code ?? assert.fail(`the hub answers ${answer.status}`);
    },
    take: async (internal = 1, external = 0, changes = {}) =>
      (await exchange({ want: { internal, external }, ...changes })).steps,
    report: async (step, outcome, more = {}) => {
      const claim = claims.get(step) ?? assert.fail(`step ${step} is not in hand`);
      const { results } = await exchange({ results: [{ step, claim, outcome, ...more }] });
      return results[0]?.verdict ?? assert.fail("no verdict");
    },
  };
}

export interface StepRow {
  readonly name?: string;
  readonly queue?: string;
  readonly component?: string;
  readonly task?: string;
  /** Names of steps of the same process. */
  readonly onSuccess?: readonly string[];
  readonly onError?: readonly string[];
  /** Further columns as they are. */
  readonly [column: string]: unknown;
}

/** Puts a process in as any writer may: by plain SQL. Returns the ids of its steps by name. */
export async function putProcess(
  pool: pg.Pool,
  steps: readonly StepRow[],
  process: Readonly<Record<string, unknown>> = {},
): Promise<{ readonly id: number; readonly steps: Readonly<Record<string, number>> }> {
  const client = await pool.connect();
  try {
    await client.query("begin");
    const id = await insert(client, "job_process", { name: "test", ...process });
    const { rows } = await client.query<{ id: number }>(
      "select nextval(pg_get_serial_sequence('job_step', 'id')) as id from generate_series(1, $1)",
      [steps.length],
    );
    const ids = new Map(steps.map(({ name = "only" }, index) => [name, rows[index]?.id ?? 0]));
    const find = (name: string) => ids.get(name) ?? assert.fail(`no step ${name}`);
    const pending = (name: string) =>
      steps
        .flatMap(({ onSuccess = [], onError = [] }) => [...onSuccess, ...onError])
        .filter((to) => to === name).length;
    const values = steps.map(({ name = "only", onSuccess = [], onError = [], ...columns }) => ({
      id: find(name),
      process_id: id,
      name,
      queue: "Q",
      component: "Test",
      task: "Run",
      on_success: onSuccess.map(find),
      on_error: onError.map(find),
      pending: pending(name),
      state: pending(name) > 0 ? "waiting" : "ready",
      ...columns,
    }));
    const columns = [...new Set(values.flatMap((row) => Object.keys(row)))];
    await client.query(
      `insert into job_step (${columns.join(", ")}) values ${values
        .map(
          (_, row) => `(${columns.map((_, column) => `$${row * columns.length + column + 1}`).join(", ")})`,
        )
        .join(", ")}`,
      values.flatMap((row) =>
        columns.map((column) => (row as Record<string, unknown>)[column] ?? DEFAULTS[column] ?? null),
      ),
    );
    await client.query("commit");
    return { id, steps: Object.fromEntries(ids) };
  } catch (error) {
    await client.query("rollback");
    throw error;
  } finally {
    client.release();
  }
}

/** What rows of one insert get where another row names the column. */
const DEFAULTS: Readonly<Record<string, unknown>> = {
  execution: "internal",
  priority: 8,
  retries: 0,
  parameters: {},
  on_crash: "rerun",
  ignore_errors: false,
  freeze_on_error: false,
  delay_s: 0,
};

async function insert(client: pg.PoolClient, table: string, row: Readonly<Record<string, unknown>>) {
  const columns = Object.keys(row);
  const { rows } = await client.query<{ id: number }>(
    `insert into ${table} (${columns.join(", ")}) values (${columns.map((_, at) => `$${at + 1}`).join(", ")}) returning id`,
    Object.values(row),
  );
  return rows[0]?.id ?? assert.fail("no row");
}

export interface StepView {
  readonly state: string;
  readonly outcome: string | null;
  readonly errors: number;
  readonly crashes: number;
  readonly message: string;
}

/** The steps of a process as they are, by name. */
export async function readSteps(pool: pg.Pool, process: number): Promise<Readonly<Record<string, StepView>>> {
  const { rows } = await pool.query<StepView & { name: string }>(
    "select name, state, outcome, errors, crashes, message from job_step where process_id = $1",
    [process],
  );
  return Object.fromEntries(rows.map(({ name, ...step }) => [name, step]));
}

export async function processState(pool: pg.Pool, process: number): Promise<string> {
  const { rows } = await pool.query<{ state: string }>("select state from job_process where id = $1", [
    process,
  ]);
  return rows[0]?.state ?? assert.fail("no process");
}

export async function setSetting(pool: pg.Pool, name: string, value: unknown): Promise<void> {
  await pool.query(
    "insert into setting (name, value) values ($1, $2) on conflict (name) do update set value = excluded.value",
    [name, JSON.stringify(value)],
  );
}

/** Waits until the steps of a process are as wanted. */
export async function untilSteps(
  pool: pg.Pool,
  process: number,
  wanted: (steps: Readonly<Record<string, StepView>>) => boolean,
): Promise<void> {
  while (!wanted(await readSteps(pool, process))) await new Promise((resolve) => setTimeout(resolve, 50));
}
