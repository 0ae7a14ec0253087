import { readdirSync, readFileSync } from "node:fs";

/** What the kernel counts processor time in: hundredths of a second on every machine that Linux runs on. */
const TICK_MS = 10;

interface Stat {
  readonly parent: number;
  readonly ownMs: number;
  /** Of children that have ended. */
  readonly endedMs: number;
}

/** Milliseconds of processor time, user and system, of these processes with all that they started. Linux only. */
export function processorMs(roots: readonly number[]): number {
  const stats = new Map<number, Stat>();
  for (const name of readdirSync("/proc")) {
    const stat = /^\d+$/.test(name) ? readStat(Number(name)) : null;
    if (stat !== null) stats.set(Number(name), stat);
  }
  const sum = (pid: number): number => {
    const stat = stats.get(pid);
    if (stat === undefined) return 0;
    const children = [...stats].filter(([, { parent }]) => parent === pid);
    return stat.ownMs + stat.endedMs + children.reduce((total, [child]) => total + sum(child), 0);
  };
  return roots.reduce((total, root) => total + sum(root), 0);
}

function readStat(pid: number): Stat | null {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, "latin1");
    // The name of the program may hold anything, so what follows is counted from its end.
    const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
    const ms = (...places: number[]) =>
      places.reduce((total, place) => total + Number(fields[place]) * TICK_MS, 0);
    return { parent: Number(fields[1]), ownMs: ms(11, 12), endedMs: ms(13, 14) };
  } catch {
    // It has ended.
    return null;
  }
}
