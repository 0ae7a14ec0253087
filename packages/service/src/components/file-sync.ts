import { mkdir, readlink, rmdir, utimes } from "node:fs/promises";
import { join } from "node:path";
import { systemErrorCode } from "@lockstep/platform";
import { compileSelection, lstatOrNull, refused } from "./file-paths.ts";
import { copyContent, Destination, hashFile, isRealDirectory, removeFile } from "./file-place.ts";
import { type WalkedEntry, walk } from "./file-walk.ts";
import { permanentError } from "./task.ts";
import type { TaskContext, TaskResult } from "./types.ts";

/**
 * A mirror: after it the one directory holds what the other does. First everything is looked at, then new and changed
 * files are put in, and only then is anything deleted, so that a run that is cut off has lost nothing. Each file changes
 * atomically; the directory as a whole does not.
 */
export interface SyncParameters {
  readonly followLinks: boolean;
  readonly exclude: readonly string[];
  readonly compare: "time" | "content";
  readonly delete: boolean;
  readonly allowEmpty: boolean;
  readonly dryRun: boolean;
  readonly verify: boolean;
}

type Change = { readonly kind: "add" | "replace" | "delete"; readonly path: string };

/** A dry run names so many changes; more belong into no result. */
const CHANGES_NAMED_MAX = 1_000;
/** Times are set in milliseconds, but kept finer. On a disk that keeps them coarser, `compare: content` avoids copies. */
const TIME_GRAIN_MS = 2;

/** Makes `to` equal to `from`. Throws PATH_REFUSED, FILE_ACCESS_FAILED, CONTENT_MISMATCH, errors of the system. */
export async function syncDirectories(
  { parameters, signal, log }: TaskContext<SyncParameters>,
  from: string,
  to: string,
): Promise<TaskResult> {
  if (!(await isRealDirectory(from)))
    return permanentError(
      `${from} is not a directory${(await lstatOrNull(from)) === null ? ": it is not there" : ""}`,
    );
  const there = await lstatOrNull(to);
  if (there !== null && !there.isDirectory()) throw refused("to", to, "it is there and is no directory");
  const isExcluded = compileSelection(parameters.exclude, []);
  const enters = (path: string) => !isExcluded(path) && !isExcluded(`${path}/`);
  const model = new Map<string, WalkedEntry>();
  for await (const entry of walk(from, { followLinks: parameters.followLinks, signal, enters })) {
    if (isExcluded(entry.path)) continue;
    if (entry.kind === "other")
      log.warn(`${entry.absolute} is neither file, directory nor link and was left out`);
    else model.set(entry.path, entry);
  }
  const present = new Map<string, WalkedEntry>();
  if (there !== null)
    for await (const entry of walk(to, { followLinks: false, signal, enters }))
      if (!isExcluded(entry.path)) present.set(entry.path, entry);
  if (model.size === 0 && present.size > 0 && parameters.delete && !parameters.allowEmpty)
    return permanentError(
      `${from} is empty, which would delete all ${present.size} entries of ${to}; allowEmpty: true accepts that`,
    );

  const changes: Change[] = [];
  const counts = { added: 0, replaced: 0, deleted: 0, unchanged: 0, bytes: 0 };
  const destination = new Destination(parameters.followLinks);
  if (!parameters.dryRun && there === null) await mkdir(to, { recursive: true });
  for (const [path, entry] of model) {
    signal.throwIfAborted();
    const old = present.get(path);
    const target = join(to, ...path.split("/"));
    if (old !== undefined && (await isEqual(entry, old, parameters.compare, signal))) {
      counts.unchanged += 1;
      continue;
    }
    counts[old === undefined ? "added" : "replaced"] += 1;
    if (entry.kind === "file") counts.bytes += entry.stats.size;
    changes.push({ kind: old === undefined ? "add" : "replace", path });
    if (parameters.dryRun) continue;
    // Something of another kind must go before.
    if (old !== undefined && (old.kind === "directory") !== (entry.kind === "directory")) {
      if (!parameters.delete)
        throw refused("to", target, `it is a ${old.kind}, in the model a ${entry.kind}`);
      await clear(target, path, present);
    }
    await put(entry, target, to, destination, parameters, signal);
  }
  if (parameters.delete) {
    const gone = [...present.entries()].filter(([path]) => !model.has(path)).reverse();
    for (const [path, entry] of gone) {
      signal.throwIfAborted();
      if (entry.kind === "directory" && !parameters.dryRun && !(await removeDirectory(entry.absolute)))
        continue;
      if (entry.kind !== "directory" && !parameters.dryRun) await removeFile(entry.absolute);
      counts.deleted += 1;
      changes.push({ kind: "delete", path });
      destination.touch(join(entry.absolute, ".."));
    }
  }
  if (!parameters.dryRun) await finish(model, to, destination);
  const message = `${counts.added} added, ${counts.replaced} replaced, ${counts.deleted} deleted, ${counts.unchanged} unchanged`;
  return {
    kind: "success",
    message: parameters.dryRun ? `would be: ${message}` : message,
    output: {
      ...counts,
      ...(parameters.dryRun
        ? {
            dryRun: true,
            changes: changes.slice(0, CHANGES_NAMED_MAX).map(({ kind, path }) => `${kind} ${path}`),
          }
        : {}),
    },
  };
}

