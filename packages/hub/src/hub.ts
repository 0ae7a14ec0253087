import { mkdir } from "node:fs/promises";
import type { AddressInfo } from "node:net";
import { join, resolve } from "node:path";
import {
  type Clock,
  formatUrl,
  LISTEN_BACKLOG,
  type ListenAddress,
  type Logger,
  parseListen,
  type Random,
  systemClock,
  systemRandom,
} from "@lockstep/platform";
import { LockstepError } from "@lockstep/protocol";
import { ContentStore } from "@lockstep/store";
import manifest from "../package.json" with { type: "json" };
import {
  type DatabaseAddress,
  type DatabaseConnection,
  formatServerVersion,
  openDatabase,
} from "./db/connect.ts";
import { lockDataDirectory } from "./db/embedded/data-lock.ts";
import { startEmbeddedPostgres } from "./db/embedded/embedded.ts";
import { migrate, schemaState } from "./db/migrate.ts";
import { createDbQueue, type DbQueueTuning } from "./dbqueue/index.ts";
import { Gate } from "./http/gate.ts";
import { DEFAULT_PACE, type Pace } from "./http/pace.ts";
import { createServer, type HubServer } from "./http/server.ts";
import type { HubGates, HubServices, Repository } from "./http/services.ts";
import { type ScheduleRunner, startSchedules } from "./jobs/schedules.ts";
import { startJobService } from "./jobs/service.ts";
import { checkListen, DEFAULT_LISTEN } from "./listen-address.ts";
import { collectContentProcedure } from "./repository/collect-content.ts";
import { DEFAULT_LOAD_LIMITS, type LoadLimits } from "./repository/load.ts";
import { watchSemaphore } from "./repository/semaphore.ts";
import { softwareRevisionProcedure } from "./repository/software-revision.ts";
import { type UpdaterSource, updateArchiveProcedure } from "./repository/update-archive.ts";
import { readServedTls, type ServedCertificate, watchCertificate } from "./served-certificate.ts";
import { createSetup } from "./setup/setup.ts";
import { findUpdater } from "./setup/updater-source.ts";
import { StepFiles } from "./steps/step-files.ts";
import { StepLibrary } from "./steps/step-library.ts";
import { type StepsAhead, startStepsAhead } from "./steps/steps-ahead.ts";
import { loadToken } from "./token-file.ts";
import { TrustPublisher } from "./trust/publisher.ts";
import { startTrustUpkeep, type TrustUpkeep } from "./trust/upkeep.ts";

/**
 * A hub from its start to its end.
 *
 * Data directory: `token` (who knows it may do everything), `postgres/` (the embedded database), `cache/` (contents;
 * may be removed at any time), `steps/` (what leads from one manifest to another; the same), `hub.lock` and `hub.pid`.
 *
 * An empty database gets its schema at once. A database of an older hub keeps its schema until somebody runs `lockstep
 * setup` (or `migrate` is given, or `--dev`): an update of the database is a decision, and every other hub of it has to
 * follow. Until then everything but set-up, status and health answers DATABASE_SCHEMA_OLDER.
 *
 * The end: long polls are answered, running requests and loads get time to finish, the DBQueue gives back what it
 * cannot finish, the database stops last.
 */
export interface HubOptions {
  readonly dataDirectory: string;
  /** `postgres://…`; left out or null: a PostgreSQL of the hub's own. */
  readonly database?: string | null;
  /** `HOST:PORT`. */
  readonly listen?: string;
  /** Loopback only, no credentials, schema updates at once. */
  readonly development?: boolean;
  /** Files in PEM. */
  readonly tls?: { readonly certFile: string; readonly keyFile: string } | null;
  /** Update the schema of an older hub's database at the start. */
  readonly migrate?: boolean;
  readonly log: Logger;
  readonly clock?: Clock;
  readonly random?: Random;
  readonly limits?: Partial<LoadLimits>;
  /** Size of the cache of contents on disk in bytes. */
  readonly cacheBytesMax?: number;
  readonly dbqueue?: Partial<DbQueueTuning>;
  /** Settings for the embedded server's command line. */
  readonly databaseSettings?: Readonly<Record<string, string>>;
  readonly updater?: UpdaterSource;
  /** Opens encrypted key files of the data directory. */
  readonly keyPassphrase?: string | null;
  /** Lowest rate at which answers must be taken. */
  readonly pace?: Pace;
}

export interface RunningHub {
  readonly url: string;
  /** Null with `development`. */
  readonly token: string | null;
  /** Waits up to `graceMs` (default 30,000) for what is under way, then ends everything. Can be called twice. */
  stop(options?: { readonly graceMs?: number }): Promise<void>;
}

