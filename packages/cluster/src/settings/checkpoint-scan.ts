import { createHash } from "node:crypto";
import {
  type CheckpointEntry,
  type CheckpointLimits,
  type CheckpointRoot,
  entryPath,
  type FoundEntry,
  foldPath,
  settingsPathProblem,
  showEntry,
} from "@lockstep/core";
import type { Disk, FileStat } from "@lockstep/platform";
import { LockstepError } from "@lockstep/protocol/wire";

/** What a crash may leave of a file that was being laid down. */
export const STAGED_NAME = /^\.lockstep-checkpoint\.[0-9]+$/;
/** A file that changes while it is read is read again so often. */
const READS_MAX = 3;
/** A look this soon after a change might miss the next one: the system's clock moves in steps. */
const FRESH_NS = 100_000_000n;

export interface ScannedSettings {
  readonly entries: readonly FoundEntry[];
  /** By root: the device that a directory lies on. Roots that are not there, or are links, are missing. */
  readonly devices: ReadonlyMap<string, bigint>;
  /** Roots where nothing is. */
  readonly absent: ReadonlySet<string>;
  /** Roots that are links or devices themselves: not looked at. */
  readonly refused: ReadonlySet<string>;
  /** What is not followed, in words. */
  readonly problems: readonly string[];
  /** What an interrupted laying down left. */
  readonly leftovers: readonly string[];
  /** Contents that were asked for, by hash. */
  readonly contents: ReadonlyMap<string, Uint8Array>;
}

interface Remembered {
  readonly stat: FileStat;
  readonly sha256: string;
}

/** Looks at the settings of a node and remembers the hashes of files that it has seen. Follows no link. */
export class SettingsScanner {
  readonly #disk: Disk;
  readonly #limits: CheckpointLimits;
  readonly #now: () => number;
  #remembered = new Map<string, Remembered>();

  /** `now`: wall-clock milliseconds, as the times of files are. */
  constructor(disk: Disk, limits: CheckpointLimits, now: () => number) {
    this.#disk = disk;
    this.#limits = limits;
    this.#now = now;
  }

  /**
   * Everything below the roots. `wants`: of which hashes the content is to be kept where a file is read anyway.
   * Throws CHECKPOINT_TOO_LARGE when there is far too much to look at, and errors of the system.
   */
  scan(roots: readonly CheckpointRoot[], wants: (sha256: string) => boolean = () => false): ScannedSettings {
    const seen: Seen = {
      entries: [],
      devices: new Map(),
      absent: new Set(),
      refused: new Set(),
      problems: [],
      leftovers: [],
      contents: new Map(),
      wants,
      remembered: new Map(),
    };
    for (const root of roots) this.#root(root, seen);
    this.#remembered = seen.remembered;
    return seen;
  }

  #root(root: CheckpointRoot, seen: Seen): void {
    const stat = this.#disk.lstat(root.path);
    if (stat === null) seen.absent.add(root.id);
    else if (stat.kind === "file") this.#file(root, "", stat, seen);
    else if (stat.kind === "directory") {
      seen.devices.set(root.id, stat.dev);
      this.#directory(root, "", stat, seen);
    } else {
      seen.refused.add(root.id);
      seen.entries.push(other(root.id, ""));
      seen.problems.push(`${root.path} is a link or a device, and is not followed`);
    }
  }

  #directory(root: CheckpointRoot, path: string, { mode }: FileStat, seen: Seen): void {
    seen.entries.push({ root: root.id, path, kind: "directory", mode, size: 0, sha256: "" });
    if (seen.entries.length > this.#limits.entriesMax * 4)
      throw new LockstepError("CHECKPOINT_TOO_LARGE", "there is too much below the settings of a service", {
        expected: `at most ${this.#limits.entriesMax} files and directories`,
        found: `more than ${seen.entries.length}, still in ${root.path}`,
        hint: "Name a smaller directory, or put what is not settings elsewhere.",
      });
    const directory = entryPath(root.path, path);
    const twins = new Map<string, string>();
    for (const name of this.#disk.readDirectory(directory)) {
      const below = path === "" ? name : `${path}/${name}`;
      const full = entryPath(root.path, below);
      if (STAGED_NAME.test(name)) {
        seen.leftovers.push(full);
        continue;
      }
      const stat = this.#disk.lstat(full);
      if (stat === null) continue;
      const problem = this.#problemOf(below, name, stat, twins);
      if (problem !== null) {
        seen.entries.push(other(root.id, below));
        seen.problems.push(`${full} is not followed: ${problem}`);
      } else if (stat.kind === "file") this.#file(root, below, stat, seen);
      else this.#directory(root, below, stat, seen);
    }
  }

  #problemOf(path: string, name: string, { kind }: FileStat, twins: Map<string, string>): string | null {
    if (kind === "link") return "it is a link";
    if (kind === "other") return "it is neither a file nor a directory";
    const problem = settingsPathProblem(path);
    if (problem !== null) return problem;
    const twin = twins.get(foldPath(name));
    if (twin !== undefined) return `${twin} is the same name on some systems`;
    twins.set(foldPath(name), name);
    return null;
  }

  #file(root: CheckpointRoot, path: string, stat: FileStat, seen: Seen): void {
    const full = entryPath(root.path, path);
    const add = (found: FileStat, sha256: string) =>
      seen.entries.push({
        root: root.id,
        path,
        kind: "file",
        mode: found.mode,
        size: found.size,
        sha256,
      } satisfies CheckpointEntry);
    const before = this.#remembered.get(full);
    if (before !== undefined && isUntouched(before.stat, stat)) {
      seen.remembered.set(full, before);
      add(stat, before.sha256);
      return;
    }
    // Never read; whoever stores finds the size, and whoever lays down takes it for one that was changed here.
    if (stat.size > this.#limits.fileBytesMax) {
      add(stat, "");
      return;
    }
    let look = stat;
    for (let reads = 0; reads < READS_MAX; reads++) {
      const bytes = this.#disk.readFile(full);
      const after = this.#disk.lstat(full);
      if (after === null || after.kind !== "file") return;
      if (!isUntouched(look, after) || bytes.length !== after.size) {
        look = after;
        continue;
      }
      const sha256 = hashOf(bytes);
      if (BigInt(this.#now()) * 1_000_000n - after.ctimeNs > FRESH_NS)
        seen.remembered.set(full, { stat: after, sha256 });
      if (seen.wants(sha256)) seen.contents.set(sha256, bytes);
      add(after, sha256);
      return;
    }
    throw new LockstepError(
      "FILE_ACCESS_FAILED",
      `${showEntry({ root: root.id, path })} changes while it is read`,
      {
        found: full,
        hint: "It is read again in a moment.",
      },
    );
  }
}

interface Seen {
  readonly entries: FoundEntry[];
  readonly devices: Map<string, bigint>;
  readonly absent: Set<string>;
  readonly refused: Set<string>;
  readonly problems: string[];
  readonly leftovers: string[];
  readonly contents: Map<string, Uint8Array>;
  readonly wants: (sha256: string) => boolean;
  readonly remembered: Map<string, Remembered>;
}

const other = (root: string, path: string): FoundEntry => ({
  root,
  path,
  kind: "other",
  mode: 0,
  size: 0,
  sha256: "",
});

const isUntouched = (a: FileStat, b: FileStat) =>
  a.ino === b.ino &&
  a.dev === b.dev &&
  a.size === b.size &&
  a.mtimeNs === b.mtimeNs &&
  a.ctimeNs === b.ctimeNs;

export const hashOf = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");
