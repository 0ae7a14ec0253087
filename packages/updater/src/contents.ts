import { constants, copyFileSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { HubClient } from "@lockstep/client";
import type { PlanOperation, Sha256 } from "@lockstep/core";
import type { Clock } from "@lockstep/platform";
import type { Staging } from "./apply/types.ts";
import { fetchBundles } from "./content-bundle.ts";
import { fetchLarge, LARGE_AT_ONCE } from "./content-large.ts";
import { lookAtFiles } from "./digest.ts";
import { throwIfInterrupted } from "./interruption.ts";
import { guarded, ioFailure } from "./io-failure.ts";
import type { InstallationPaths } from "./layout.ts";
import type { PartialStore } from "./partial.ts";
import type { ProgressMeter } from "./progress.ts";
import { type StepTask, takeSteps } from "./steps.ts";

/**
 * Brings every content that a plan needs into the staging directory, verified.
 *
 * Each content comes from the nearest place that has it: another file of the installation, an earlier interrupted run,
 * a step from what is installed, the hub. It comes once, however many files have it. Small ones travel together, large ones alone and resumable.
 * Whatever the source, the bytes in the staging directory are held against their digest before they count.
 */
export interface WantedContent {
  readonly sha256: Sha256;
  readonly size: number;
  /** Where it is to be staged; the first place is filled, the others are copied from it. */
  readonly places: readonly string[];
  /** The mode of the file in the first place; saves a call for each file. */
  readonly mode: number;
  /** A file of the installation that has it, or null. */
  readonly local: string | null;
}

export interface StagingTask {
  readonly client: HubClient;
  readonly paths: InstallationPaths;
  readonly partial: PartialStore;
  readonly meter: ProgressMeter;
  readonly clock: Clock;
  readonly signal?: AbortSignal | undefined;
}

export interface StagingTotals {
  /** Bytes as they arrived, compressed and with what was fetched in vain. */
  receivedBytes: number;
  /** Requests for contents. */
  requests: number;
  fetched: number;
  reused: number;
}

/** Contents up to this size travel in bundles. */
export const SMALL_BYTES_MAX = 1024 * 1024;

/** What a plan needs, each content once, in the order of its first file. `numberOf` gives the number of an operation. */
export function wantedContents(
  operations: readonly PlanOperation[],
  numberOf: (operation: PlanOperation) => number,
  staging: Staging,
): WantedContent[] {
  const wanted = new Map<Sha256, { size: number; places: string[]; mode: number; local: string | null }>();
  for (const operation of operations) {
    if (operation.kind !== "add" && operation.kind !== "replace") continue;
    const { sha256, size } = operation.entry;
    const place = staging.pathFor(numberOf(operation));
    const known = wanted.get(sha256);
    if (known !== undefined) known.places.push(place);
    else
      wanted.set(sha256, {
        size,
        places: [place],
        mode: operation.entry.mode,
        local: operation.source.kind === "local" ? operation.source.path : null,
      });
  }
  return [...wanted].map(([sha256, content]) => ({ sha256, ...content }));
}

/** Stages everything. Throws what a hub call throws, CONTENT_MISMATCH, INSTALLATION_*, INTERRUPTED. */
export async function stageContents(
  task: StepTask,
  wanted: readonly WantedContent[],
): Promise<StagingTotals> {
  const totals: StagingTotals = { receivedBytes: 0, requests: 0, fetched: 0, reused: 0 };
  task.partial.open();
  try {
    const absent = wanted.filter(({ sha256, local }) => local === null && !task.partial.hasWhole(sha256));
    task.client.throttle?.admit(absent.reduce((sum, { size }) => sum + size, 0));
    const made = await takeSteps(task, wanted, totals);
    noteEarlier(task.partial, wanted);
    const missing: WantedContent[] = [];
    for (const content of wanted) {
      throwIfInterrupted(task.signal);
      if (await takeNearby(task, content)) {
        if (made.has(content.sha256)) totals.fetched++;
        else totals.reused++;
        copyToOthers(content);
      } else missing.push(content);
    }
    // A small one that was cut goes on where it was, too.
    const begun = task.partial.begun();
    const isLarge = ({ size, sha256 }: WantedContent) => size > SMALL_BYTES_MAX || begun.has(sha256);
    const small = missing.filter((content) => !isLarge(content));
    const large = missing.filter(isLarge);
    const atOnce = task.client.throttle?.atOnce ?? LARGE_AT_ONCE + 1;
    const largeAtOnce = Math.max(1, Math.min(LARGE_AT_ONCE, small.length > 0 ? atOnce - 1 : atOnce));
    const fetched = () => {
      totals.fetched++;
    };
    const doneLarge = (content: WantedContent) => {
      copyToOthers(content);
      fetched();
    };
    const parts = [
      (part: StagingTask) => fetchBundles(part, small, totals, fetched),
      (part: StagingTask) => fetchLarge(part, large, totals, doneLarge, largeAtOnce),
    ];
    if (atOnce > 1) await together(task, parts);
    else for (const part of parts) await part(task);
  } finally {
    task.partial.flush();
  }
  task.meter.end();
  return totals;
}

/** Runs the parts side by side; the first failure stops the others, and all have ended when this returns. */
async function together(
  task: StagingTask,
  parts: readonly ((task: StagingTask) => Promise<void>)[],
): Promise<void> {
  const stop = new AbortController();
  const signal = task.signal === undefined ? stop.signal : AbortSignal.any([task.signal, stop.signal]);
  let first: { readonly error: unknown } | null = null;
  await Promise.all(
    parts.map((part) =>
      part({ ...task, signal }).catch((error: unknown) => {
        first ??= { error };
        stop.abort(error);
      }),
    ),
  );
  const failure = first as { readonly error: unknown } | null;
  if (failure !== null) throw failure.error;
}

/** Says where everything from earlier runs will stand, before it is moved there: the next run finds it, whenever this one is killed. */
function noteEarlier(partial: PartialStore, wanted: readonly WantedContent[]): void {
  for (const { sha256, places } of wanted)
    if (places[0] !== undefined && partial.hasWhole(sha256)) partial.noteStaged(sha256, places[0]);
  partial.flush();
}

/** Takes a content from the installation or from an earlier run. False when neither has it as it should be. */
async function takeNearby(task: StagingTask, content: WantedContent): Promise<boolean> {
  const [place] = content.places;
  if (place === undefined) return false;
  if (task.partial.hasWhole(content.sha256)) {
    guarded(place, "writing", () => renameSync(task.partial.wholePath(content.sha256), place));
    if (await isWhole(place, content)) return true;
    rmSync(place, { force: true });
  }
  if (content.local === null) return false;
  const source = join(task.paths.root, content.local);
  try {
    copyFileSync(source, place, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE);
  } catch (error) {
    const failure = ioFailure(error, place, "writing");
    rmSync(place, { force: true });
    // A source that cannot be read is fetched; a disk that is full stays full.
    if (failure instanceof Error && "code" in failure && failure.code === "INSTALLATION_DISK_FULL")
      throw failure;
    return false;
  }
  if (await isWhole(place, content)) return true;
  rmSync(place, { force: true });
  return false;
}

async function isWhole(path: string, content: WantedContent): Promise<boolean> {
  const [look] = await lookAtFiles([path], { bytesExpected: 0 });
  return look?.kind === "file" && look.sha256 === content.sha256 && look.size === content.size;
}

/** Copies a content from its first place to the others. */
export function copyToOthers(content: WantedContent): void {
  const [first, ...others] = content.places;
  if (first === undefined) return;
  for (const place of others)
    guarded(place, "writing", () =>
      copyFileSync(first, place, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE),
    );
}
