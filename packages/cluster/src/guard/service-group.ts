import { readdirSync, readFileSync } from "node:fs";

/**
 * Everything that a service has started, and how it ends for certain.
 *
 * A service runs in a process group of its own, and what it starts usually stays there. What leaves the group on purpose
 * is found by a mark in its environment, which children inherit. Where there is no /proc, the group has to do.
 */
export const GUARD_MARK = "LOCKSTEP_GUARDED";

/** Processes of the group or with the mark that are alive; a zombie holds nothing any more. */
export function findServiceProcesses(group: number, mark: string): number[] {
  let names: string[];
  try {
    names = readdirSync("/proc");
  } catch {
    return isGroupThere(group) ? [group] : [];
  }
  return names
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => belongs(pid, group, mark));
}

function belongs(pid: number, group: number, mark: string): boolean {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    // Behind the name, which may hold anything: state, parent, group.
    const [state, , ownGroup] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    if (state === "Z" || state === "X") return false;
    if (Number(ownGroup) === group) return true;
    return readFileSync(`/proc/${pid}/environ`, "latin1").includes(`${GUARD_MARK}=${mark}\0`);
  } catch {
    // It has ended, or is none of ours to look into.
    return false;
  }
}

function isGroupThere(group: number): boolean {
  try {
    process.kill(-group, 0);
    return true;
  } catch {
    return false;
  }
}

export function signalServiceGroup(group: number, signal: NodeJS.Signals): void {
  try {
    process.kill(-group, signal);
  } catch {
    // Nobody is left.
  }
}

const AGAIN_MS = 2;

/** Kills all of it, and resolves when nothing is left. */
export async function endService(group: number, mark: string): Promise<void> {
  signalServiceGroup(group, "SIGKILL");
  // What was being forked while we looked is found by looking once more.
  for (let empty = 0; empty < 2; ) {
    const left = findServiceProcesses(group, mark);
    for (const pid of left) {
      try {
        process.kill(pid, "SIGKILL");
      } catch {
        // It was faster.
      }
    }
    empty = left.length === 0 ? empty + 1 : 0;
    if (left.length > 0) await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
  }
}
