import type { Disk } from "@lockstep/platform";

/** Copies of what was changed on a node and then overwritten; more than this many, and the oldest go. */
const COPIES_MAX = 200;

/**
 * Keeps a durable copy of a file that is about to be overwritten, named by its content, so that the same one is kept once.
 * Returns where.
 */
export async function keepCopy(disk: Disk, directory: string, path: string, sha256: string): Promise<string> {
  if (disk.lstat(directory) === null) disk.makeDirectory(directory, 0o700);
  const name = `${sha256.slice(0, 16)}-${path.slice(path.lastIndexOf("/") + 1)}`.slice(0, 120);
  const copy = `${directory}/${name}`;
  if (disk.lstat(copy) !== null) return copy;
  const temporary = `${directory}/.copying`;
  if (disk.lstat(temporary) !== null) disk.unlink(temporary);
  disk.copyFile(path, temporary, 0o600);
  await disk.syncFiles([temporary]);
  disk.rename(temporary, copy);
  prune(disk, directory);
  await disk.syncDirectories([directory]);
  return copy;
}

function prune(disk: Disk, directory: string): void {
  const copies = disk.readDirectory(directory).map((name) => {
    const path = `${directory}/${name}`;
    return { path, at: disk.lstat(path)?.ctimeNs ?? 0n };
  });
  for (const { path } of copies.sort((a, b) => (a.at < b.at ? 1 : -1)).slice(COPIES_MAX)) disk.unlink(path);
}
