/**
 * The private cluster in the data directory:
 *
 *     DIR/postgres/            ours alone, 0700
 *       data/                  PostgreSQL's, owned by the user that it runs as
 *       socket/                the same user's; the socket and nothing else
 *       passwords.json         0600
 *       hub.lock, hub.pid      see data-lock.ts
 *
 * `initdb` works in a temporary sibling, which gets its name by a rename when it is complete and durable: a cluster is
 * there wholly or not at all, whatever interrupts the first start.
 *
 * Programs never get a path below DIR, only inherited directory descriptors (/proc/self/fd/4 for the data directory,
 * say). So they work where only root can enter a directory above (a user's home, /root), and
 * the socket's path is never too long for the system. Where there is no /proc they get the path itself.
 */
import { randomBytes } from "node:crypto";
import { mkdir, mkdtemp, open, readdir, readFile, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { realDisk, systemErrorCode } from "@lockstep/platform";
import type { Account } from "./account.ts";
import { fileFailure, startFailure } from "./failure.ts";
import type { Programs } from "./programs.ts";
import { FIRST_DESCRIPTOR, startWatched } from "./watched-process.ts";

export const ADMIN_ROLE = "lockstep_admin";

export interface Passwords {
  readonly admin: string;
  readonly hub: string;
}

export interface ClusterPaths {
  readonly root: string;
  readonly data: string;
  readonly socket: string;
}

/** Whether a process can reach a directory by its descriptor. */
export const HAS_DESCRIPTOR_PATHS = process.platform === "linux";

export function clusterPaths(dataDirectory: string): ClusterPaths {
  const root = join(dataDirectory, "postgres");
  return { root, data: join(root, "data"), socket: join(root, "socket") };
}

/** Major version and owner of the cluster that is there, or null where none is. */
export async function existingCluster(
  paths: ClusterPaths,
): Promise<{ readonly major: number; readonly owner: Account } | null> {
  try {
    const { uid, gid } = await stat(paths.data);
    const text = await readFile(join(paths.data, "PG_VERSION"), "utf8");
    return { major: Number.parseInt(text, 10), owner: { uid, gid } };
  } catch (error) {
    if (systemErrorCode(error) === "ENOENT") return null;
    throw fileFailure("the database in the data directory cannot be read", error);
  }
}

/** Makes the directories around the cluster, and removes what an interrupted first start left. */
export async function prepareRoot(paths: ClusterPaths): Promise<void> {
  try {
    await mkdir(paths.root, { recursive: true, mode: 0o700 });
    for (const name of await readdir(paths.root)) {
      // An initdb that is just being interrupted may still write a file or two.
      const patience = { recursive: true, force: true, maxRetries: 40, retryDelay: 25 };
      if (name.startsWith("data.new-")) await rm(join(paths.root, name), patience);
    }
  } catch (error) {
    throw fileFailure("the data directory cannot be prepared", error);
  }
}

/** Empties the socket's directory and gives it to the account. Nothing of ours may be running. */
export async function prepareSocketDirectory(paths: ClusterPaths, account: Account | null): Promise<void> {
  try {
    await rm(paths.socket, { recursive: true, force: true });
    await mkdir(paths.socket, { mode: 0o700 });
    await give(paths.socket, account);
  } catch (error) {
    throw fileFailure("the socket's directory cannot be prepared", error);
  }
}

/** The passwords, made at the first start. `fresh`: they were made just now, so an existing cluster has others. */
export async function loadPasswords(
  paths: ClusterPaths,
): Promise<{ readonly passwords: Passwords; readonly fresh: boolean }> {
  const file = join(paths.root, "passwords.json");
  const known = await readFile(file, "utf8").then(parsePasswords, () => null);
  if (known !== null) return { passwords: known, fresh: false };
  const secret = () => randomBytes(32).toString("base64url");
  const passwords = { admin: secret(), hub: secret() };
  try {
    await writeDurably(`${file}.new`, `${JSON.stringify(passwords)}\n`);
    await rename(`${file}.new`, file);
    await realDisk.syncDirectories([paths.root]);
  } catch (error) {
    throw fileFailure("the database's passwords cannot be stored", error);
  }
  return { passwords, fresh: true };
}

function parsePasswords(text: string): Passwords | null {
  try {
    const value = JSON.parse(text) as Partial<Passwords> | null;
    return typeof value?.admin === "string" && typeof value.hub === "string"
      ? { admin: value.admin, hub: value.hub }
      : null;
  } catch {
    return null;
  }
}

/**
 * Makes the cluster. Throws DATABASE_DISK_FULL, DATABASE_NOT_PERMITTED, DATABASE_START_FAILED; then nothing of it is
 * left.
 */
export async function createCluster(
  paths: ClusterPaths,
  programs: Programs,
  account: Account | null,
  passwords: Passwords,
): Promise<void> {
  const temporary = await mkdtemp(join(paths.root, "data.new-"));
  try {
    const passwordFile = `${temporary}.password`;
    await give(temporary, account);
    try {
      await writeDurably(passwordFile, `${passwords.admin}\n`);
      await give(passwordFile, account);
      await runInitdb(temporary, passwordFile, programs, account);
    } finally {
      await rm(passwordFile, { force: true });
    }
    await configure(temporary);
    await rename(temporary, paths.data);
    await realDisk.syncDirectories([paths.root]);
  } catch (error) {
    throw fileFailure("the database cannot be created", error);
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
}

async function runInitdb(
  directory: string,
  passwordFile: string,
  programs: Programs,
  account: Account | null,
): Promise<void> {
  await using data = await open(directory, "r");
  await using password = await open(passwordFile, "r");
  const { code, output } = await runProgram(
    join(programs.bin, "initdb"),
    [
      ...["-D", descriptorPath(FIRST_DESCRIPTOR, directory), "--username", ADMIN_ROLE],
      ...["--auth", "scram-sha-256", "--pwfile", descriptorPath(FIRST_DESCRIPTOR + 1, passwordFile)],
      ...["--encoding", "UTF8", "--locale", "C", "--data-checksums"],
    ],
    account,
    [data.fd, password.fd],
  );
  if (code !== 0) throw startFailure("initdb could not create the database", output);
}

/** The path of a directory or file that a child inherits as descriptor `fd` (see FIRST_DESCRIPTOR). */
export function descriptorPath(fd: number, path: string): string {
  return HAS_DESCRIPTOR_PATHS ? `/proc/self/fd/${fd}` : path;
}

/** Runs a program of PostgreSQL to its end, with these descriptors inherited, and returns what it printed. */
export function runProgram(
  program: string,
  args: readonly string[],
  account: Account | null,
  descriptors: readonly number[],
  input?: string,
): Promise<{ readonly code: number | null; readonly output: string }> {
  const { child } = startWatched(
    program,
    args,
    account,
    descriptors,
    input === undefined ? "ignore" : "pipe",
  );
  return new Promise((resolve, reject) => {
    let output = "";
    for (const stream of [child.stdout, child.stderr]) {
      stream?.setEncoding("utf8").on("data", (text: string) => {
        output += text;
      });
    }
    child.once("error", reject);
    child.once("close", (code) => resolve({ code, output }));
    child.stdin?.on("error", () => {}).end(input);
  });
}

/**
 * What differs from PostgreSQL's own defaults. Written once, into the file that belongs to whoever operates the
 * database: they may change it. What must never differ stands on the command line (server.ts).
 */
const CONFIGURATION: Readonly<Record<string, string>> = {
  // Modest beside the hub on one machine.
  shared_buffers: "64MB",
  work_mem: "8MB",
  maintenance_work_mem: "64MB",
  max_connections: "60",
  max_worker_processes: "4",
  max_parallel_workers_per_gather: "0",
  autovacuum_max_workers: "2",
  // Nothing replicates from here, so the log needs only what recovery needs.
  wal_level: "minimal",
  max_wal_senders: "0",
  max_wal_size: "1GB",
  // Compiling a query takes longer than ours run.
  jit: "off",
  log_checkpoints: "off",
  // The hub reports the errors of its own queries.
  log_min_messages: "log",
  log_min_error_statement: "panic",
};

async function configure(directory: string): Promise<void> {
  const lines = Object.entries(CONFIGURATION).map(([name, value]) => `${name} = '${value}'`);
  await using file = await open(join(directory, "postgresql.conf"), "a");
  await file.write(`\n# Lockstep\n${lines.join("\n")}\n`);
  await file.sync();
}

/** Sets the superuser's password without asking for the old one, which only works while no server runs. */
export async function resetAdminPassword(
  paths: ClusterPaths,
  programs: Programs,
  account: Account | null,
  passwords: Passwords,
): Promise<void> {
  await using data = await open(paths.data, "r");
  const { code, output } = await runProgram(
    join(programs.bin, "postgres"),
    ["--single", "-D", descriptorPath(FIRST_DESCRIPTOR, paths.data), "-c", "listen_addresses=", "postgres"],
    account,
    [data.fd],
    `alter role ${ADMIN_ROLE} password '${passwords.admin}';\n`,
  );
  if (code !== 0) throw startFailure("the database's password could not be set anew", output);
}

async function give(path: string, account: Account | null): Promise<void> {
  if (account === null) return;
  await using handle = await open(path, "r");
  await handle.chown(account.uid, account.gid);
}

async function writeDurably(path: string, text: string): Promise<void> {
  await rm(path, { force: true });
  await using file = await open(path, "wx", 0o600);
  await file.writeFile(text);
  await file.sync();
}
