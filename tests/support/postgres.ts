/**
 * A real PostgreSQL for tests: one server for all suites of a test process, without fsync, in a temporary directory.
 * Each test gets a database of its own, cloned from one that is migrated already.
 *
 *     const server = usePostgres();
 *     test("…", async (t) => {
 *       const { pool, db } = await server.database(t);
 */
import { existsSync, readdirSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, type TestContext } from "node:test";
import { silentLogger } from "@lockstep/platform";
import {
  type DatabaseAddress,
  type DatabaseConnection,
  openDatabase,
  sqlState,
} from "../../packages/hub/src/db/connect.ts";
import { type EmbeddedPostgres, startEmbeddedPostgres } from "../../packages/hub/src/db/embedded/embedded.ts";
import { migrate } from "../../packages/hub/src/db/migrate.ts";

export interface TestDatabase extends DatabaseConnection {
  readonly address: DatabaseAddress & { readonly database: string };
  /** What must end before the connections are closed; the last one first. */
  beforeClose(end: () => Promise<void>): void;
}

export interface TestServer {
  /** `18.4` */
  readonly version: () => string;
  /** The superuser's way in, to the database `postgres`. */
  readonly adminAddress: () => EmbeddedPostgres["adminAddress"];
  /** A database for one test: migrated, or empty. Closed and dropped when the test ends. */
  database(
    t: TestContext,
    options?: { readonly empty?: boolean; readonly max?: number },
  ): Promise<TestDatabase>;
}

interface RunningServer {
  readonly embedded: EmbeddedPostgres;
  readonly admin: DatabaseConnection;
  readonly directory: string;
  databases: number;
}

/** Suites of one process follow each other closely; the server outlives the gap, not the process. */
const LINGER_MS = 300;
const TEMPLATE = "lockstep_template";
const UNSAFE_BUT_FAST = { fsync: "off", synchronous_commit: "off", full_page_writes: "off" };

class SharedServer {
  readonly #programs: string | null;
  #users = 0;
  #running: Promise<RunningServer> | null = null;
  #linger: NodeJS.Timeout | undefined;

  constructor(programs: string | null) {
    this.#programs = programs;
  }

  acquire(): Promise<RunningServer> {
    clearTimeout(this.#linger);
    this.#users += 1;
    this.#running ??= startShared(this.#programs);
    return this.#running;
  }

  release(): void {
    this.#users -= 1;
    if (this.#users > 0) return;
    this.#linger = setTimeout(() => {
      const running = this.#running;
      this.#running = null;
      running?.then(stopShared, () => {});
    }, LINGER_MS);
  }
}

const shared = new Map<string | null, SharedServer>();

/** The oldest PostgreSQL that this machine brings and that we support, or null. */
export function systemPrograms(): string | null {
  const root = "/usr/lib/postgresql";
  const versions = existsSync(root) ? readdirSync(root).map(Number) : [];
  const oldest = versions.filter((version) => version >= 15).sort((a, b) => a - b)[0];
  return oldest === undefined ? null : join(root, String(oldest), "bin");
}

/** Makes the server available to the tests of a file or suite. `programs`: another PostgreSQL than the hub's own. */
export function usePostgres(options: { readonly programs?: string | null } = {}): TestServer {
  const programs = options.programs ?? null;
  const server = shared.get(programs) ?? new SharedServer(programs);
  shared.set(programs, server);
  let running: RunningServer | null = null;
  const current = () => {
    if (running === null) throw new Error("usePostgres() belongs at the top of a file or suite");
    return running;
  };
  before(async () => {
    running = await server.acquire();
  });
  after(() => server.release());
  return {
    version: () => current().embedded.version,
    adminAddress: () => current().embedded.adminAddress,
    database: (t, wanted = {}) => createDatabase(current(), t, wanted),
  };
}

async function startShared(programs: string | null): Promise<RunningServer> {
  const directory = await mkdtemp(join(tmpdir(), "lockstep-test-postgres-"));
  const embedded = await startEmbeddedPostgres({
    dataDirectory: directory,
    log: silentLogger,
    settings: UNSAFE_BUT_FAST,
    ...(programs === null ? {} : { programs }),
  });
  const admin = await openDatabase(embedded.adminAddress, { max: 2 });
  await admin.pool.query(`create database ${TEMPLATE} owner lockstep`);
  const template = await openDatabase({ ...addressParts(embedded), database: TEMPLATE });
  await migrate(template.pool);
  await template.close();
  return { embedded, admin, directory, databases: 0 };
}

async function stopShared({ embedded, admin, directory }: RunningServer): Promise<void> {
  await admin.close();
  await embedded.stop();
  await rm(directory, { recursive: true, force: true, maxRetries: 40, retryDelay: 250 });
}

function addressParts(embedded: EmbeddedPostgres) {
  const { address } = embedded;
  if ("connectionString" in address) throw new Error("the embedded database has no URL");
  return address;
}

async function createDatabase(
  server: RunningServer,
  t: TestContext,
  wanted: { readonly empty?: boolean; readonly max?: number },
): Promise<TestDatabase> {
  server.databases += 1;
  const name = `test_${server.databases}`;
  await whenUnused(
    server.admin,
    `create database ${name} owner lockstep template ${wanted.empty === true ? "template0" : TEMPLATE}`,
  );
  const address = { ...addressParts(server.embedded), database: name };
  const connection = await openDatabase(address, wanted.max === undefined ? {} : { max: wanted.max });
  let closed: Promise<void> | null = null;
  const close = () => {
    closed ??= connection.close();
    return closed;
  };
  const ends: (() => Promise<void>)[] = [];
  t.after(async () => {
    for (const end of ends.reverse()) await end();
    await close();
    await whenUnused(server.admin, `drop database ${name} with (force)`);
  });
  return { ...connection, close, address, beforeClose: (end) => void ends.push(end) };
}

/** The server waits five seconds for sessions of a database to end; on a busy machine some take longer. */
async function whenUnused(admin: DatabaseConnection, statement: string): Promise<void> {
  for (;;) {
    try {
      await admin.pool.query(statement);
      return;
    } catch (error) {
      if (sqlState(error) !== "55006") throw error;
    }
  }
}
