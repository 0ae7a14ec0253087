/** A real hub over real HTTP on a database of its own, for one test. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { silentLogger } from "@lockstep/platform";
import type pg from "pg";
import { type HubOptions, type RunningHub, startHub } from "../../../packages/hub/src/hub.ts";
import type { UpdaterSource } from "../../../packages/hub/src/repository/update-archive.ts";
import type { TestDatabase, TestServer } from "../../support/postgres.ts";

/** Stands for the bundled updater: the hub only carries it. What a real one does is tested with the updater. */
export const TEST_UPDATER: UpdaterSource = {
  version: "0.1.0",
  load: async () => Buffer.from("export const updater = true;\n"),
};

export interface TestHub {
  readonly url: string;
  readonly token: string;
  readonly directory: string;
  readonly pool: pg.Pool;
  readonly database: TestDatabase;
  readonly running: RunningHub;
  /** Waits until the DBQueue has nothing left to do. */
  settled(): Promise<void>;
  stop(): Promise<void>;
}

/** A connection string for an address given in parts. */
export function connectionString(address: TestDatabase["address"]): string {
  if (!("host" in address)) throw new Error("the test database has no parts");
  const { host, port, user, password, database } = address;
  const query = new URLSearchParams({ host, port: String(port) });
  return `postgres://${user}:${encodeURIComponent(password)}@/${database}?${query}`;
}

export async function temporaryDirectory(t: TestContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), "lockstep-test-hub-"));
  // Who writes there may still be on his way out.
  t.after(() => rm(directory, { recursive: true, force: true, maxRetries: 40, retryDelay: 250 }));
  return directory;
}

/** Starts a hub; it ends with the test. `database`: share another hub's. */
export async function startTestHub(
  t: TestContext,
  server: TestServer,
  options: Partial<HubOptions> & { readonly shared?: TestDatabase; readonly empty?: boolean } = {},
): Promise<TestHub> {
  const { shared, empty, ...hubOptions } = options;
  const database = shared ?? (await server.database(t, { empty: empty === true }));
  const directory = hubOptions.dataDirectory ?? (await temporaryDirectory(t));
  const running = await startHub({
    dataDirectory: directory,
    database: connectionString(database.address),
    listen: "127.0.0.1:0",
    log: silentLogger,
    updater: TEST_UPDATER,
    ...hubOptions,
  });
  // Before its database and its directory go: what a test registers first is called first.
  database.beforeClose(() => running.stop({ graceMs: 1_000 }));
  const { pool } = database;
  return {
    url: running.url,
    token: running.token ?? "",
    directory,
    pool,
    database,
    running,
    settled: async () => {
      await untilSettled(pool);
      // What the hub shows follows by a notification, a moment later.
      const { rows } = await pool.query<{ value: number }>("select value from semaphore");
      while ((await shownRevision(running.url)) < (rows[0]?.value ?? 0)) await pause();
    },
    // What is under way is answered before, however long that takes.
    stop: () => running.stop({ graceMs: 60_000 }),
  };
}

/** Waits until no task waits or runs, save those that failed and were put off; deferred ones come back by themselves. */
export async function untilSettled(pool: pg.Pool): Promise<void> {
  while (true) {
    const { rows } = await pool.query<{ busy: boolean }>(
      `select exists (select from dbqueue_current)
         or exists (select from dbqueue_task where not_before is null or not_before <= now() or idle_from is not null) as busy`,
    );
    if (rows[0]?.busy === false) return;
    await pause();
  }
}

/** Waits until some load of this database takes contents in. */
export async function untilUploading(pool: pg.Pool): Promise<void> {
  while (true) {
    const { rows } = await pool.query(
      `select from pg_stat_activity
       where datname = current_database() and state = 'active' and query like 'copy content_part%'`,
    );
    if (rows.length > 0) return;
    await pause();
  }
}

function pause(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 20));
}

async function shownRevision(url: string): Promise<number> {
  const answer = await fetch(`${url}/v1/revision`);
  const { revision } = (await answer.json()) as { revision: number };
  return revision;
}

/** How many rows the tables of the repository hold. */
export async function countRows(pool: pg.Pool): Promise<Record<string, number>> {
  const tables = [
    "content",
    "content_part",
    "file_revision",
    "file_has_deploy_target",
    "deploy_target",
    "release_load",
    "software_revision",
    "revision_file",
    "revision_manifest",
  ];
  const { rows } = await pool.query<Record<string, number>>(
    `select ${tables.map((table) => `(select count(*)::int from ${table}) as ${table}`).join(", ")}`,
  );
  return rows[0] ?? {};
}
