import { readdirSync, readFileSync } from "node:fs";

/** The truth about what runs: living processes whose environment carries this mark, wherever they have gone. */
export function findMarked(mark: string, name = "LOCKSTEP_TEST_MARK"): number[] {
  return readdirSync("/proc")
    .filter((entry) => /^\d+$/.test(entry))
    .map(Number)
    .filter((pid) => isMarked(pid, mark, name));
}

export function isMarked(pid: number, mark: string, name: string): boolean {
  try {
    if (!readFileSync(`/proc/${pid}/environ`, "latin1").includes(`${name}=${mark}\0`)) return false;
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    return !/^[ZX]/.test(stat.slice(stat.lastIndexOf(")") + 2));
  } catch {
    return false;
  }
}

/** What a process runs, in words; empty: it has ended, or is about to become another program. */
export function commandOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "latin1").replaceAll("\0", " ").trim();
  } catch {
    return "";
  }
}
