import type { Sha256 } from "@lockstep/core";
import type { Logger } from "@lockstep/platform";
import type pg from "pg";
import type { SemaphoreWatch } from "../repository/semaphore.ts";
import type { StepLibrary } from "./step-library.ts";

/**
 * Makes the steps that will be asked for before anybody asks: when the hub begins, which may have been killed while it was at
 * it, and after each new software revision those from the revisions that
 * installations reported last, the most frequent first.
 */
const REVISIONS_MAX = 4;
const LOOK_MS = 60_000;

const PAIRS = `
with used as (
  select revision, count(*) as installations from installation
  where revision is not null and revision < $1 group by revision order by installations desc limit ${REVISIONS_MAX})
select encode(old.sha256, 'hex') as "from", encode(new.sha256, 'hex') as "to"
from used join revision_manifest old using (revision)
join revision_manifest new on new.revision = $1 and new.target = old.target and new.sha256 <> old.sha256
order by used.installations desc, old.target`;

export interface StepsAheadOptions {
  readonly pool: pg.Pool;
  readonly semaphore: SemaphoreWatch;
  readonly library: StepLibrary;
  readonly log: Logger;
}

export interface StepsAhead {
  /** Ends it; resolves when nothing of it goes on. A step that is being made is left to its library. */
  stop(): Promise<void>;
}

/** Begins to follow the semaphore. */
export function startStepsAhead(options: StepsAheadOptions): StepsAhead {
  const stopping = new AbortController();
  const ended = follow(options, stopping.signal);
  return {
    stop: async () => {
      stopping.abort();
      await ended;
    },
  };
}

async function follow(options: StepsAheadOptions, stopping: AbortSignal): Promise<void> {
  const { semaphore, log } = options;
  let done = 0;
  while (!stopping.aborted) {
    await semaphore.waitForOther(done, LOOK_MS, stopping);
    const { revision } = semaphore.value;
    if (stopping.aborted || revision === done) continue;
    done = revision;
    try {
      await makeThose(options, revision, stopping);
    } catch (error) {
      if (!stopping.aborted) log.warn("steps could not be made ahead of time", { revision, error });
    }
  }
}

async function makeThose(
  { pool, library }: StepsAheadOptions,
  revision: number,
  stopping: AbortSignal,
): Promise<void> {
  const { rows } = await pool.query<{ from: Sha256; to: Sha256 }>(PAIRS, [revision]);
  for (const { from, to } of rows) {
    if (stopping.aborted) return;
    const found = await library.obtain(from, to, LOOK_MS, stopping);
    if (found.kind === "step") await found.file.handle.close();
  }
}
