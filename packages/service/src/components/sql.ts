import { counted } from "@lockstep/core";
import { LockstepError } from "@lockstep/protocol/wire";
import pg from "pg";
import { isTemporary, readConnectionUrl, secretsOf, withConnection } from "./sql-connection.ts";
import { defineTask, permanentError } from "./task.ts";
import type { Component, ParameterValues, TaskContext, TaskResult } from "./types.ts";

/**
 * Statements in a PostgreSQL database, all of one step in one transaction. Values are bound, never put into the text.
 *
 * A service may die between the commit and the word about it; the step then runs again. With `idempotencyTable` the
 * transaction also writes the step's idempotency key into a table of that database, and a transaction that finds the
 * key there already does nothing and gives the former result. That makes the effects of the step happen once.
 */
const ROWS_DEFAULT = 100;
const ROWS_MAX = 10_000;
/** Well below what a result may be, so that it is not refused after the commit. */
const ROWS_CHARACTERS_MAX = 200_000;

const PARAMETERS = {
  connectionEnvironment: {
    type: "text",
    check: (value: unknown) =>
      /^LOCKSTEP_/i.test(String(value)) ? "must not name what begins with LOCKSTEP_" : null,
    description: "The variable of the service's environment that holds the connection URL.",
  },
  connectionFile: { type: "text", description: "The file that holds the connection URL." },
  connection: {
    type: "text",
    hidden: true,
    description: "The connection URL itself. With a password only where the step declares it hidden.",
  },
  statement: { type: "text", description: "One statement, with `$1`, `$2`, ... for its values." },
  parameters: {
    type: "list",
    default: [],
    description: "The values of `statement`. Objects are bound as JSON.",
  },
  statements: {
    type: "list",
    check: statementsProblem,
    description: 'Instead of `statement`: several, in order, as `{"statement": …, "parameters": […]}`.',
  },
  rows: {
    type: "integer",
    minimum: 0,
    maximum: ROWS_MAX,
    default: ROWS_DEFAULT,
    description:
      "How many rows of the last statement go into the output as `rows`; `more` says that there were others.",
  },
  readOnly: { type: "boolean", default: false, description: "Refuse every change of data." },
  isolation: {
    type: "text",
    choices: ["read committed", "repeatable read", "serializable"],
    default: "read committed",
    description: "The isolation of the transaction.",
  },
  expectedRows: {
    type: "integer",
    minimum: 0,
    description: "How many rows the last statement must affect or give; otherwise everything is rolled back.",
  },
  idempotencyTable: {
    type: "text",
    check: (value: unknown) =>
      TABLE.test(String(value)) ? null : "must be a name, or a schema and a name, of letters, digits and _",
    description:
      "A table of the database in which the step's key is written in the same transaction, so that a rerun does nothing. Made where it is missing.",
  },
} as const;
type Parameters = ParameterValues<typeof PARAMETERS>;

const TABLE = /^([A-Za-z_][A-Za-z0-9_]{0,62}\.)?[A-Za-z_][A-Za-z0-9_]{0,62}$/;

interface Statement {
  readonly statement: string;
  readonly parameters: readonly unknown[];
}

export const component: Component = {
  name: "Sql",
  tasks: {
    Execute: defineTask({
      execution: "either",
      description: "Runs statements in a PostgreSQL database, in one transaction.",
      parameters: PARAMETERS,
      run: execute,
    }),
  },
};

async function execute(context: TaskContext<Parameters>): Promise<TaskResult> {
  const { parameters, environment, signal, step } = context;
  const statements = statementsOf(parameters);
  if (statements === null) return permanentError("exactly one of statement and statements is needed");
  const forbidden = statements.find(({ statement }) => controlsTransaction(statement));
  if (forbidden !== undefined)
    return permanentError("statements of a step cannot begin or end transactions; all of them are one");
  const url = await readConnectionUrl(parameters, environment);
  context.hide(...secretsOf(url));
  if (parameters.connection !== undefined && secretsOf(url).length > 1 && !step.hidden.includes("connection"))
    return permanentError(
      "connection holds a password, but the step does not declare it hidden; use connectionEnvironment or connectionFile",
    );
  try {
    return await withConnection(url, signal, (client) => transact(client, context, statements));
  } catch (error) {
    signal.throwIfAborted();
    if (error instanceof LockstepError) throw error;
    return { kind: "error", message: describe(error), permanent: !isTemporary(error) };
  }
}

function statementsOf({ statement, statements, parameters }: Parameters): readonly Statement[] | null {
  if ((statement === undefined) === (statements === undefined)) return null;
  if (statement !== undefined) return [{ statement, parameters }];
  return (statements as readonly Partial<Statement>[]).map((each) => ({
    statement: each.statement ?? "",
    parameters: each.parameters ?? [],
  }));
}

