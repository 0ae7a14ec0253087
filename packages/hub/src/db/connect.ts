import { LockstepError } from "@lockstep/protocol";
import { Kysely, PostgresDialect, type PostgresPool, type PostgresPoolClient } from "kysely";
import pg from "pg";
import { EXCHANGE_SESSION, EXCHANGES_AT_ONCE } from "./exchange-session.ts";
import type { Database } from "./schema.ts";

/** The oldest PostgreSQL that we run on: the oldest that its makers still mend. */
export const SERVER_VERSION_MIN = 15;

/** Where the database is: a URL, or the parts of it (the embedded one: `host` is then the socket's directory). */
export type DatabaseAddress =
  | { readonly connectionString: string }
  | {
      readonly host: string;
      readonly port: number;
      readonly user: string;
      readonly password: string;
      readonly database: string;
    };

export interface DatabaseConnection {
  readonly pool: pg.Pool;
  readonly db: Kysely<Database>;
  /** For the exchanges of the job service: pipelined, and set up for them (exchange-session.ts). */
  readonly exchanges: pg.Pool;
  /** As `server_version_num`: 180004 is 18.4. */
  readonly serverVersion: number;
  /** Waits for the queries under way, then closes every connection. */
  close(): Promise<void>;
}

/** One transaction, for both kinds of user: `client` for COPY and LISTEN, `db` for typed queries on the same session. */
export interface Transaction {
  readonly client: pg.PoolClient;
  readonly db: Kysely<Database>;
}

export type IsolationLevel = "read committed" | "repeatable read" | "serializable";

export interface TransactionOptions {
  readonly isolation?: IsolationLevel;
  readonly readOnly?: boolean;
}

/** How often a busy session looks whether its client is still there. */
const CONNECTION_CHECK_MS = 2_000;

const INT8 = pg.types.builtins.INT8;
const INT8_ARRAY = 1016;

/** Reads an int8 as a number; throws rather than round (RangeError: the query then fails). */
export function parseInt8(text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value)) throw new RangeError(`the bigint ${text} does not fit a number`);
  return value;
}

/** The parsers of one pool. Not pg.types.setTypeParser: that would change every other user of pg in the process. */
const types: pg.CustomTypesConfig = {
  getTypeParser: ((oid: number, format?: "text" | "binary") => {
    if (format !== "binary" && oid === INT8) return parseInt8;
    if (format !== "binary" && oid === INT8_ARRAY) return parseInt8Array;
    return pg.types.getTypeParser(oid, format ?? "text");
  }) as typeof pg.types.getTypeParser,
};

function parseInt8Array(text: string): (number | null)[] {
  const inner = text.slice(1, -1);
  return inner === "" ? [] : inner.split(",").map((part) => (part === "NULL" ? null : parseInt8(part)));
}

/**
 * Opens a pool of at most `max` connections (default 16) and checks that the server is one we can use.
 * Throws DATABASE_UNREACHABLE, DATABASE_VERSION_UNSUPPORTED.
 */
export async function openDatabase(
  address: DatabaseAddress,
  options: { readonly max?: number; readonly applicationName?: string } = {},
): Promise<DatabaseConnection> {
  const config = {
    ...address,
    types,
    application_name: options.applicationName ?? "lockstep-hub",
    connectionTimeoutMillis: 15_000,
    idleTimeoutMillis: 60_000,
    keepAlive: true,
  };
  const pool = quiet(new pg.Pool({ ...config, max: options.max ?? 16, onConnect: watchClient }));
  const exchanges = quiet(
    new pg.Pool({
      ...config,
      max: EXCHANGES_AT_ONCE,
      pipeline: true,
      onConnect: async (client) => {
        await watchClient(client);
        await client.query(EXCHANGE_SESSION);
      },
    }),
  );
  try {
    const answer = await pool.query<{ version: number; encoding: string }>(
      `select current_setting('server_version_num')::int as version, current_setting('server_encoding') as encoding`,
    );
    const row = answer.rows[0];
    checkServer(row?.version ?? 0, row?.encoding ?? "");
    return {
      pool,
      db: new Kysely<Database>({ dialect: new PostgresDialect({ pool }) }),
      exchanges,
      serverVersion: row?.version ?? 0,
      close: async () => {
        await exchanges.end();
        await pool.end();
      },
    };
  } catch (error) {
    await pool.end();
    throw toDatabaseError(error);
  }
}

/**
 * A connection that breaks reports it twice: to whoever waits for a query, and as an event. An event that nobody listens
 * to would end the process.
 */
function quiet(pool: pg.Pool): pg.Pool {
  pool.on("error", () => {});
  pool.on("connect", (client) => client.on("error", () => {}));
  return pool;
}

/**
 * Has the server look, also in the middle of a statement, whether this client is still there. Otherwise a session
 * outlives its killed hub until the statement ends, and with it claims and locks. Servers on systems that cannot tell
 * refuse the setting; there the heartbeat decides.
 */
async function watchClient(client: pg.ClientBase): Promise<void> {
  await client.query(`set client_connection_check_interval = ${CONNECTION_CHECK_MS}`).catch(() => {});
}

