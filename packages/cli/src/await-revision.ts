import type { HubClient } from "@lockstep/client";
import { systemClock } from "@lockstep/platform";
import { LockstepError } from "@lockstep/protocol/wire";
import { formatDuration } from "./screen/format.ts";

/** What the hub says of a load or a revert. */
export interface Committed {
  readonly load: number;
  readonly changes: boolean;
  readonly revisionBefore: number;
}

const WAIT_SECONDS = 600;
/** One question to the hub lasts at most so long; proxies cut longer ones. */
const POLL_SECONDS = 25;

/**
 * Waits until the DBQueue Processor has moved the semaphore for a load, and returns the software revision that carries
 * it; where nothing was changed, the one from before. Throws REVISION_TIMEOUT: the load is safe all the same.
 */
export async function awaitRevision(
  hub: HubClient,
  committed: Committed,
  options: { readonly waitSeconds?: number | undefined; readonly signal: AbortSignal },
): Promise<number> {
  if (!committed.changes) return committed.revisionBefore;
  const waitMs = (options.waitSeconds ?? WAIT_SECONDS) * 1000;
  const until = systemClock.monotonic() + waitMs;
  for (;;) {
    const left = until - systemClock.monotonic();
    const waitSeconds = Math.max(0, Math.min(POLL_SECONDS, Math.ceil(left / 1000)));
    const { signal } = options;
    const { revision } = await hub.loadRevision(committed.load, { waitSeconds, signal });
    if (revision !== null) return revision;
    if (left <= 0)
      throw new LockstepError(
        "REVISION_TIMEOUT",
        "it is committed, but the software revision has not moved yet",
        {
          expected: `a revision above ${committed.revisionBefore}`,
          found: `none after ${formatDuration(waitMs)}`,
          hint: "lockstep dbqueue shows what the DBQueue Processor waits for.",
        },
      );
  }
}
