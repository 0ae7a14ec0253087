/**
 * The hub's own PostgreSQL: nothing to install, nothing to set up, one directory. Started and stopped by the hub,
 * reached through a Unix socket only, durable (fsync is on). docs/operating/database.md is for whoever operates it.
 *
 * What can be found at a start and is put right: no cluster yet, half of one, a lost password file, a server that an
 * earlier hub left, a lock file of a dead one. What is refused: a data directory that another hub uses, and a cluster
 * of another major version than the programs at hand.
 */
import { type FileHandle, open } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Clock, type Logger, systemClock } from "@lockstep/platform";
import { LockstepError } from "@lockstep/protocol";
import pg from "pg";
import { type DatabaseAddress, sqlState } from "../connect.ts";
import { type Account, serverAccount } from "./account.ts";
import {
  ADMIN_ROLE,
  type ClusterPaths,
  clusterPaths,
  createCluster,
  existingCluster,
  HAS_DESCRIPTOR_PATHS,
  loadPasswords,
  type Passwords,
  prepareRoot,
  prepareSocketDirectory,
  resetAdminPassword,
} from "./cluster.ts";
import { type DataLock, lockDataDirectory } from "./data-lock.ts";
import { fileFailure } from "./failure.ts";
import { endLeftoverServer } from "./leftover.ts";
import { findPrograms, type Programs } from "./programs.ts";
import { endedEarly, postmasterPid, type ServerProcess, startServer } from "./server.ts";

export interface EmbeddedPostgresOptions {
  /** The hub's data directory; the database takes the directory `postgres` in it. Made when missing. */
  readonly dataDirectory: string;
  readonly log: Logger;
  readonly clock?: Clock;
  /** Directory of PostgreSQL's programs. Default: LOCKSTEP_POSTGRES_BIN, else what can be found. */
  readonly programs?: string;
  /** Settings for the server's command line, as `fsync: "off"` for tests. */
  readonly settings?: Readonly<Record<string, string>>;
  /** Where copies of the programs may be kept when their user cannot reach them (see programs.ts). */
  readonly programCopies?: readonly string[];
}

export interface EmbeddedPostgres {
  /** For the hub: owner of its database, no superuser. Good for this process and its children, while it lives. */
  readonly address: DatabaseAddress;
  /** For tests and administration: the superuser. */
  readonly adminAddress: DatabaseAddress;
  /** `18.4` */
  readonly version: string;
  /** Process id of the server, or null while it is not running. */
  pid(): Promise<number | null>;
  /** Ends the server and gives the data directory free. Close every connection first: open ones are cut. */
  stop(): Promise<void>;
}

const ROLE = "lockstep";
const RETRY_MS = { first: 500, max: 30_000 };
const READY_POLL_MS = 25;
const READY_REPORT_MS = 10_000;
const STOP_MS_MAX = 60_000;

/**
 * Starts the database of a data directory and keeps it running until `stop`: a server that dies is started again.
 *
 * Throws HUB_ALREADY_RUNNING, DATABASE_PROGRAMS_MISSING, DATABASE_VERSION_UNSUPPORTED, DATABASE_DISK_FULL,
 * DATABASE_NOT_PERMITTED, DATABASE_START_FAILED; the data directory is then free again.
 */
export async function startEmbeddedPostgres(options: EmbeddedPostgresOptions): Promise<EmbeddedPostgres> {
  const paths = clusterPaths(options.dataDirectory);
  await prepareRoot(paths);
  const lock = await lockDataDirectory(paths.root).catch((error: unknown) => {
    throw fileFailure("the data directory cannot be locked", error);
  });
  try {
    return await start(options, paths, lock);
  } catch (error) {
    lock.release();
    throw error;
  }
}

