import { spawn } from "node:child_process";
import { readFile } from "node:fs/promises";

/**
 * The system's own scalpel: strace kills a program before its k-th call of a name, or lets that call fail.
 *
 * strace counts calls per name and thread, so the program must make its calls in one thread (no thread pool, no
 * io_uring), and the counts of two runs are the same only from the same state. The call does not take effect when the
 * kill or the error strikes.
 */
export interface TracedCall {
  readonly name: string;
  /** How many calls of this name this thread had made, this one included. */
  readonly ordinal: number;
  readonly line: string;
}

export interface RunOutcome {
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
  /** Whether the kill or the error has struck: the control without which nothing here proves anything. */
  readonly struck: boolean;
}

/** Calls that look at or change files. */
const FILE_CALLS =
  "open,openat,creat,close,read,pread64,write,pwrite64,writev,pwritev,fsync,fdatasync,rename,renameat,renameat2,link,linkat,symlink,symlinkat,unlink,unlinkat,mkdir,mkdirat,rmdir,chmod,fchmod,fchmodat,truncate,ftruncate,stat,lstat,fstat,newfstatat,statx,statfs,fstatfs,access,faccessat,faccessat2,getdents64,readlink,readlinkat,copy_file_range,utimensat,flock,fcntl";

const ENVIRONMENT = { ...process.env, UV_THREADPOOL_SIZE: "1", UV_USE_IO_URING: "0", NODE_COMPILE_CACHE: "" };

/** Runs a program without touching it; returns its main thread's calls on files below `root` between two marked ones. */
export async function traceCalls(
  command: readonly string[],
  root: string,
  log: string,
): Promise<TracedCall[]> {
  const outcome = await run([
    "strace",
    "-f",
    "-qq",
    "-y",
    "-s",
    "4096",
    "-o",
    log,
    "-e",
    `trace=${FILE_CALLS}`,
    "-e",
    "signal=none",
    ...command,
  ]);
  if (outcome.status !== 0) throw new Error(`the traced program failed: ${outcome.stderr}${outcome.stdout}`);
  const counts = new Map<string, number>();
  const calls: TracedCall[] = [];
  let main: string | null = null;
  let inside = false;
  for (const line of (await readFile(log, "utf8")).split("\n")) {
    const match = /^(\d+) +(\w+)\(/.exec(line);
    const [, thread, name] = match ?? [];
    if (thread === undefined || name === undefined) continue;
    main ??= thread;
    if (thread !== main) continue;
    const ordinal = (counts.get(name) ?? 0) + 1;
    counts.set(name, ordinal);
    if (line.includes("lockstep-crash-begin")) inside = true;
    else if (line.includes("lockstep-crash-end")) inside = false;
    else if (inside && line.includes(root)) calls.push({ name, ordinal, line });
  }
  return calls;
}

/** Calls that change something. */
const CHANGING_CALLS =
  "rename,renameat,renameat2,link,linkat,symlink,symlinkat,unlink,unlinkat,mkdir,mkdirat,rmdir,chmod,fchmod,fchmodat,fsync,fdatasync,ftruncate";

/** Runs a program and its children without touching them; returns every call of theirs that changes files below `root`. */
export async function traceChanges(
  command: readonly string[],
  root: string,
  log: string,
  environment: Readonly<Record<string, string>> = {},
): Promise<TracedCall[]> {
  const options = [
    "-f",
    "-qq",
    "-y",
    "-s",
    "4096",
    "-o",
    log,
    "-e",
    `trace=${CHANGING_CALLS}`,
    "-e",
    "signal=none",
  ];
  const outcome = await run(["strace", ...options, ...command], environment);
  if (outcome.status !== 0) throw new Error(`the traced program failed: ${outcome.stderr}${outcome.stdout}`);
  const counts = new Map<string, number>();
  const calls = new Map<string, TracedCall>();
  for (const line of (await readFile(log, "utf8")).split("\n")) {
    const [, thread, name] = /^(\d+) +(\w+)\(/.exec(line) ?? [];
    if (thread === undefined || name === undefined) continue;
    const ordinal = (counts.get(`${thread} ${name}`) ?? 0) + 1;
    counts.set(`${thread} ${name}`, ordinal);
    const key = `${name} ${ordinal}`;
    if (line.includes(root) && !calls.has(key)) calls.set(key, { name, ordinal, line });
  }
  return [...calls.values()];
}

/** Where and how to strike. */
export interface Strike {
  readonly call: TracedCall;
  /** The error of the call, or null to kill the program before it. */
  readonly error: string | null;
  /** The call must be on a file below this directory; else it was another one. */
  readonly root: string;
  readonly log: string;
}

/** Runs a program and kills it before one call, or lets that call fail. */
export async function runStruck(
  command: readonly string[],
  strike: Strike,
  environment: Readonly<Record<string, string>> = {},
): Promise<RunOutcome> {
  const { call, error, root, log } = strike;
  const what = error === null ? "signal=KILL" : `error=${error}`;
  // Not with --seccomp-bpf: strace 6.1 then traces as asked and injects nothing.
  const options = [
    "-f",
    "-qq",
    "-y",
    "-s",
    "4096",
    "-o",
    log,
    "-e",
    `trace=${call.name}`,
    "-e",
    "signal=none",
  ];
  const inject = `inject=${call.name}:${what}:when=${call.ordinal}`;
  const outcome = await run(["strace", ...options, "-e", inject, ...command], environment);
  const lines = (await readFile(log, "utf8")).split("\n");
  const struck =
    error === null
      ? lines.findLast((line) => line.includes("= ?"))
      : lines.find((line) => line.includes("(INJECTED)"));
  return { ...outcome, struck: struck?.includes(root) === true };
}

function run(
  [program = "", ...parameters]: readonly string[],
  environment: Readonly<Record<string, string>> = {},
): Promise<RunOutcome> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, parameters, {
      env: { ...ENVIRONMENT, ...environment },
      stdio: ["ignore", "pipe", "pipe"],
    });
    let stdout = "";
    let stderr = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      stdout += text;
    });
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      stderr += text;
    });
    child.once("error", reject);
    child.once("close", (status, signal) => resolve({ status, signal, stdout, stderr, struck: false }));
  });
}