function checkServer(version: number, encoding: string): void {
  if (Math.floor(version / 10_000) < SERVER_VERSION_MIN) {
    throw new LockstepError("DATABASE_VERSION_UNSUPPORTED", "the PostgreSQL server is too old", {
      expected: `PostgreSQL ${SERVER_VERSION_MIN} or newer`,
      found: formatServerVersion(version),
      hint: "upgrade the server, or let the hub run its own database (leave --database out)",
    });
  }
  if (encoding !== "UTF8") {
    throw new LockstepError("DATABASE_VERSION_UNSUPPORTED", "the database does not store text as UTF-8", {
      expected: "UTF8",
      found: encoding,
      hint: "create a database with: create database lockstep encoding 'UTF8' template template0",
    });
  }
}

/** `server_version_num` for people: 180004 → `PostgreSQL 18.4`. */
export function formatServerVersion(version: number): string {
  return `PostgreSQL ${Math.floor(version / 10_000)}.${version % 10_000}`;
}

/**
 * Runs `fn` in one transaction: committed when it returns, rolled back when it throws. The error of `fn` is passed on
 * as it is; a connection that did not survive is thrown away, not put back into the pool.
 */
export async function withTransaction<T>(
  pool: pg.Pool,
  fn: (transaction: Transaction) => Promise<T>,
  options: TransactionOptions = {},
): Promise<T> {
  const client = await pool.connect().catch((error: unknown) => {
    throw toDatabaseError(error);
  });
  let broken = false;
  try {
    await client.query(beginStatement(options));
    const result = await fn({ client, db: bindKysely(client) });
    await commit(client);
    return result;
  } catch (error) {
    broken = await client.query("rollback").then(
      () => false,
      () => true,
    );
    throw error;
  } finally {
    client.release(broken);
  }
}

/**
 * Commits. PostgreSQL answers COMMIT with ROLLBACK, and no error, where a statement failed before and the error was
 * swallowed: that must not look like success. Throws INTERNAL then.
 */
export async function commit(client: pg.PoolClient): Promise<void> {
  const { command } = await client.query("commit");
  if (command !== "COMMIT") {
    throw new LockstepError(
      "INTERNAL",
      "a transaction ended in a rollback: one of its statements had failed",
    );
  }
}

/** The statement that opens a transaction. */
export function beginStatement(options: TransactionOptions): string {
  return `begin isolation level ${options.isolation ?? "read committed"}${options.readOnly === true ? " read only" : ""}`;
}

/** A Kysely whose every query runs on this one client, so within whatever transaction the client is in. */
export function bindKysely(client: pg.PoolClient): Kysely<Database> {
  // Kysely "releases" after each query; the client stays with whoever opened the transaction.
  const bound: PostgresPoolClient = { query: client.query.bind(client), release: () => {} };
  const pool: PostgresPool = { connect: async () => bound, end: async () => {}, options: {} };
  return new Kysely<Database>({ dialect: new PostgresDialect({ pool }) });
}

/** The SQLSTATE of an error, or null where it has none. */
export function sqlState(error: unknown): string | null {
  if (typeof error !== "object" || error === null || !("code" in error)) return null;
  return typeof error.code === "string" && /^[0-9A-Z]{5}$/.test(error.code) ? error.code : null;
}

/** Whether the transaction lost against another one and may simply be tried again (serialization, deadlock). */
export function isRetryable(error: unknown): boolean {
  const state = sqlState(error);
  return state === "40001" || state === "40P01";
}

const CONNECTION_ERRNO = new Set([
  "ECONNREFUSED",
  "ECONNRESET",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "ENOENT",
  "ENOTFOUND",
  "EAI_AGAIN",
  "EACCES",
  "EPIPE",
  "ETIMEDOUT",
]);

/** Gives an error of connecting its name (DATABASE_UNREACHABLE); anything else is passed through. */
export function toDatabaseError(error: unknown): unknown {
  if (error instanceof LockstepError || !(error instanceof Error)) return error;
  const state = sqlState(error);
  const errno = "code" in error ? String(error.code) : "";
  // 08: connection exception, 28: authorisation, 3D: no such database, 53: out of resources, 57P: server going down.
  const unreachable = state !== null ? /^(08|28|3D|53|57P)/.test(state) : CONNECTION_ERRNO.has(errno);
  if (!unreachable && !/^(timeout exceeded|Connection terminated)/.test(error.message)) return error;
  return new LockstepError("DATABASE_UNREACHABLE", `the database does not answer: ${error.message}`, {
    ...(state === null && errno === "" ? {} : { found: state ?? errno }),
    hint:
      (state !== null && HINTS[state]) ||
      "check that PostgreSQL runs, and address, user and password of --database",
    cause: error,
  });
}

/** What to do where the database says more than that it is away. */
const HINTS: Readonly<Record<string, string>> = {
  // disk_full
  "53100":
    "make room on the disk of the database; the hub goes on by itself then, and nothing that it acknowledged is lost",
  // too_many_connections
  "53300": "let PostgreSQL take more connections (max_connections), or end others",
};