async function transact(
  client: pg.Client,
  { parameters, step, signal }: TaskContext<Parameters>,
  statements: readonly Statement[],
): Promise<TaskResult> {
  const { idempotencyTable, expectedRows } = parameters;
  if (idempotencyTable !== undefined) await createTable(client, idempotencyTable);
  await client.query(
    `begin isolation level ${parameters.isolation}${parameters.readOnly ? " read only" : ""}`,
  );
  try {
    // The server ends what takes longer than the step may, even when nobody is left to cancel it.
    if (step.timeLimitMs !== null)
      await client.query(`set local statement_timeout = ${Math.min(step.timeLimitMs, 2 ** 31 - 1)}`);
    if (idempotencyTable !== undefined) {
      const former = await claimKey(client, idempotencyTable, step.idempotencyKey);
      if (former !== null) {
        await client.query("rollback");
        return {
          kind: "success",
          message: "was done before; nothing was repeated",
          output: { ...former, repeated: true },
        };
      }
    }
    let output: Answer = { rowCount: 0 };
    for (const [index, each] of statements.entries()) {
      signal.throwIfAborted();
      const isLast = index === statements.length - 1;
      output = await query(client, each, isLast ? parameters.rows : 0);
      // Whatever a statement hid its commit behind.
      if (client.getTransactionStatus() !== "T")
        return permanentError("a statement ended the transaction of the step; what it did before stays");
    }
    if (expectedRows !== undefined && output.rowCount !== expectedRows) {
      await client.query("rollback");
      return permanentError(
        `${counted(output.rowCount ?? 0, "row was", "rows were")} affected, expected ${expectedRows}; everything was rolled back`,
      );
    }
    if (idempotencyTable !== undefined)
      await client.query(`update ${quote(idempotencyTable)} set output = $2 where idempotency_key = $1`, [
        step.idempotencyKey,
        JSON.stringify(output),
      ]);
    signal.throwIfAborted();
    await client.query("commit");
    return {
      kind: "success",
      message: counted(output.rowCount ?? 0, "row"),
      output: { ...output },
    };
  } catch (error) {
    await client.query("rollback").catch(() => {});
    throw error;
  }
}

interface Answer {
  /** Rows of the last statement. */
  readonly rowCount: number;
  readonly rows?: readonly unknown[];
  readonly more?: boolean;
}

/** Runs one statement by the extended protocol, which takes no second one, and keeps only so many of its rows. */
async function query(
  client: pg.Client,
  { statement, parameters }: Statement,
  rowsMax: number,
): Promise<Answer> {
  const config = { text: statement, values: parameters.map(bound), queryMode: "extended" };
  const running = new pg.Query(config);
  const rows: unknown[] = [];
  let characters = 0;
  let given = 0;
  running.on("row", (row: unknown) => {
    given += 1;
    if (rows.length >= rowsMax || characters > ROWS_CHARACTERS_MAX) return;
    characters += JSON.stringify(row).length;
    if (characters <= ROWS_CHARACTERS_MAX) rows.push(row);
  });
  const rowCount = await new Promise<number | null>((resolve, reject) => {
    running.on("end", (result) => resolve(result.rowCount)).on("error", reject);
    client.query(running);
  });
  return {
    rowCount: rowCount ?? 0,
    ...(given === 0 || rowsMax === 0 ? {} : { rows, more: given > rows.length }),
  };
}

/** A list stays a list of SQL; an object becomes JSON, as its text. */
function bound(value: unknown): unknown {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? JSON.stringify(value) : value;
}

/** Made outside the transaction, one at a time: two that make it at once would fail. */
async function createTable(client: pg.Client, table: string): Promise<void> {
  const there = await client.query("select to_regclass($1) is not null as there", [quote(table)]);
  if ((there.rows[0] as { there?: boolean } | undefined)?.there === true) return;
  await client.query("begin");
  try {
    await client.query("select pg_advisory_xact_lock(hashtextextended('lockstep idempotency table', 0))");
    await client.query(
      `create table if not exists ${quote(table)} (idempotency_key text primary key, done_at timestamptz not null default now(), output jsonb)`,
    );
    await client.query("commit");
  } catch (error) {
    await client.query("rollback").catch(() => {});
    throw error;
  }
}

/** Writes the key. Returns the output of the transaction that had written it before; null: there was none. */
async function claimKey(
  client: pg.Client,
  table: string,
  key: string,
): Promise<Record<string, unknown> | null> {
  // One that is writing it at this moment is waited for.
  const written = await client.query(
    `insert into ${quote(table)} (idempotency_key) values ($1) on conflict (idempotency_key) do nothing`,
    [key],
  );
  if (written.rowCount === 1) return null;
  const former = await client.query<{ output: Record<string, unknown> | null }>(
    `select output from ${quote(table)} where idempotency_key = $1`,
    [key],
  );
  return former.rows[0]?.output ?? {};
}

const quote = (table: string) =>
  table
    .split(".")
    .map((part) => pg.escapeIdentifier(part))
    .join(".");

/** Whether a statement would begin or end our transaction. */
export function controlsTransaction(statement: string): boolean {
  const bare = statement.replace(/^(?:\s+|--[^\n]*(?:\n|$)|\/\*(?:[^*]|\*(?!\/))*\*\/|;)+/, "");
  return /^(begin|start|commit|end|rollback|abort|savepoint|release|prepare\s+transaction)\b/i.test(bare);
}

function statementsProblem(value: unknown): string | null {
  const isStatement = (each: unknown) =>
    typeof each === "object" &&
    each !== null &&
    "statement" in each &&
    typeof each.statement === "string" &&
    (!("parameters" in each) || Array.isArray(each.parameters)) &&
    Object.keys(each).every((name) => name === "statement" || name === "parameters");
  const list = value as readonly unknown[];
  return list.length > 0 && list.every(isStatement)
    ? null
    : "must be a list of objects with statement and, where it has values, parameters";
}

function describe(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const code = "code" in error && typeof error.code === "string" ? `${error.code}: ` : "";
  const detail = "detail" in error && typeof error.detail === "string" ? ` (${error.detail})` : "";
  return `${code}${error.message || "the database cannot be reached"}${detail}`;
}