const CACHE_BYTES_MAX = 16 * 2 ** 30;
const STEPS_BYTES_MAX = 2 * 2 ** 30;
/** 4 slots and 2 more for the DBQueue, 1 for the semaphore, the rest for requests. */
const CONNECTIONS = 24;
const GRACE_MS = 30_000;

export const HUB_VERSION: string = manifest.version;

/**
 * Starts a hub; it serves when this returns. Throws HUB_ALREADY_RUNNING, HUB_LISTEN_REFUSED, HUB_LISTEN_FAILED, USAGE,
 * CONFIG_INVALID, DATABASE_UNREACHABLE, DATABASE_START_FAILED and the other codes of the database; nothing is left
 * running then.
 */
export async function startHub(options: HubOptions): Promise<RunningHub> {
  const address = parseListen(options.listen ?? DEFAULT_LISTEN);
  const development = options.development === true;
  checkListen(address, { token: !development, tls: (options.tls ?? null) !== null });
  const tls = options.tls ? await readServedTls(options.tls) : null;
  const directory = resolve(options.dataDirectory);
  await mkdir(directory, { recursive: true, mode: 0o700 });
  await using started = new AsyncDisposableStack();
  const { connection, database } = await openHubDatabase(options, directory, started);
  const stopping = new AbortController();
  const cache = await ContentStore.open(join(directory, "cache"), {
    sizeBytesMax: options.cacheBytesMax ?? CACHE_BYTES_MAX,
  });
  const token = development ? null : await loadToken(directory, options.log);
  const steps = await StepFiles.open(join(directory, "steps"), STEPS_BYTES_MAX);
  const parts = createServices(
    options,
    connection,
    database,
    { cache, steps, certificate: tls?.certificate ?? null },
    stopping.signal,
  );
  const state = await schemaState(connection.pool);
  if (state.pending.length > 0 && (state.applied === 0 || development || options.migrate === true))
    for (const { number, name } of await migrate(connection.pool))
      options.log.info("applied a migration", { number, name });
  if ((await schemaState(connection.pool)).pending.length === 0) await parts.activate();
  else
    options.log.warn("the database waits for `lockstep setup`", {
      applied: state.applied,
      known: state.known,
    });
  started.defer(() => parts.deactivate(0));
  const server = await createServer({ services: parts.services, token, tls });
  const url = await listen(server, address, tls !== null);
  options.log.info("the hub serves", { url, version: HUB_VERSION, database });
  if (tls !== null)
    void watchCertificate(tls.certificate, {
      clock: options.clock ?? systemClock,
      log: options.log,
      stopping: stopping.signal,
    });

  const rest = started.move();
  let stopped: Promise<void> | null = null;
  return {
    url,
    token,
    stop: (how = {}) => {
      stopped ??= (async () => {
        const graceMs = how.graceMs ?? GRACE_MS;
        stopping.abort();
        await closeServer(server, graceMs, options.clock ?? systemClock);
        await parts.deactivate(graceMs);
        await rest.disposeAsync();
        options.log.info("the hub has stopped");
      })();
      return stopped;
    },
  };
}

async function openHubDatabase(
  options: HubOptions,
  directory: string,
  started: AsyncDisposableStack,
): Promise<{ connection: DatabaseConnection; database: string }> {
  const lock = await lockDataDirectory(directory);
  started.defer(() => lock.release());
  let address: DatabaseAddress;
  const external = options.database ?? null;
  if (external === null) {
    const embedded = await startEmbeddedPostgres({
      dataDirectory: directory,
      log: options.log,
      ...(options.clock === undefined ? {} : { clock: options.clock }),
      ...(options.databaseSettings === undefined ? {} : { settings: options.databaseSettings }),
    });
    started.defer(() => embedded.stop());
    address = embedded.address;
  } else {
    address = { connectionString: external };
  }
  const connection = await openDatabase(address, { max: CONNECTIONS });
  started.defer(() => connection.close());
  const kind = external === null ? "embedded" : "external";
  return { connection, database: `${formatServerVersion(connection.serverVersion)}, ${kind}` };
}

interface HubParts {
  readonly services: HubServices;
  /** Begins to work with the database, once its schema is ours. Calling it again is harmless. */
  activate(): Promise<void>;
  deactivate(graceMs: number): Promise<void>;
}

