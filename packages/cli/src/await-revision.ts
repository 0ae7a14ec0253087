import type { HubClient } from "@lockstep/client";
import { type Clock, printable, systemClock } from "@lockstep/platform";
import { isLockstepError, LockstepError, type SigningStatus } from "@lockstep/protocol/wire";
import { remarkOnLostKeys } from "./keys/remarks.ts";
import { readOrigin } from "./keys/waiting-origin.ts";
import { retold } from "./retold.ts";
import { counted, formatDuration } from "./screen/format.ts";

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

/** A hub that is started anew answers again within that time. */
const SILENT_MS_MAX = 30_000;
const SILENT_PAUSE_MS = 1000;

export interface AwaitOptions {
  readonly waitSeconds?: number | undefined;
  /** The module that was loaded: where nothing in it is new, what waits for a signature may be of others. */
  readonly module?: string;
  readonly signal: AbortSignal;
  /** Called once when the wait is in vain until somebody does something, and once when the hub does not answer. */
  readonly onStopped: (remark: string) => void;
  readonly clock?: Pick<Clock, "monotonic" | "sleep">;
}

/**
 * Waits until the DBQueue Processor has moved the semaphore for a load, and returns the software revision that carries
 * it; where nothing was changed, the one from before. A hub that does not answer is asked again for half a minute.
 *
 * Throws REVISION_TIMEOUT: the load is safe all the same, and REVISION_AWAITS_SIGNATURE, also where nothing was changed: what
 * is in the repository is not in the installations then. INTERRUPTED, HUB_UNREACHABLE and HUB_BUSY say that it is committed.
 */
export async function awaitRevision(
  hub: HubClient,
  committed: Committed,
  options: AwaitOptions,
): Promise<number> {
  if (!committed.changes) {
    await refuseUnsigned(hub, "nothing is new in it", options.signal, options.module);
    return committed.revisionBefore;
  }
  try {
    return await waitForIt(hub, committed, options);
  } catch (error) {
    if (!isLockstepError(error, "INTERRUPTED", ...PASSING)) throw error;
    throw retold(
      error,
      `it is committed, and is not waited for any more: ${error.message}`,
      "Nothing needs to be repeated: the software revision follows by itself. lockstep revision list shows it.",
    );
  }
}

const PASSING = ["HUB_UNREACHABLE", "HUB_BUSY"] as const;

async function waitForIt(hub: HubClient, committed: Committed, options: AwaitOptions): Promise<number> {
  const { signal, onStopped, clock = systemClock } = options;
  const waitMs = (options.waitSeconds ?? WAIT_SECONDS) * 1000;
  let asked = false;
  let told = false;
  let silentSince: number | null = null;
  let toldSilence = false;
  const until = clock.monotonic() + waitMs;
  for (;;) {
    const left = until - clock.monotonic();
    const longest = asked ? POLL_SECONDS : FIRST_POLL_SECONDS;
    asked = true;
    const waitSeconds = Math.max(0, Math.min(longest, Math.ceil(left / 1000)));
    let look: Look;
    try {
      look = await lookForIt(hub, committed, waitSeconds, signal);
      silentSince = null;
    } catch (error) {
      const now = clock.monotonic();
      silentSince ??= now;
      const isPassing = isLockstepError(error, ...PASSING) && !signal.aborted;
      if (!isPassing || left <= 0 || now - silentSince >= SILENT_MS_MAX) throw error;
      if (!toldSilence) onStopped(`waiting: it is committed, but the hub does not answer: ${error.message}`);
      toldSilence = true;
      await clock.sleep(SILENT_PAUSE_MS, signal);
      continue;
    }
    if (look.revision !== null) return look.revision;
    const { stop, lost } = look;
    if (stop !== null && !told) onStopped(`waiting: ${stop}; lockstep dbqueue start lifts it`);
    else if (lost !== null && !told) onStopped(`waiting: ${lost}`);
    told ||= stop !== null || lost !== null;
    if (left <= 0)
      throw new LockstepError(
        "REVISION_TIMEOUT",
        "it is committed, but the software revision has not moved yet",
        {
          expected: `a revision above ${committed.revisionBefore}`,
          found: `none after ${formatDuration(waitMs)}${(stop ?? lost) === null ? "" : `: ${stop ?? lost}`}`,
          hint:
            stop === null
              ? lost !== null
                ? "Nothing needs to be repeated. lockstep keys recover gives the hub new keys; start it again then, and the software revision follows by itself."
                : "Nothing needs to be repeated. lockstep dbqueue shows what the DBQueue Processor waits for."
              : "Nothing needs to be repeated. lockstep dbqueue start lifts the stop; the software revision then follows by itself.",
        },
      );
  }
}

/** The revision, or why there is none yet, as far as somebody has to do something. */
interface Look {
  readonly revision: number | null;
  readonly stop: string | null;
  readonly lost: string | null;
}

async function lookForIt(
  hub: HubClient,
  { load }: Committed,
  waitSeconds: number,
  signal: AbortSignal,
): Promise<Look> {
  const { revision } = await hub.loadRevision(load, { waitSeconds, signal });
  if (revision !== null) return { revision, stop: null, lost: null };
  const lost = remarkOnLostKeys(await refuseUnsigned(hub, "it is committed", signal));
  return { revision: null, stop: await emergencyStop(hub, signal), lost };
}

/** What the emergency stop of the DBQueue says, or null where it is not set. */
async function emergencyStop(hub: HubClient, signal: AbortSignal): Promise<string | null> {
  const { stopped, stoppedReason } = await hub.dbQueue({ signal });
  if (!stopped) return null;
  const reason = stoppedReason === null ? "" : ` (${printable(stoppedReason)})`;
  return `the DBQueue's emergency stop is set${reason}`;
}

/** Waiting is in vain when the release keys are elsewhere: their owner decides when. */
async function refuseUnsigned(
  hub: HubClient,
  done: string,
  signal: AbortSignal,
  module?: string,
): Promise<SigningStatus> {
  const status = await hub.signingStatus({ signal });
  const { awaiting } = status;
  if (awaiting === null) return status;
  const others = module === undefined ? [] : await othersWaiting(hub, module, signal);
  const waits = `software revision ${awaiting.revision}`;
  throw new LockstepError(
    "REVISION_AWAITS_SIGNATURE",
    others.length === 0
      ? `${done}, and ${waits} waits for the release keys`
      : `${done}: ${module} is as it was before; but ${waits}, of ${others.join(", ")}, waits for the release keys`,
    {
      expected: counted(awaiting.needed, "signature"),
      found: awaiting.signatures,
      hint: "Where the release key is: lockstep revision sign --keys DIR. Until then the former revision stands.",
    },
  );
}

const SHOWN_MAX = 5;

/** The loads that led to what waits, if none of them is of this module; else none. */
async function othersWaiting(hub: HubClient, module: string, signal: AbortSignal): Promise<string[]> {
  const { releases } = await readOrigin(hub, signal);
  if (releases.some((release) => release.startsWith(`${module} `))) return [];
  const more = releases.length - SHOWN_MAX;
  const shown = releases.slice(-SHOWN_MAX).map((release) => printable(release));
  return more > 0 ? [...shown, `${more} more`] : shown;
}
