import { readdirSync, readFileSync } from "node:fs";

/**
 * Everything that a service has started, and how it ends for certain.
 *
 * A service runs in a process group of its own, and what it starts usually stays there. What leaves the group on purpose
 * is found by a mark in its environment, which children inherit. Where there is no /proc, the group has to do.
 */
export const GUARD_MARK = "LOCKSTEP_GUARDED";

/** By what a service's processes are known. */
export interface ServiceMark {
  readonly group: number;
  readonly mark: string;
}

/** Living processes of these groups or with these marks; one of which every thread is dead holds nothing any more. */
export function findServiceProcesses(services: readonly ServiceMark[]): number[] {
  const groups = new Set(services.map(({ group }) => group));
  const entries = services.map(({ mark }) => `${GUARD_MARK}=${mark}\0`);
  const found = findProcesses((group, environment) => groups.has(group) || hasEntry(environment(), entries));
  return found ?? [...groups].filter(isGroupThere);
}

/** Living processes whose environment has an entry that begins with `text`; none where there is no /proc. */
export function findByEnvironment(text: string): number[] {
  return findProcesses((_group, environment) => hasEntry(environment(), [text])) ?? [];
}

const hasEntry = (environment: string, beginnings: readonly string[]) =>
  beginnings.some((text) => environment.startsWith(text) || environment.includes(`\0${text}`));

/** Null: there is no /proc. */
function findProcesses(isMeant: (group: number, environment: () => string) => boolean): number[] | null {
  let names: string[];
  try {
    names = readdirSync("/proc");
  } catch {
    return null;
  }
  return names
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => {
      try {
        const first = lookAt(`/proc/${pid}`);
        const place = first.isDead ? livingThreadOf(pid) : `/proc/${pid}`;
        return place !== null && isMeant(first.group, () => readFileSync(`${place}/environ`, "latin1"));
      } catch {
        // It has ended, or is none of ours to look into.
        return false;
      }
    });
}

/** Of a process or of one of its threads (proc(5)). Throws when there is none. */
function lookAt(place: string): { readonly isDead: boolean; readonly group: number; readonly start: string } {
  const stat = readFileSync(`${place}/stat`, "latin1");
  // Behind the name, which may hold anything: state, parent, group; and when it began.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  const [state = "", , group] = fields;
  return { isDead: state === "Z" || state === "X", group: Number(group), start: fields[19] ?? "" };
}

/**
 * Where the kernel tells of a process whose first thread is dead while another runs, and holds all that it had: of the
 * first it tells nothing. Null: all of them are dead.
 */
function livingThreadOf(pid: number): string | null {
  for (const thread of readdirSync(`/proc/${pid}/task`)) {
    const place = `/proc/${pid}/task/${thread}`;
    try {
      if (!lookAt(place).isDead) return place;
    } catch {
      // It has ended meanwhile.
    }
  }
  return null;
}

/** When a process began, which with its id names it; null: it has ended, or there is no /proc. */
function startOf(pid: number): string | null {
  try {
    const { isDead, start } = lookAt(`/proc/${pid}`);
    return isDead && livingThreadOf(pid) === null ? null : start;
  } catch {
    return null;
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

/** Kills all of them, and resolves when nothing is left. */
export async function endServices(services: readonly ServiceMark[]): Promise<void> {
  if (services.length === 0) return;
  for (const { group } of services) signalServiceGroup(group, "SIGKILL");
  await killAll(() => findServiceProcesses(services));
}

/** Kills whatever is found, until nothing is, and what was killed has ended. */
export async function killAll(find: () => number[]): Promise<void> {
  // On its way to its end a process has no environment any more by which it could be found, and still what it held.
  const killed = new Map<number, string>();
  // What was being forked while we looked is found by looking once more.
  for (let empty = 0; empty < 2; ) {
    const left = find();
    for (const pid of left) {
      const start = startOf(pid);
      if (start !== null) killed.set(pid, start);
      try {
        process.kill(pid, "SIGKILL");
      } catch {
        // It was faster.
      }
    }
    const isEnding = [...killed].some(([pid, start]) => startOf(pid) === start);
    empty = left.length === 0 && !isEnding ? empty + 1 : 0;
    if (empty === 0) await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
  }
}