async function isEqual(
  wanted: WalkedEntry,
  found: WalkedEntry,
  compare: SyncParameters["compare"],
  signal: AbortSignal,
): Promise<boolean> {
  if (wanted.kind !== found.kind) return false;
  if (wanted.kind === "directory") return true;
  if (wanted.kind === "link") return (await readlink(wanted.absolute)) === (await readlink(found.absolute));
  if (wanted.stats.size !== found.stats.size || (wanted.stats.mode & 0o777) !== (found.stats.mode & 0o777))
    return false;
  if (compare === "time") return Math.abs(wanted.stats.mtimeMs - found.stats.mtimeMs) < TIME_GRAIN_MS;
  return (await hashFile(wanted.absolute, signal)) === (await hashFile(found.absolute, signal));
}

async function put(
  entry: WalkedEntry,
  target: string,
  root: string,
  destination: Destination,
  { verify }: SyncParameters,
  signal: AbortSignal,
): Promise<void> {
  await destination.makeParents(root, target);
  if (entry.kind === "directory") await mkdir(target, { recursive: true, mode: entry.stats.mode & 0o777 });
  else if (entry.kind === "link") await destination.placeLink(target, "replace", entry.absolute);
  else
    await destination.place(target, "replace", entry.stats.mode & 0o777, (handle, temporary) =>
      copyContent(entry.absolute, handle, temporary, { verify, signal }),
    );
}

/** Removes what stands where something of another kind belongs, with everything below it. */
async function clear(target: string, path: string, present: Map<string, WalkedEntry>): Promise<void> {
  const below = [...present.entries()]
    .filter(([each]) => each === path || each.startsWith(`${path}/`))
    .reverse();
  for (const [each, entry] of below) {
    if (entry.kind === "directory") await rmdir(entry.absolute);
    else await removeFile(entry.absolute);
    present.delete(each);
  }
  if ((await lstatOrNull(target)) !== null)
    throw refused("to", target, "something in it is excluded and stays");
}

/** Removes a directory; false where something that is excluded keeps it. */
async function removeDirectory(path: string): Promise<boolean> {
  try {
    await rmdir(path);
    return true;
  } catch (error) {
    if (["ENOTEMPTY", "EEXIST"].includes(systemErrorCode(error) ?? "")) return false;
    if (systemErrorCode(error) === "ENOENT") return true;
    throw error;
  }
}

/** Directories get their times last, because everything that is put in changes them. */
async function finish(
  model: ReadonlyMap<string, WalkedEntry>,
  to: string,
  destination: Destination,
): Promise<void> {
  for (const [path, { kind, stats }] of [...model].reverse())
    if (kind === "directory") await utimes(join(to, ...path.split("/")), stats.atime, stats.mtime);
  await destination.flush();
}
