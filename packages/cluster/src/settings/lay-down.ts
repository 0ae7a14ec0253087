import {
  type CheckpointEntry,
  type CheckpointRoot,
  entryPath,
  type FoundEntry,
  type LayDownPlan,
} from "@lockstep/core";
import { type Disk, systemErrorCode } from "@lockstep/platform";

/** Gives a new file or directory the owner that another path has. A file laid down by root belongs to its service. */
export type AdoptOwner = (path: string, like: string) => void;

export interface LayDownOptions {
  readonly disk: Disk;
  readonly roots: readonly CheckpointRoot[];
  readonly plan: LayDownPlan;
  readonly found: readonly FoundEntry[];
  readonly leftovers: readonly string[];
  /** By hash, of everything that the plan writes. */
  readonly contents: ReadonlyMap<string, Uint8Array>;
  readonly adopt: AdoptOwner;
}

const WRITABLE = 0o700;
const PARENT_MODE = 0o755;

/**
 * Carries a plan out. When it returns, all of it is durable. Interrupted at any moment it leaves files that are wholly old
 * or wholly new, and a plan made from what is there then finishes it: nothing is started in between.
 */
export async function layDown(options: LayDownOptions): Promise<void> {
  const { disk, plan, found, leftovers, contents, adopt } = options;
  const paths = new Map(options.roots.map(({ id, path }) => [id, path]));
  const pathOf = ({ root, path }: Pick<CheckpointEntry, "root" | "path">) =>
    entryPath(paths.get(root) ?? "", path);
  /** Directories whose entries changed. */
  const changed = new Set<string>();
  const gone = new Set<string>();

  for (const entry of found)
    if (entry.kind === "directory" && (entry.mode & WRITABLE) !== WRITABLE)
      disk.changeMode(pathOf(entry), entry.mode | WRITABLE);
  for (const path of leftovers) {
    disk.unlink(path);
    changed.add(parentOf(path));
  }
  for (const entry of plan.remove) {
    const path = pathOf(entry);
    if (entry.kind === "directory") {
      if (!removeIfEmpty(disk, path)) continue;
      gone.add(path);
    } else disk.unlink(path);
    changed.add(parentOf(path));
  }
  for (const entry of plan.makeDirectories) {
    const path = pathOf(entry);
    if (entry.path === "") makeParents(disk, parentOf(path), changed);
    disk.makeDirectory(path, entry.mode | WRITABLE);
    adopt(path, parentOf(path));
    changed.add(parentOf(path)).add(path);
  }
  const staged = plan.write.map((entry, index) => {
    const path = pathOf(entry);
    if (entry.path === "") makeParents(disk, parentOf(path), changed);
    const temporary = `${parentOf(path)}/.lockstep-checkpoint.${index}`;
    // Left by a crash before, beside a root that is a single file, where nobody looked for it.
    if (disk.lstat(temporary)?.kind === "file") disk.unlink(temporary);
    disk.writeFile(temporary, contents.get(entry.sha256) ?? missing(entry), entry.mode);
    adopt(temporary, disk.lstat(path)?.kind === "file" ? path : parentOf(path));
    return { path, temporary };
  });
  for (const entry of plan.changeMode) disk.changeMode(pathOf(entry), entry.mode);
  await disk.syncFiles([...staged.map(({ temporary }) => temporary), ...plan.changeMode.map(pathOf)]);
  for (const { path, temporary } of staged) {
    disk.rename(temporary, path);
    changed.add(parentOf(path));
  }
  for (const entry of plan.closeDirectories) {
    const path = pathOf(entry);
    if (disk.lstat(path)?.mode === entry.mode) continue;
    disk.changeMode(path, entry.mode);
    changed.add(path);
  }
  await disk.syncDirectories([...changed].filter((path) => !gone.has(path)));
}

function missing(entry: CheckpointEntry): never {
  throw new Error(`nobody fetched the content of ${entry.path}`);
}

/** Whether it is gone. It stays when something is in it that is not followed. */
function removeIfEmpty(disk: Disk, path: string): boolean {
  try {
    disk.removeDirectory(path);
    return true;
  } catch (error) {
    if (systemErrorCode(error) === "ENOTEMPTY" || systemErrorCode(error) === "EEXIST") return false;
    throw error;
  }
}

/** Makes the directories above a root. */
function makeParents(disk: Disk, path: string, changed: Set<string>): void {
  if (path === "/" || disk.lstat(path) !== null) return;
  makeParents(disk, parentOf(path), changed);
  disk.makeDirectory(path, PARENT_MODE);
  changed.add(parentOf(path)).add(path);
}

export const parentOf = (path: string) => path.slice(0, Math.max(1, path.lastIndexOf("/")));
