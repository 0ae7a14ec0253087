import { readFileSync } from "node:fs";
import { processTree } from "./harness.ts";

/**
 * Memory of a hub with its database and everything else that it started, at the worst moment, each page counted once.
 *
 * A database's processes share their buffers and all processes of a program its code: summed up by process they would count
 * many times over. So what belongs to a process alone (RssAnon) is summed, often; what is shared is counted by the kernel's
 * proportional share (Pss without its anonymous part), seldom, since that takes it milliseconds a process. The largest of the
 * one and the largest of the other together are never less than the truth.
 */
export interface MemoryTogether {
  /** What belongs to single processes, summed: the largest sum of one moment, in bytes. */
  readonly ownBytes: number;
  /** What several may share (buffers of the database, programs, libraries), each page once, in bytes. */
  readonly sharedBytes: number;
}

const OWN_MS = 50;
const SHARED_MS = 2_000;

/** Watches a process and all below it until stopped. Linux only. */
export function watchTogether(pid: number): { stop(): MemoryTogether } {
  let ownBytes = 0;
  let sharedBytes = 0;
  const look = () => {
    ownBytes = Math.max(ownBytes, sum(processTree(pid), ownMemory));
  };
  const lookAtShared = () => {
    sharedBytes = Math.max(sharedBytes, sum(processTree(pid), sharedMemory));
  };
  const timers = [setInterval(look, OWN_MS), setInterval(lookAtShared, SHARED_MS)];
  return {
    stop() {
      for (const timer of timers) clearInterval(timer);
      look();
      lookAtShared();
      return { ownBytes, sharedBytes };
    },
  };
}

const sum = (pids: readonly number[], bytes: (pid: number) => number) =>
  pids.reduce((total, pid) => total + bytes(pid), 0);

const ownMemory = (pid: number) => field(read(`/proc/${pid}/status`), "RssAnon");

/** Both figures of one reading, which takes the kernel milliseconds. */
function sharedMemory(pid: number): number {
  const text = read(`/proc/${pid}/smaps_rollup`);
  return field(text, "Pss") - field(text, "Pss_Anon");
}

const field = (text: string, name: string) =>
  Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(text)?.[1] ?? 0) * 1024;

function read(path: string): string {
  try {
    return readFileSync(path, "latin1");
  } catch {
    // The process has ended.
    return "";
  }
}
