import { readdirSync, readFileSync } from "node:fs";

/**
 * Every process that a worker started, wherever it went.
 *
 * Killing a process group misses whoever made a session of its own (`setsid`, daemons). There is no call on Linux that
 * lists all descendants once their parents have died, but the environment is inherited: each worker gets a name of its
 * own in it, and /proc shows it. Not found: a process that cleared its environment, and one of another user.
 */
export const WORKER_VARIABLE = "LOCKSTEP_JOB_WORKER";
export const SERVICE_VARIABLE = "LOCKSTEP_JOB_SERVICE";

const ROUNDS_MAX = 20;

/** Kills every process that has this variable with this value, but ourselves. Returns how many were there. */
export function killMarked(variable: string, value: string): number {
  if (process.platform !== "linux") return 0;
  const killed = new Set<number>();
  // A process may fork between the look and the kill: until nobody new turns up.
  for (let round = 0; round < ROUNDS_MAX; round++) {
    const found = findMarked(variable, value).filter((pid) => !killed.has(pid));
    if (found.length === 0) break;
    for (const pid of found) {
      killed.add(pid);
      try {
        process.kill(pid, "SIGKILL");
      } catch {
        // It has ended.
      }
    }
  }
  return killed.size;
}

function findMarked(variable: string, value: string): number[] {
  const wanted = `\0${variable}=${value}\0`;
  const found: number[] = [];
  for (const name of readdirSync("/proc")) {
    const pid = Number(name);
    if (!Number.isInteger(pid) || pid === process.pid) continue;
    try {
      if (`\0${readFileSync(`/proc/${pid}/environ`, "latin1")}\0`.includes(wanted)) found.push(pid);
    } catch {
      // It has ended, or belongs to somebody else.
    }
  }
  return found;
}
