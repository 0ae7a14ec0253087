import { readFileSync } from "node:fs";

/**
 * Which process a lock file means. A process id alone lies after a while: ids are given out again, quickly in
 * containers and after each start of the machine, so a lock of a dead process would look alive for ever. The id
 * together with the moment when that process began names one process.
 *
 * `start` is an opaque text: equal texts mean the same process. On Linux it is the boot id and the start time in clock
 * ticks from /proc, elsewhere what `ps` prints; null where neither can be had, and then the id alone has to do.
 */
export interface ProcessIdentity {
  readonly pid: number;
  readonly start: string | null;
}

/** This process. */
export function ownIdentity(): ProcessIdentity {
  return { pid: process.pid, start: readStart(process.pid) };
}

/** The process that has this id now, or null when there is none. */
export function identify(pid: number): ProcessIdentity | null {
  if (!isAlive(pid)) return null;
  const start = readStart(pid);
  return start === ENDED ? null : { pid, start };
}

/**
 * Whether exactly this process still runs. A process of another user counts as running; so does one whose start cannot
 * be told, because a lock broken by mistake does more harm than one that is kept too long. A zombie runs no more.
 */
export function isRunning(identity: ProcessIdentity): boolean {
  if (!isAlive(identity.pid)) return false;
  const start = readStart(identity.pid);
  if (start === ENDED) return false;
  return identity.start === null || start === null || start === identity.start;
}

const ENDED = "ended";

function isAlive(pid: number): boolean {
  if (!Number.isSafeInteger(pid) || pid <= 0) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error instanceof Error && "code" in error && error.code === "EPERM";
  }
}

function readStart(pid: number): string | null {
  if (process.platform === "win32") return null;
  if (process.platform !== "linux") return startFromPs(pid);
  try {
    return parseStart(
      readFileSync(`/proc/${pid}/stat`, "utf8"),
      readFileSync("/proc/sys/kernel/random/boot_id", "utf8"),
    );
  } catch {
    return null;
  }
}

/** Takes /proc/PID/stat apart (proc(5)): the second field may hold blanks and brackets, so counting starts behind it. */
export function parseStart(stat: string, bootId: string): string | null {
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  const state = fields[0];
  const startTicks = fields[19];
  if (state === "Z" || state === "X") return ENDED;
  return startTicks === undefined || !/^\d+$/.test(startTicks) ? null : `${bootId.trim()} ${startTicks}`;
}

function startFromPs(pid: number): string | null {
  // Loaded only here: starting it costs every program that never asks.
  const { spawnSync } = process.getBuiltinModule("node:child_process");
  const { status, stdout } = spawnSync("ps", ["-o", "lstart=", "-p", String(pid)], {
    encoding: "utf8",
    env: { ...process.env, LC_ALL: "C", TZ: "UTC" },
  });
  return status === 0 && stdout.trim() !== "" ? stdout.trim() : null;
}
