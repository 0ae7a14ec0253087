import { parentOf } from "@lockstep/core";
import type { Disk } from "@lockstep/platform";
import { LockstepError } from "@lockstep/protocol/wire";
import { installationError } from "./failure.ts";

/**
 * Paths inside one installation, as places on the disk that no link leads out of.
 *
 * An installation directory may be writable for others than the one who updates it. A link planted there (`lib` that
 * points to /etc) would turn an update into a write anywhere, with the updater's rights. So before a path is used, each
 * directory above it, up to the installation directory, is looked at and must not be a link. What was seen is
 * remembered until `forget`, which is called right before a switch: thousands of files share few directories.
 *
 * The installation directory itself may be reached through links: that is the owner's choice. Not promised: protection
 * from somebody who exchanges a directory for a link in the microseconds between look and use; who can do that
 * continuously owns the installation.
 */
export class Places {
  readonly #disk: Disk;
  readonly #root: string;
  readonly #real = new Set<string>([""]);

  constructor(disk: Disk, root: string) {
    this.#disk = disk;
    this.#root = root;
  }

  /** The absolute path. Throws INSTALLATION_CONFLICT when a directory above it is a link. */
  at(path: string): string {
    const absolute = this.reach(path);
    if (absolute !== null) return absolute;
    throw new LockstepError(
      "INSTALLATION_CONFLICT",
      `${this.#root}/${parentOf(path)} leads through a symbolic link`,
      {
        expected: "directories",
        found: "a link",
        hint: "Nothing is written through links. Replace it by a real directory, then try again.",
      },
    );
  }

  /** The absolute path, or null when a directory above it is a link: then nothing of ours can stand there. */
  reach(path: string): string | null {
    const parent = parentOf(path);
    if (path !== "" && !this.#real.has(parent) && this.#look(parent) === "link") return null;
    return path === "" ? this.#root : `${this.#root}/${path}`;
  }

  /** Forgets a directory that is no longer there, and all that was seen below it, or everything. */
  forget(directory?: string): void {
    for (const seen of this.#real)
      if (seen !== "" && (directory === undefined || seen === directory || seen.startsWith(`${directory}/`)))
        this.#real.delete(seen);
  }

  #look(directory: string): "link" | "real" | "nothing" {
    const above = parentOf(directory);
    const way = this.#real.has(above) ? "real" : this.#look(above);
    // Where the one above is missing or a file, nothing can stand here, and what is tried will say so.
    if (way !== "real") return way;
    const absolute = `${this.#root}/${directory}`;
    let kind: string | undefined;
    try {
      kind = this.#disk.lstat(absolute)?.kind;
    } catch (error) {
      throw installationError(error, "look at", absolute);
    }
    if (kind === "link") return "link";
    if (kind !== "directory") return "nothing";
    this.#real.add(directory);
    return "real";
  }
}
