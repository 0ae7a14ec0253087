import {
  APPLY_LAYOUT,
  backSteps,
  type CommitBody,
  endBackSteps,
  finishSteps,
  keepsPrevious,
  parentOf,
  prepareSteps,
  revisionFileName,
  STAGING_NAMES,
  settleSteps,
  stagingDirectory,
  switchSteps,
  turnSteps,
} from "@lockstep/core";
import type { FileStat } from "@lockstep/platform";
import { isLockstepError, LockstepError } from "@lockstep/protocol/wire";
import type { Carrier } from "./carry-out.ts";
import { installationError, lostError, withOutcome } from "./failure.ts";
import { clearAway, discardStaging } from "./staging.ts";
import type { ApplyContext, ApplyHooks, IndexBuilder, RolledBack } from "./types.ts";

/** Why an update that has its record does not hold. */
export interface Refusal {
  readonly stage: RolledBack["stage"];
  /** What failed or was thrown; null when `afterSwitch` answered false. */
  readonly error: unknown;
}

export type SwitchOutcome =
  | { readonly kind: "holds"; readonly switchMs: number }
  | { readonly kind: "refused"; readonly refusal: Refusal };

const INDEX_MODE = 0o600;

/**
 * Forward, once the head that says so is durable: switches, makes it durable, and asks whether it holds. The same for
 * the first time and for every repetition. Every failure is an answer, not an exception: what follows is the way back.
 */
export async function goForward(
  ctx: ApplyContext,
  carrier: Carrier,
  body: CommitBody,
  hooks: Pick<ApplyHooks, "afterSwitch">,
): Promise<SwitchOutcome> {
  let switchMs: number;
  try {
    await carrier.carryOut(prepareSteps(body));
    // Looks at every directory once more, now, so that the switch itself has nothing left to look at.
    carrier.places.forget();
    const late = new Set(body.makeLate.map(({ path }) => path));
    for (const { kind, path } of body.entries) {
      if (kind === "remove") carrier.places.reach(path);
      else if (!late.has(parentOf(path))) carrier.places.at(path);
    }
    const started = ctx.clock.monotonic();
    await carrier.carryOut(switchSteps(body));
    switchMs = ctx.clock.monotonic() - started;
    await carrier.carryOut(settleSteps(body));
  } catch (error) {
    return { kind: "refused", refusal: { stage: "switch", error } };
  }
  try {
    if ((await hooks.afterSwitch?.()) !== false) return { kind: "holds", switchMs };
    return { kind: "refused", refusal: { stage: "after-switch", error: null } };
  } catch (error) {
    return { kind: "refused", refusal: { stage: "after-switch", error } };
  }
}

/** Back: turns the record durably, restores what was, drops the record. Throws when that fails; the record then stays. */
export async function goBack(
  ctx: ApplyContext,
  carrier: Carrier,
  body: CommitBody,
  refusal: Refusal,
): Promise<RolledBack> {
  try {
    await carrier.carryOut(turnSteps(body.id, "back"));
    await carrier.carryOut(backSteps(body));
    // All the rest is restored first; the record stays, so that nothing is started from a mix.
    if (carrier.lost.length > 0) throw lostError(ctx.root, carrier.lost);
    await carrier.carryOut(endBackSteps());
  } catch (error) {
    throw withOutcome(
      error,
      "the update could not be taken back completely",
      "Remove the cause, then run the update again: it first finishes the way back. Start no program from there until then.",
    );
  }
  await clearLeftovers(ctx);
  return { kind: "rolled-back", ...explain(refusal) };
}

/** Finish: the update holds. Throws when the end fails; the record then stays and says so. */
export async function goFinish(ctx: ApplyContext, carrier: Carrier, body: CommitBody): Promise<void> {
  try {
    await carrier.carryOut(turnSteps(body.id, "finish"));
    await carrier.carryOut(finishSteps(body, revisionFileName(ctx.disk.windows)));
  } catch (error) {
    throw withOutcome(
      error,
      "all files are updated, but the update is not recorded yet",
      "Remove the cause, then run the update again: it first finishes this one.",
    );
  }
  if (keepsPrevious(body)) await clearLeftovers(ctx);
  else clearAway(ctx, `${ctx.root}/${stagingDirectory(body.id)}.former`);
}

/** The update is over, whatever becomes of its leftovers: what stays is cleared before the next staging. */
async function clearLeftovers(ctx: ApplyContext): Promise<void> {
  try {
    await discardStaging(ctx);
  } catch (error) {
    ctx.log.warn("leftovers could not be removed", { error });
  }
}

/**
 * Writes the next stat cache beside the record; the end puts it in place. It only saves time, so where it fails there
 * is none: the former one does not fit the new files and is seen not to.
 */
export async function stageIndex(
  ctx: ApplyContext,
  body: CommitBody,
  index: Uint8Array | IndexBuilder | undefined,
): Promise<void> {
  if (index === undefined) return;
  const { disk } = ctx;
  const stage = `${ctx.root}/${stagingDirectory(body.id)}`;
  // The name that the end moves is given to durable content alone: an interrupted pass may have left torn one.
  const unsynced = `${stage}/${STAGING_NAMES.unsyncedIndex}`;
  try {
    if (disk.lstat(unsynced) !== null) disk.unlink(unsynced);
    const bytes = typeof index === "function" ? index(lookAtPuts(ctx, body)) : index;
    disk.writeFile(unsynced, bytes, INDEX_MODE);
    await disk.syncFiles([unsynced]);
    disk.rename(unsynced, `${stage}/${STAGING_NAMES.index}`);
  } catch (error) {
    ctx.log.warn("the stat cache could not be written; the next update reads more", {
      path: unsynced,
      error,
    });
    clearAway(ctx, unsynced);
  }
}

function lookAtPuts(ctx: ApplyContext, body: CommitBody): Map<string, FileStat> {
  const stats = new Map<string, FileStat>();
  for (const { kind, path } of body.entries) {
    const stat = kind === "put" ? ctx.disk.lstat(`${ctx.root}/${path}`) : null;
    if (stat !== null) stats.set(path, stat);
  }
  return stats;
}

function explain(refusal: Refusal): Omit<RolledBack, "kind"> {
  const { stage, error } = refusal;
  if (error === null) return { stage, reason: "the check after the switch said no", error: null };
  const known =
    stage === "switch" || isLockstepError(error)
      ? installationError(error, "switch files in", APPLY_LAYOUT.private)
      : new LockstepError("PLUGIN_FAILED", "a step after the switch failed", { cause: error });
  const reason = stage === "switch" ? "the switch failed" : "a step after the switch failed";
  return { stage, reason: `${reason}: ${known.message}`, error: known };
}
