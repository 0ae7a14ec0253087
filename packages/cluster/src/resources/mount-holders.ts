import { readFileSync } from "node:fs";
import { runBounded } from "./bounded-command.ts";

/** A process that keeps a directory from being unmounted, and by what. */
export interface MountHolder {
  readonly pid: number;
  readonly name: string;
  /** `works there`, `runs from there`, `has … open`. */
  readonly how: string;
}

/** The shell spreads the numbers of the processes; `find` reads where their links lead, and follows none. */
const SCRIPT = `
find /proc/[0-9]*/cwd /proc/[0-9]*/root /proc/[0-9]*/exe /proc/[0-9]*/fd -maxdepth 1 -type l \
  \\( -lname "$1" -o -lname "$1/*" -o -lname "$1 (deleted)" \\) -printf '%p\\t%l\\n' 2>/dev/null
grep -sF -- "$2/" /proc/[0-9]*/maps | sed 's/:.* \\(\\/.*\\)$/\\t\\1/'
`;

/**
 * Who holds something at or below a directory: told from the names that the kernel keeps in /proc, so that no file on a
 * share that hangs is touched; and in a child all the same, because to look at a process that hangs may hang. Sees what
 * its user may see; root sees all of this machine. Empty when nobody was found in time.
 */
export async function findMountHolders(directory: string, limitMs: number): Promise<MountHolder[]> {
  const pattern = directory.replace(/[\\*?[\]]/g, "\\$&");
  const { output } = await runBounded("/bin/sh", ["-c", SCRIPT, "sh", pattern, directory], { limitMs });
  return parseMountHolders(output, directory).map(({ pid, how }) => ({ pid, how, name: nameOf(pid) }));
}

/** Of lines `/proc/PID/WHAT<tab>PATH`: each process once, with the first thing that was said of it. */
export function parseMountHolders(output: string, directory: string): Omit<MountHolder, "name">[] {
  const holders = new Map<number, string>();
  for (const line of output.split("\n")) {
    const match = /^\/proc\/(\d+)\/([a-z]+)(?:\/\d+)?\t(.*)$/.exec(line);
    const [, pid, what = "", path = ""] = match ?? [];
    const isThere =
      path === directory || path === `${directory} (deleted)` || path.startsWith(`${directory}/`);
    if (pid === undefined || !isThere || holders.has(Number(pid))) continue;
    holders.set(Number(pid), HOW[what]?.(path) ?? `has ${path} open`);
  }
  return [...holders].map(([pid, how]) => ({ pid, how }));
}

const HOW: Readonly<Record<string, (path: string) => string>> = {
  cwd: () => "works there",
  root: () => "has its root there",
  exe: () => "runs from there",
  maps: (path) => `has ${path} mapped`,
};

/** In words, the first few of them. */
export function describeHolders(holders: readonly MountHolder[]): string {
  const shown = holders.slice(0, SHOWN_MAX).map(({ pid, name, how }) => `process ${pid} (${name}) ${how}`);
  const more = holders.length - shown.length;
  return `${shown.join(", ")}${more > 0 ? ` and ${more} more` : ""}`;
}

const SHOWN_MAX = 5;

function nameOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/comm`, "utf8").trim();
  } catch {
    return "gone meanwhile";
  }
}