async function start(
  options: EmbeddedPostgresOptions,
  paths: ClusterPaths,
  lock: DataLock,
): Promise<EmbeddedPostgres> {
  const { log, clock = systemClock } = options;
  const cluster = await existingCluster(paths);
  const account = await serverAccount(cluster?.owner ?? null);
  const explicit = options.programs ?? process.env.LOCKSTEP_POSTGRES_BIN ?? "";
  const programs = await findPrograms({
    explicit: explicit === "" ? null : explicit,
    account,
    clusterMajor: cluster?.major ?? null,
    copyTo: options.programCopies ?? copyDirectories(paths, account),
  });
  const { passwords, fresh } = await loadPasswords(paths);
  if (cluster === null) {
    log.info("creating the database", { directory: paths.data, version: programs.version });
    await createCluster(paths, programs, account, passwords);
  } else {
    await endLeftoverServer(paths, clock, log);
    if (fresh) await resetAdminPassword(paths, programs, account, passwords);
  }
  await prepareSocketDirectory(paths, account);
  const embedded = new Embedded(paths, programs, account, passwords, { ...options, clock }, lock);
  await embedded.begin();
  return embedded;
}

/** Root's copies live where root alone can write and everybody can read; anyone else's in the data directory. */
function copyDirectories(paths: ClusterPaths, account: Account | null): readonly string[] {
  return account === null
    ? [join(paths.root, "programs")]
    : ["/var/cache/lockstep", join(tmpdir(), "lockstep-programs")];
}

class Embedded implements EmbeddedPostgres {
  readonly version: string;
  readonly #paths: ClusterPaths;
  readonly #programs: Programs;
  readonly #account: Account | null;
  readonly #passwords: Passwords;
  readonly #options: EmbeddedPostgresOptions & { readonly clock: Clock };
  readonly #lock: DataLock;
  readonly #stopping = new AbortController();
  #socket: SocketDirectory | null = null;
  #server: ServerProcess | null = null;
  #supervised: Promise<void> = Promise.resolve();

  constructor(
    paths: ClusterPaths,
    programs: Programs,
    account: Account | null,
    passwords: Passwords,
    options: EmbeddedPostgresOptions & { readonly clock: Clock },
    lock: DataLock,
  ) {
    this.#paths = paths;
    this.#programs = programs;
    this.#account = account;
    this.#passwords = passwords;
    this.#options = options;
    this.#lock = lock;
    this.version = programs.version;
  }

  get address(): DatabaseAddress {
    return this.#addressOf(ROLE, this.#passwords.hub, ROLE);
  }

  get adminAddress(): DatabaseAddress {
    return this.#addressOf(ADMIN_ROLE, this.#passwords.admin, "postgres");
  }

