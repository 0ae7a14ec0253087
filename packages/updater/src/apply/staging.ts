import { APPLY_LAYOUT, isCommitId, STAGING_NAMES, stagingDirectory } from "@lockstep/core";
import { systemErrorCode } from "@lockstep/platform";
import { LockstepError } from "@lockstep/protocol/wire";
import { attemptLong, installationError } from "./failure.ts";
import { Places } from "./places.ts";
import type { ApplyContext, Staging } from "./types.ts";

/** Nobody else looks into what is not verified or not installed yet. */
export const PRIVATE_MODE = 0o700;

/**
 * Opens a private directory for one update and clears the leftovers of those that never reached their record. The
 * caller holds update.lock and has called `recover`. Throws INSTALLATION_*; nothing of the product was touched then.
 */
export function beginStaging(ctx: ApplyContext): Promise<Staging> {
  return attemptLong("prepare an update in", ctx.root, () => openStaging(ctx));
}

async function openStaging(ctx: ApplyContext): Promise<Staging> {
  const { disk } = ctx;
  const places = new Places(disk, ctx.root);
  if (disk.lstat(places.at(APPLY_LAYOUT.head)) !== null)
    throw new LockstepError("INSTALLATION_DAMAGED", "an update of this installation is not finished yet", {
      hint: "Run the update again: it finishes the interrupted one first.",
    });
  for (const path of [APPLY_LAYOUT.private, APPLY_LAYOUT.stagings]) {
    const absolute = places.at(path);
    if (disk.lstat(absolute) === null) disk.makeDirectory(absolute, PRIVATE_MODE);
  }
  await discardStaging(ctx);
  const id = makeStagingDirectory(ctx, places);
  const directory = places.at(stagingDirectory(id));
  try {
    for (const name of [STAGING_NAMES.new, STAGING_NAMES.old])
      disk.makeDirectory(`${directory}/${name}`, PRIVATE_MODE);
  } catch (error) {
    clearAway(ctx, directory);
    throw error;
  }
  return { id, directory, pathFor: (n) => `${directory}/${STAGING_NAMES.new}/${n}` };
}

function makeStagingDirectory(ctx: ApplyContext, places: Places): string {
  const time = Math.max(0, Math.trunc(ctx.clock.now())).toString(36);
  for (let tried = 0; ; tried++) {
    const id = tried === 0 ? time : `${time}-${tried}`;
    const absolute = places.at(stagingDirectory(id));
    try {
      ctx.disk.makeDirectory(absolute, PRIVATE_MODE);
      return id;
    } catch (error) {
      // A leftover that could not be cleared keeps its name.
      if (systemErrorCode(error) !== "EEXIST" || tried > 99) throw installationError(error, "make", absolute);
    }
  }
}

/**
 * Removes what interrupted updates left in staging, and gives its space back. Does nothing while a record is in force:
 * then it is no leftover. What cannot be removed stays for the next time and is logged.
 */
export function discardStaging(ctx: ApplyContext): Promise<void> {
  return attemptLong("clear leftovers in", ctx.root, () => clearStagings(ctx));
}

async function clearStagings(ctx: ApplyContext): Promise<void> {
  const { disk } = ctx;
  const places = new Places(disk, ctx.root);
  const stagings = places.at(APPLY_LAYOUT.stagings);
  if (disk.lstat(places.at(APPLY_LAYOUT.head)) !== null || disk.lstat(stagings)?.kind !== "directory") return;
  const leftovers = disk.readDirectory(stagings);
  if (leftovers.length === 0) return;
  // That no record is seen does not make its removal last: an updater may have been killed right after it, and a record
  // that came back without its staging directory could not be carried out.
  await disk.syncDirectories([places.at(APPLY_LAYOUT.private)]);
  for (const name of leftovers) clearAway(ctx, `${stagings}/${name}`);
}

/** Removes a tree of ours, links in it as links. Never fails: leftovers are no reason to refuse anything. */
export function clearAway(ctx: ApplyContext, absolute: string): void {
  try {
    removeTree(ctx, absolute);
  } catch (error) {
    ctx.log.warn("a leftover could not be removed", { path: absolute, error });
  }
}

function removeTree(ctx: ApplyContext, absolute: string): void {
  const kind = ctx.disk.lstat(absolute)?.kind;
  if (kind === undefined) return;
  if (kind !== "directory") {
    ctx.disk.unlink(absolute);
    return;
  }
  for (const name of ctx.disk.readDirectory(absolute)) removeTree(ctx, `${absolute}/${name}`);
  ctx.disk.removeDirectory(absolute);
}

/** Whether a staging handed to `commit` is one of this installation's own. */
export function isOwnStaging(ctx: ApplyContext, staging: Staging): boolean {
  return isCommitId(staging.id) && staging.directory === `${ctx.root}/${stagingDirectory(staging.id)}`;
}
