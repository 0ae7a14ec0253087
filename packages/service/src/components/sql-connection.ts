import { readFile } from "node:fs/promises";
import { isLockstepError, LockstepError } from "@lockstep/protocol/wire";
import pg from "pg";

/** One connection to a database of others: opened for one step, ended with it, cancelled when the step is told to stop. */
const CONNECT_MS = 15_000;
/** How often the server looks whether we are still there, so that a killed worker leaves no running statement. */
const CLIENT_CHECK_MS = 2_000;
/** A worker that hangs inside its transaction must not hold locks for ever. */
const IDLE_IN_TRANSACTION_MS = 60_000;

export interface ConnectionSource {
  readonly connectionEnvironment: string | undefined;
  readonly connectionFile: string | undefined;
  readonly connection: string | undefined;
}

/** The connection URL of a step. Throws JOB_PARAMETERS_INVALID. */
export async function readConnectionUrl(
  source: ConnectionSource,
  environment: Readonly<Record<string, string>>,
): Promise<string> {
  const { connectionEnvironment: name, connectionFile: file, connection } = source;
  const given = [name, file, connection].filter((value) => value !== undefined).length;
  if (given !== 1)
    throw invalid("exactly one of connectionEnvironment, connectionFile and connection is needed", given);
  if (connection !== undefined) return connection.trim();
  if (name !== undefined) {
    const value = environment[name] ?? process.env[name];
    if (value === undefined || value.trim() === "")
      throw invalid(`the service's environment has no variable ${name}`, "none");
    return value.trim();
  }
  try {
    return (await readFile(file ?? "", "utf8")).trim();
  } catch (cause) {
    throw new LockstepError("JOB_PARAMETERS_INVALID", `connectionFile ${file} cannot be read`, { cause });
  }
}

function invalid(problem: string, found: string | number): LockstepError {
  return new LockstepError("JOB_PARAMETERS_INVALID", problem, { expected: "one connection", found });
}

/** The secrets inside a connection URL, as they stand in it and as they mean. */
export function secretsOf(url: string): string[] {
  const parsed = URL.parse(url);
  const password = parsed?.password ?? "";
  const query = parsed?.searchParams.get("password") ?? "";
  return [url, password, decode(password), query].filter((text) => text !== "");
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/**
 * Connects, runs `work` and disconnects. When the signal aborts, the statement is cancelled on the server. Throws the
 * signal's reason then, and otherwise what `work` throws.
 */
export async function withConnection<Result>(
  url: string,
  signal: AbortSignal,
  work: (client: pg.Client) => Promise<Result>,
): Promise<Result> {
  const config: pg.ClientConfig = {
    connectionString: url,
    application_name: "lockstep-step",
    connectionTimeoutMillis: CONNECT_MS,
    keepAlive: true,
    types: { getTypeParser: parserOf as typeof pg.types.getTypeParser },
  };
  const client = new pg.Client(config);
  // Said to whoever waits for a query as well; nobody listening would end the process.
  client.on("error", () => {});
  let backend: number | null = null;
  const cancel = () => {
    if (backend !== null) void cancelBackend(config, backend);
  };
  signal.throwIfAborted();
  try {
    await client.connect();
    const answer = await client.query<{ pid: number }>("select pg_backend_pid() as pid");
    backend = answer.rows[0]?.pid ?? null;
    await client
      .query(`set client_connection_check_interval = ${CLIENT_CHECK_MS}`)
      // Servers on systems that cannot tell refuse it.
      .catch(() => {});
    await client.query(`set idle_in_transaction_session_timeout = ${IDLE_IN_TRANSACTION_MS}`);
    signal.throwIfAborted();
    signal.addEventListener("abort", cancel, { once: true });
    return await work(client);
  } catch (error) {
    signal.throwIfAborted();
    throw error;
  } finally {
    signal.removeEventListener("abort", cancel);
    await client.end().catch(() => {});
  }
}

/** Ends what the session of our own process does now; by another connection, because ours is taken by it. */
async function cancelBackend(config: pg.ClientConfig, backend: number): Promise<void> {
  const other = new pg.Client(config);
  other.on("error", () => {});
  try {
    await other.connect();
    await other.query("select pg_cancel_backend($1)", [backend]);
  } catch {
    // Whoever waits for the statement goes on waiting for the server; its time limit stands.
  } finally {
    await other.end().catch(() => {});
  }
}

/** Whether another try of what failed with this error can go better. */
export function isTemporary(error: unknown): boolean {
  if (isLockstepError(error)) return false;
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  // Classes of SQLSTATE: connection, transaction rollback, resources, intervention, internal; and one of locking.
  if (/^[0-9A-Z]{5}$/.test(code)) return /^(08|40|53|57|58|XX)/.test(code) || code === "55P03";
  return true;
}

const { BOOL, INT2, INT4, INT8, OID, FLOAT4, FLOAT8, JSON: JSON_TYPE, JSONB, BYTEA } = pg.types.builtins;
const NUMBERS = new Set<number>([INT2, INT4, OID, FLOAT4, FLOAT8]);

/** Values as JSON has them, and otherwise as PostgreSQL writes them: a date must not move with the zone of a machine. */
function parserOf(oid: number): (text: string) => unknown {
  if (oid === BOOL) return (text) => text === "t";
  if (NUMBERS.has(oid)) return (text) => (Number.isFinite(Number(text)) ? Number(text) : text);
  if (oid === INT8) return (text) => (Number.isSafeInteger(Number(text)) ? Number(text) : text);
  if (oid === JSON_TYPE || oid === JSONB) return (text) => JSON.parse(text) as unknown;
  if (oid === BYTEA) return (text) => Buffer.from(text.slice(2), "hex").toString("base64");
  return (text) => text;
}
