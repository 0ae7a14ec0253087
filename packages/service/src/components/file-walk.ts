import type { Stats } from "node:fs";
import { lstat, readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { systemErrorCode } from "@lockstep/platform";

/** One entry below a directory. */
export interface WalkedEntry {
  /** Relative, with `/`. */
  readonly path: string;
  readonly absolute: string;
  readonly kind: "file" | "directory" | "link" | "other";
  readonly stats: Stats;
}

export interface WalkOptions {
  /** Links count as what they point at. One that points at nothing, or back up, stays a link. */
  readonly followLinks: boolean;
  readonly signal: AbortSignal;
  /** Whether to look into a directory at all. */
  readonly enters?: (path: string) => boolean;
}

/** Everything below a directory, a directory before what is in it, names in order. */
export async function* walk(root: string, options: WalkOptions): AsyncGenerator<WalkedEntry, void> {
  yield* walkBelow(root, "", [identity(await stat(root))], options);
}

async function* walkBelow(
  directory: string,
  prefix: string,
  above: readonly string[],
  options: WalkOptions,
): AsyncGenerator<WalkedEntry, void> {
  const names = (await readdir(directory)).sort();
  for (const name of names) {
    options.signal.throwIfAborted();
    const absolute = join(directory, name);
    const entry = await look(absolute, above, options.followLinks);
    if (entry === null) continue;
    const path = `${prefix}${name}`;
    yield { path, absolute, ...entry };
    if (entry.kind === "directory" && options.enters?.(path) !== false)
      yield* walkBelow(absolute, `${path}/`, [...above, identity(entry.stats)], options);
  }
}

async function look(
  path: string,
  above: readonly string[],
  followLinks: boolean,
): Promise<Pick<WalkedEntry, "kind" | "stats"> | null> {
  try {
    const own = await lstat(path);
    if (!own.isSymbolicLink() || !followLinks) return { kind: kindOf(own), stats: own };
    const meant = await stat(path).catch(() => null);
    return meant === null || above.includes(identity(meant))
      ? { kind: "link", stats: own }
      : { kind: kindOf(meant), stats: meant };
  } catch (error) {
    // It went away since the directory was read.
    if (systemErrorCode(error) === "ENOENT") return null;
    throw error;
  }
}

export function kindOf(stats: Stats): WalkedEntry["kind"] {
  if (stats.isFile()) return "file";
  if (stats.isDirectory()) return "directory";
  return stats.isSymbolicLink() ? "link" : "other";
}

const identity = (stats: Stats) => `${stats.dev}:${stats.ino}`;
