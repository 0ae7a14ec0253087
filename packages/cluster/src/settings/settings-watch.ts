import { type FSWatcher, watch } from "node:fs";

/**
 * Wakes whoever looks for changes. A hint and no more: events come late, twice or not at all (network file systems send
 * none), so a scan from time to time decides. One watch a directory, since a recursive one follows links.
 */
export interface ChangeWatch {
  /**
   * From now on watches exactly these directories: for each the names that matter, or null for all. Returns whether one is
   * new: what happened in it before, nobody told.
   */
  follow(directories: ReadonlyMap<string, ReadonlySet<string> | null>): boolean;
  close(): void;
}

export function watchDirectories(changed: () => void): ChangeWatch {
  const watches = new Map<string, FSWatcher>();
  let wanted: ReadonlyMap<string, ReadonlySet<string> | null> = new Map();
  const drop = (directory: string) => {
    watches.get(directory)?.close();
    watches.delete(directory);
  };
  return {
    follow: (directories) => {
      wanted = directories;
      for (const directory of [...watches.keys()]) if (!wanted.has(directory)) drop(directory);
      let isNew = false;
      for (const directory of wanted.keys()) {
        if (watches.has(directory)) continue;
        try {
          const watcher = watch(directory, { persistent: false }, (_, name) => {
            const names = wanted.get(directory);
            if (names === null || name === null || names?.has(name) === true) changed();
          });
          // Gone, or too many watches on this machine: the scan finds what changed, a little later.
          watcher.on("error", () => drop(directory));
          watches.set(directory, watcher);
          isNew = true;
        } catch {
          // As above.
        }
      }
      return isNew;
    },
    close: () => {
      for (const directory of [...watches.keys()]) drop(directory);
    },
  };
}
