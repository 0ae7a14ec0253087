import { lchownSync, lstatSync } from "node:fs";
import {
  type CheckpointManifest,
  type CheckpointRoot,
  entryKey,
  entryPath,
  isNothingToDo,
  type LayDownPlan,
  planLayDown,
  type StoredEntry,
} from "@lockstep/core";
import type { Disk } from "@lockstep/platform";
import { isLockstepError, LockstepError } from "@lockstep/protocol/wire";
import type { CheckpointRecordFile } from "./checkpoint-record.ts";
import type { ScannedSettings, SettingsScanner } from "./checkpoint-scan.ts";
import type { CheckpointStore } from "./checkpoint-store.ts";
import type { ContentCache } from "./content-cache.ts";
import { keepCopy } from "./kept-copies.ts";
import { type AdoptOwner, layDown } from "./lay-down.ts";

/** What a take-over works with. */
export interface TakeOverParts {
  readonly disk: Disk;
  /** Where copies of what is overwritten are kept. */
  readonly copies: string;
  readonly scanner: SettingsScanner;
  readonly record: CheckpointRecordFile;
  readonly cache: ContentCache;
  readonly store: CheckpointStore;
  readonly adopt: AdoptOwner;
  readonly note: (what: string, detail: string) => void;
}

/**
 * Makes the files below the roots what a manifest says, durably, before the service starts. What was changed here
 * and is not known to be stored is overwritten, reported by name and both hashes, and a copy of it is kept.
 *
 * Throws CHECKPOINT_INVALID, CHECKPOINT_TOO_LARGE, CHECKPOINT_LAY_DOWN_FAILED, COORDINATION_UNREACHABLE.
 */
export async function takeOver(
  parts: TakeOverParts,
  allRoots: readonly CheckpointRoot[],
  manifest: CheckpointManifest,
): Promise<void> {
  const { disk, record, scanner, adopt, note } = parts;
  // Only where a definition of ours says so, whatever the store names.
  const roots = allRoots.filter(({ id }) => manifest.roots.includes(id));
  const ids = new Set(roots.map(({ id }) => id));
  const wanted = manifest.entries.filter(({ root }) => ids.has(root));
  try {
    const scanned = scanner.scan(roots);
    const { entries: found, leftovers } = scanned;
    const plan = planLayDown(wanted, found, (key, sha256) => record.knows(key, sha256));
    if (isNothingToDo(plan, found) && leftovers.length === 0) {
      await record.settle(wanted);
      return;
    }
    const written = new Set(plan.write.map(entryKey));
    const contents = await fetchContents(
      parts,
      wanted.filter((entry) => written.has(entryKey(entry))),
    );
    await record.begin(wanted);
    await keepEdits(parts, roots, plan, scanned);
    await layDown({ disk, roots, plan, found, leftovers, contents, adopt });
    await record.settle(wanted);
    note(
      "settings-laid-down",
      `set ${manifest.number} of ${manifest.node}: ${plan.write.length} written, ${plan.remove.length} removed`,
    );
  } catch (cause) {
    throw layDownFailed(cause);
  }
}

async function keepEdits(
  { disk, copies, record, note }: TakeOverParts,
  roots: readonly CheckpointRoot[],
  plan: LayDownPlan,
  { entries }: ScannedSettings,
): Promise<void> {
  const paths = new Map(roots.map(({ id, path }) => [id, path]));
  const pathOf = ({ root, path }: { readonly root: string; readonly path: string }) =>
    entryPath(paths.get(root) ?? "", path);
  for (const { found, wanted } of plan.edits) {
    const path = pathOf(found);
    const now = wanted === null ? "nothing" : wanted.kind === "file" ? shorten(wanted.sha256) : "a directory";
    if (found.sha256 === "") {
      const was = found.kind === "other" ? "a link" : `${found.size} bytes, too large to be kept`;
      note("settings-overwritten", `${path}: here ${was}, now ${now}`);
      continue;
    }
    const copy = await keepCopy(disk, copies, path, found.sha256);
    note(
      "settings-overwritten",
      `${path}: changed here, not known to be stored, ${shorten(found.sha256)}, now ${now}; copy in ${copy}`,
    );
  }
  const present = new Set(entries.map(entryKey));
  for (const entry of plan.write)
    if (record.had(entryKey(entry)) && !present.has(entryKey(entry)))
      note("settings-overwritten", `${pathOf(entry)}: removed here, now ${shorten(entry.sha256)}`);
}

/** The contents of files, from the cache or from the store; what came from there is cached. */
export async function fetchContents(
  { cache, store }: Pick<TakeOverParts, "cache" | "store">,
  entries: readonly StoredEntry[],
): Promise<ReadonlyMap<string, Uint8Array>> {
  const contents = new Map<string, Uint8Array>();
  const missing: StoredEntry[] = [];
  for (const entry of entries) {
    const kept = cache.read(entry.sha256);
    if (kept === null) missing.push(entry);
    else contents.set(entry.sha256, kept);
  }
  for (const [sha256, bytes] of await store.fetch(missing)) {
    contents.set(sha256, bytes);
    cache.write(sha256, bytes);
  }
  return contents;
}

const SHOWN_DIGITS = 12;
const shorten = (sha256: string) => sha256.slice(0, SHOWN_DIGITS);

function layDownFailed(cause: unknown): unknown {
  if (isLockstepError(cause) || !(cause instanceof Error) || !("code" in cause)) return cause;
  return new LockstepError(
    "CHECKPOINT_LAY_DOWN_FAILED",
    "the settings of the service cannot be written here",
    {
      found: cause.message,
      cause,
      hint: "The virtual server is not brought online with settings that are half old. Look at the disk of this node.",
    },
  );
}

/** The real machine's: only root may give files away, and only a file of root's needs it. */
export function adoptOwner(path: string, like: string): void {
  if (process.getuid?.() !== 0) return;
  const { uid, gid } = lstatSync(like);
  lchownSync(path, uid, gid);
}