  pid(): Promise<number | null> {
    return postmasterPid(this.#paths);
  }

  async begin(): Promise<void> {
    this.#socket = await openSocketDirectory(this.#paths);
    try {
      let server = await this.#startServer();
      if (!(await this.#ensureDatabase())) {
        // The password file belongs to another cluster, as after copying a data directory in parts.
        await this.#endServer();
        await resetAdminPassword(this.#paths, this.#programs, this.#account, this.#passwords);
        server = await this.#startServer();
        await this.#ensureDatabase();
      }
      this.#supervised = this.#supervise(server);
    } catch (error) {
      await this.#endServer();
      await this.#socket.close();
      throw error;
    }
  }

  async stop(): Promise<void> {
    if (this.#stopping.signal.aborted) return this.#supervised;
    this.#stopping.abort();
    await this.#endServer();
    await this.#supervised;
    await this.#socket?.close();
    this.#lock.release();
  }

  #addressOf(user: string, password: string, database: string) {
    return { host: this.#socket?.path ?? this.#paths.socket, port: 5432, user, password, database };
  }

  async #startServer(): Promise<ServerProcess> {
    const { log, settings = {} } = this.#options;
    const server = await startServer(this.#paths, this.#programs, this.#account, settings, log);
    this.#server = server;
    await this.#untilReady(server);
    return server;
  }

  /** Waits as long as the server lives: recovery after a crash takes what it takes. */
  async #untilReady(server: ServerProcess): Promise<void> {
    const { clock, log } = this.#options;
    const began = clock.monotonic();
    for (let report = READY_REPORT_MS; !server.hasEnded(); ) {
      if (await answers(this.adminAddress)) return;
      if (clock.monotonic() - began > report) {
        log.info("the database is still starting", { seconds: Math.round(report / 1000) });
        report += READY_REPORT_MS;
      }
      await clock.sleep(READY_POLL_MS);
    }
    throw endedEarly(await server.ended);
  }

  async #endServer(): Promise<void> {
    const server = this.#server;
    if (server === null || server.hasEnded()) return;
    const { clock } = this.#options;
    const ended = new AbortController();
    server.requestStop();
    await Promise.race([server.ended, clock.sleep(STOP_MS_MAX, ended.signal)]);
    ended.abort();
    if (server.hasEnded()) return;
    this.#options.log.warn("the database does not shut down in time; ending it at once");
    const pid = await this.pid();
    if (pid !== null) process.kill(pid, "SIGQUIT");
    await server.ended;
  }

  /** Starts the server again whenever it ends although nobody asked it to. */
  async #supervise(first: ServerProcess): Promise<void> {
    const { clock, log } = this.#options;
    let server: ServerProcess | null = first;
    let retryMs = RETRY_MS.first;
    for (;;) {
      const output = server === null ? "" : await server.ended;
      if (this.#stopping.signal.aborted) return;
      log.error("the database server ended; starting it again", { said: output.split("\n").at(-1) ?? "" });
      await clock.sleep(retryMs, this.#stopping.signal);
      if (this.#stopping.signal.aborted) return;
      try {
        await endLeftoverServer(this.#paths, clock, log);
        server = await this.#startServer();
        retryMs = RETRY_MS.first;
        if (this.#stopping.signal.aborted) await this.#endServer();
      } catch (error) {
        log.error("the database server cannot be started", { error });
        server = null;
        retryMs = Math.min(RETRY_MS.max, retryMs * 2);
      }
    }
  }

  /**
   * The hub's role and database; made where missing, so a first start that was interrupted here is finished now.
   * False: the superuser's password is not the one that we know.
   */
  async #ensureDatabase(): Promise<boolean> {
    if (await connects(this.address)) return true;
    if (!(await connects(this.adminAddress))) return false;
    const admin = new pg.Client(this.adminAddress);
    await admin.connect();
    try {
      const password = admin.escapeLiteral(this.#passwords.hub);
      const role = await admin.query("select from pg_roles where rolname = $1", [ROLE]);
      await admin.query(
        `${role.rowCount === 0 ? "create" : "alter"} role ${ROLE} login password ${password}`,
      );
      const database = await admin.query("select from pg_database where datname = $1", [ROLE]);
      if (database.rowCount === 0) await admin.query(`create database ${ROLE} owner ${ROLE}`);
      await admin.query(`revoke all on database ${ROLE} from public`);
      return true;
    } finally {
      await admin.end();
    }
  }
}

/** The socket's directory under a path that is short enough for the system, however deep the data directory lies. */
interface SocketDirectory {
  readonly path: string;
  close(): Promise<void>;
}

const SOCKET_PATH_BYTES_MAX = 103;

async function openSocketDirectory(paths: ClusterPaths): Promise<SocketDirectory> {
  if (HAS_DESCRIPTOR_PATHS) {
    const handle: FileHandle = await open(paths.socket, "r");
    return { path: `/proc/${process.pid}/fd/${handle.fd}`, close: () => handle.close() };
  }
  if (Buffer.byteLength(join(paths.socket, ".s.PGSQL.5432")) <= SOCKET_PATH_BYTES_MAX) {
    return { path: paths.socket, close: async () => {} };
  }
  throw new LockstepError(
    "DATABASE_START_FAILED",
    "the path of the data directory is too long for a socket",
    {
      expected: `at most ${SOCKET_PATH_BYTES_MAX} bytes with /postgres/socket/.s.PGSQL.5432`,
      found: Buffer.byteLength(paths.socket),
      hint: "use a data directory with a shorter path",
    },
  );
}

/** Whether the server is there; a refusal of the password is an answer too. */
function answers(address: DatabaseAddress): Promise<boolean> {
  return connects(address).then(
    () => true,
    () => false,
  );
}

/** Whether one can connect; false where role, password or database are missing. Other errors are thrown. */
async function connects(address: DatabaseAddress): Promise<boolean> {
  const client = new pg.Client({ ...address, connectionTimeoutMillis: 10_000 });
  client.on("error", () => {});
  try {
    await client.connect();
    return true;
  } catch (error) {
    if (/^(28|3D)/.test(sqlState(error) ?? "")) return false;
    throw error;
  } finally {
    await client.end().catch(() => {});
  }
}