function createServices(
  options: HubOptions,
  { pool, exchanges }: DatabaseConnection,
  database: string,
  {
    cache,
    steps: files,
    certificate,
  }: {
    readonly cache: ContentStore;
    readonly steps: StepFiles;
    readonly certificate: ServedCertificate | null;
  },
  stopping: AbortSignal,
): HubParts {
  const { log, clock = systemClock, random = systemRandom } = options;
  const hub = random.uuid();
  const updater = options.updater ?? findUpdater(HUB_VERSION);
  const publisher = new TrustPublisher({
    dataDirectory: resolve(options.dataDirectory),
    passphrase: options.keyPassphrase ?? null,
    clock,
    log,
  });
  const steps = new StepLibrary({ pool, cache, files, clock, log, stopping });
  let active: Promise<Repository> | null = null;
  let repository: Repository | null = null;
  let schedules: ScheduleRunner | null = null;
  let ahead: StepsAhead | null = null;
  let upkeep: TrustUpkeep | null = null;

  async function begin(): Promise<Repository> {
    await publisher.begin(pool);
    const publishes = await publisher.canPublish(pool);
    if (!publishes)
      log.warn("this hub has no keys, so another hub of the database must publish software revisions", {
        keys: publisher.keysDirectory,
        lost: "lockstep keys recover makes new ones; then start the hub again",
      });
    const semaphore = await watchSemaphore({ pool, clock, log });
    const dbqueue = createDbQueue({
      pool,
      hubId: hub,
      log,
      clock,
      random,
      procedures: [
        updateArchiveProcedure(updater),
        ...(publishes ? [softwareRevisionProcedure(publisher)] : []),
        collectContentProcedure({ now: () => clock.now() }),
      ],
      ...(options.dbqueue === undefined ? {} : { tuning: options.dbqueue }),
    });
    try {
      await dbqueue.start();
    } catch (error) {
      await semaphore.close();
      throw error;
    }
    const jobs = startJobService({ pool, exchanges, clock, log, semaphore, stopping });
    schedules = startSchedules(pool, clock, log);
    upkeep = startTrustUpkeep({ pool, publisher, clock, log });
    repository = { semaphore, dbqueue, jobs };
    ahead = startStepsAhead({ pool, semaphore, library: steps, log });
    return repository;
  }

  const activate = async () => {
    active ??= begin().catch((error: unknown) => {
      active = null;
      throw error;
    });
    await active;
  };
  return {
    activate,
    deactivate: async (graceMs) => {
      const ended = repository;
      repository = null;
      await ahead?.stop();
      await schedules?.stop();
      await upkeep?.stop();
      await ended?.jobs.close();
      await ended?.dbqueue.stop({ graceMs });
      await ended?.semaphore.close();
    },
    services: {
      pool,
      clock,
      log,
      cache,
      steps,
      stopping,
      setup: createSetup({ pool, updater, database, clock, log, onSchemaReady: activate }),
      publisher,
      limits: { ...DEFAULT_LOAD_LIMITS, ...options.limits },
      repository: () => {
        if (repository !== null) return repository;
        throw stopping.aborted ? isStopping() : schemaOlder();
      },
      identity: {
        version: HUB_VERSION,
        hub,
        database,
        startedAt: clock.now(),
        development: options.development === true,
      },
      certificate,
      gates: createGates(clock),
      pace: options.pace ?? DEFAULT_PACE,
    },
  };
}

/** A client takes a minute's silence for a fault, so nobody stands in line as long; a change then waits for the lock. */
function createGates(clock: Clock): HubGates {
  const line = { waitMs: 45_000, clock };
  return {
    loads: new Gate(4, 16, { waitMs: 10_000, clock }),
    changes: new Gate(4, 16, { waitMs: 10_000, clock }),
    bundles: new Gate(16, 500, line),
    contents: new Gate(64, 2_000, line),
    comparisons: new Gate(2, 50, line),
  };
}

function isStopping(): LockstepError {
  return new LockstepError("HUB_BUSY", "the hub is stopping", {
    hint: "Try again later.",
    retryAfterSeconds: 10,
  });
}

function schemaOlder(): LockstepError {
  return new LockstepError("DATABASE_SCHEMA_OLDER", "the database has the schema of an older hub", {
    hint: "Run `lockstep setup`; it says what will change. Until then this hub serves nothing else.",
  });
}

async function listen(server: HubServer, address: ListenAddress, tls: boolean): Promise<string> {
  try {
    await server.listen({ host: address.host, port: address.port, backlog: LISTEN_BACKLOG });
  } catch (cause) {
    throw new LockstepError("HUB_LISTEN_FAILED", `the hub cannot listen on ${address.host}:${address.port}`, {
      found: cause instanceof Error && "code" in cause ? String(cause.code) : String(cause),
      hint: "Another program may use the port: choose one with --listen, or stop that program.",
      cause,
    });
  }
  const { port } = server.server.address() as AddressInfo;
  return formatUrl({ host: address.host, port }, tls);
}

/** Takes no more connections, waits for the requests under way, then cuts whatever is left. */
async function closeServer(server: HubServer, graceMs: number, clock: Clock): Promise<void> {
  const closed = server.close();
  const done = new AbortController();
  await Promise.race([closed, clock.sleep(graceMs, done.signal)]);
  done.abort();
  server.server.closeAllConnections();
  await closed;
}
