import type { LeaseTimes, NodeFinding } from "@lockstep/core";
import type { Clock } from "@lockstep/platform";
import type { Documents } from "../coordination/documents.ts";
import { failed, ok, warning } from "./finding.ts";

/** So many writes tell a usual commit from a lucky one. */
const WRITES = 7;

export interface CommitTimes {
  readonly medianMs: number;
  readonly maxMs: number;
}

/**
 * Measures how long the store takes to commit, by writing a document of this node's own, which is removed again. Throws
 * COORDINATION_UNREACHABLE.
 */
export async function measureCommits(documents: Documents, node: string, clock: Clock): Promise<CommitTimes> {
  const key = `probe/${node}`;
  const times: number[] = [];
  let revision = (await documents.read(key))?.revision ?? 0;
  for (let count = 0; count < WRITES; count++) {
    const startedAt = clock.monotonic();
    const written = await documents.write(key, revision, String(count));
    times.push(clock.monotonic() - startedAt);
    // Somebody measures on this node at the same time.
    revision = written ?? (await documents.read(key))?.revision ?? 0;
  }
  await documents.write(key, revision, null);
  times.sort((a, b) => a - b);
  return { medianMs: times[Math.floor(times.length / 2)] ?? 0, maxMs: times.at(-1) ?? 0 };
}

/**
 * Whether the store is fast enough for these times: a call that takes longer than C counts as unanswered, and an owner
 * whose calls are all unanswered stops. Safe, but useless.
 */
export function judgeCommits({ medianMs, maxMs }: CommitTimes, { callMs }: LeaseTimes): NodeFinding[] {
  const detail = `a commit takes ${round(medianMs)} ms, at most ${round(maxMs)} ms`;
  if (maxMs >= callMs)
    return [
      failed(
        "store",
        `${detail}; after ${callMs} ms a call counts as unanswered`,
        "Put the store on faster disks, or take longer times for the lease (`cluster init --profile default`).",
      ),
    ];
  if (maxMs * 2 >= callMs)
    return [
      warning(
        "store",
        `${detail}; that is more than half of the ${callMs} ms after which a call counts as unanswered`,
        "A busy moment could cost the lease: put the store on faster disks, or take longer times.",
      ),
    ];
  return [ok("store", detail)];
}

const round = (ms: number) => Math.round(ms * 10) / 10;
