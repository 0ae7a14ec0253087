import type { HubClient } from "@lockstep/client";
import { printable, systemClock } from "@lockstep/platform";
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
/** By then most are done; if not, whoever waits is told why. */
const FIRST_POLL_SECONDS = 3;

/**
 * Waits until the DBQueue Processor has moved the semaphore for a load, and returns the software revision that carries
 * it; where nothing was changed, the one from before. Throws REVISION_TIMEOUT: the load is safe all the same.
 */
export async function awaitRevision(
  hub: HubClient,
  committed: Committed,
  options: {
    readonly waitSeconds?: number | undefined;
    readonly signal: AbortSignal;
    /** Called once when the wait is in vain until somebody does something. */
    readonly onStopped: (remark: string) => void;
  },
): Promise<number> {
  if (!committed.changes) return committed.revisionBefore;
  const waitMs = (options.waitSeconds ?? WAIT_SECONDS) * 1000;
  let asked = false;
  let told = false;
  const until = systemClock.monotonic() + waitMs;
  for (;;) {
    const left = until - systemClock.monotonic();
    const longest = asked ? POLL_SECONDS : FIRST_POLL_SECONDS;
    asked = true;
    const waitSeconds = Math.max(0, Math.min(longest, Math.ceil(left / 1000)));
    const { signal } = options;
    const { revision } = await hub.loadRevision(committed.load, { waitSeconds, signal });
    if (revision !== null) return revision;
    const stop = await emergencyStop(hub, signal);
    if (stop !== null && !told) options.onStopped(`waiting: ${stop}; lockstep dbqueue start lifts it`);
    told ||= stop !== null;
    if (left <= 0)
      throw new LockstepError(
        "REVISION_TIMEOUT",
        "it is committed, but the software revision has not moved yet",
        {
          expected: `a revision above ${committed.revisionBefore}`,
          found: `none after ${formatDuration(waitMs)}${stop === null ? "" : `: ${stop}`}`,
          hint:
            stop === null
              ? "Nothing needs to be repeated. lockstep dbqueue shows what the DBQueue Processor waits for."
              : "Nothing needs to be repeated. lockstep dbqueue start lifts the stop; the software revision then follows by itself.",
        },
      );
  }
}

/** What the emergency stop of the DBQueue says, or null where it is not set. */
async function emergencyStop(hub: HubClient, signal: AbortSignal): Promise<string | null> {
  const { stopped, stoppedReason } = await hub.dbQueue({ signal });
  if (!stopped) return null;
  const reason = stoppedReason === null ? "" : ` (${printable(stoppedReason)})`;
  return `the DBQueue's emergency stop is set${reason}`;
}
