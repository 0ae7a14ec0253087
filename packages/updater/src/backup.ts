import { copyFileSync, existsSync, linkSync, mkdirSync, readdirSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import type { PlanOperation } from "@lockstep/core";
import { isWithoutLinks, realDisk, systemErrorCode } from "@lockstep/platform";
import { ioFailure } from "./io-failure.ts";
import { type InstallationPaths, PRIVATE_MODE } from "./layout.ts";

/**
 * Copies of what an update replaces, where the repository marks a file for it (behaviour 47) or somebody had edited it:
 * `.lockstep/backup/REVISION/PATH`, by the revision that was replaced. A second name of the same file costs no space; the
 * replaced file lives on under it. They are made durable before the commit, and taken back when it does not come.
 */
const REVISIONS_KEPT = 5;

/** Makes the copies. Returns their directory, relative to the installation, or null where none was needed. */
export async function makeBackups(
  paths: InstallationPaths,
  operations: readonly PlanOperation[],
  from: number | null,
): Promise<string | null> {
  const marked = operations.filter((operation) => "backup" in operation && operation.backup);
  if (marked.length === 0) return null;
  const directory = freeDirectory(paths, from);
  const copied: string[] = [];
  const folders = new Set<string>([paths.privateDirectory, paths.backup, directory]);
  for (const { path } of marked) {
    const source = join(paths.root, path);
    const target = join(directory, path);
    try {
      mkdirSync(dirname(target), { recursive: true, mode: PRIVATE_MODE });
      for (let folder = dirname(target); folder.length > directory.length; folder = dirname(folder))
        folders.add(folder);
      if (!link(source, target)) {
        copyFileSync(source, target);
        copied.push(target);
      }
    } catch (error) {
      // What disappeared meanwhile needs no copy.
      if (systemErrorCode(error) !== "ENOENT") throw ioFailure(error, target, "writing");
    }
  }
  try {
    await realDisk.syncFiles(copied);
    await realDisk.syncDirectories([...folders]);
  } catch (error) {
    throw ioFailure(error, directory, "writing");
  }
  return directory;
}

function link(source: string, target: string): boolean {
  try {
    linkSync(source, target);
    return true;
  } catch (error) {
    if (isWithoutLinks(error)) return false;
    throw error;
  }
}

/** One directory for each update, also when the same revision is left twice. */
function freeDirectory(paths: InstallationPaths, from: number | null): string {
  const name = from === null ? "before" : String(from);
  for (let number = 1; ; number++) {
    const directory = join(paths.backup, number === 1 ? name : `${name}.${number}`);
    if (!existsSync(directory)) return directory;
  }
}

/** Takes back what `makeBackups` made: the update did not happen. */
export function dropBackups(directory: string | null): void {
  if (directory !== null) rmSync(directory, { recursive: true, force: true });
}

/** Removes the oldest beyond those that are kept. */
export function pruneBackups(paths: InstallationPaths): void {
  let names: string[];
  try {
    names = readdirSync(paths.backup);
  } catch {
    return;
  }
  const order = (name: string) => {
    const [revision, again] = name.split(".");
    return (Number.isNaN(Number(revision)) ? -1 : Number(revision)) * 1e6 + Number(again ?? 1);
  };
  const ordered = names.sort((a, b) => order(b) - order(a));
  for (const name of ordered.slice(REVISIONS_KEPT))
    rmSync(join(paths.backup, name), { recursive: true, force: true });
}
