/**
 * The disk as a port: exactly the primitives with which an update is made all or nothing.
 *
 * A crash is the one thing that cannot be tried out on a real disk a hundred thousand times, so whoever changes an
 * installation speaks to this interface; `realDisk` is the machine's, the simulated one loses, tears and fills up.
 *
 * No call follows a link in the last part of a path, and none makes anything durable but the two that say so. Where
 * nothing is promised about a failed call, it had no effect. Errors are those of the system: an Error with a `code`
 * such as ENOSPC. Paths are absolute. All calls but the two that wait for the medium are synchronous: from promises
 * they cost three times as much (docs/benchmarks.md).
 */
export interface Disk {
  /** Whether the rules of Windows hold: no durable directories, attributes instead of modes, files held open. */
  readonly windows: boolean;

  /** What stands at a path, without following it; null when nothing does, or when a parent is no directory. */
  lstat(path: string): FileStat | null;
  readDirectory(path: string): string[];
  /** The whole file. Only for small ones: record, state, revision. */
  readFile(path: string): Uint8Array;
  readLink(path: string): string;

  /** Makes one directory with exactly this mode. EEXIST when anything stands there. */
  makeDirectory(path: string, mode: number): void;
  /** Removes an empty directory. ENOTEMPTY. */
  removeDirectory(path: string): void;
  /** Writes a new file with exactly this mode. EEXIST when anything stands there, so it never writes through a link. */
  writeFile(path: string, bytes: Uint8Array, mode: number): void;
  /** Copies a file to a new one with exactly this mode. EEXIST when anything stands there. */
  copyFile(from: string, to: string, mode: number): void;
  /** A second name for one file. Not every file system has them: EPERM, ENOTSUP, EMLINK, EXDEV. */
  link(from: string, to: string): void;
  symlink(target: string, path: string): void;
  /** One atomic step; replaces a file. Two names of one file: nothing happens and both stay (POSIX). */
  rename(from: string, to: string): void;
  unlink(path: string): void;
  /** Only for a file that the caller made itself and just looked at: the system would follow a link here. */
  changeMode(path: string, mode: number): void;

  /** Throws what a change of entries in this directory would throw (EACCES, EROFS, EPERM), without changing it. */
  demandWritable(directory: string): void;
  /**
   * Throws EPERM when this file is marked so that nobody may replace or remove it (immutable), as far as the system
   * tells that beforehand: of files that may only be appended to, it does not.
   */
  demandReplaceable(path: string): void;
  /** Whether a program holds the file so that it cannot be replaced. Never on POSIX, where it always can. */
  isInUse(path: string): boolean;
  /** Bytes that this process may still write on the file system of a path. */
  freeBytes(path: string): number;

  /**
   * Makes content and mode of files durable. Throws the first error; after an error the content of *every* file of the
   * call is worthless, also when a second try succeeds: the system forgets what it failed to write.
   */
  syncFiles(paths: readonly string[]): Promise<void>;
  /** Makes the entries of directories durable. Does nothing where the system knows no such thing (Windows). */
  syncDirectories(paths: readonly string[]): Promise<void>;
}

export type FileKind = "file" | "directory" | "link" | "other";

/** What the system says of a path. Times in nanoseconds since 1970; they and the inode serve for comparing only. */
export interface FileStat {
  readonly kind: FileKind;
  readonly size: number;
  /** The nine permission bits. */
  readonly mode: number;
  readonly mtimeNs: bigint;
  readonly ctimeNs: bigint;
  readonly ino: bigint;
  readonly dev: bigint;
}

/** Whether two looks saw the same file under its names: a hard link, not a copy. */
export function isSameFile(a: FileStat, b: FileStat): boolean {
  return a.ino === b.ino && a.dev === b.dev;
}

/** The code of a system error (`ENOSPC`), or null when it is none: errors of Node and of ours have codes as well. */
export function systemErrorCode(error: unknown): string | null {
  if (!(error instanceof Error) || !("code" in error) || typeof error.code !== "string") return null;
  if (error.code === "" && "syscall" in error) return codeFromWords(error.message);
  return /^E[A-Z0-9]+$/.test(error.code) ? error.code : null;
}

/** The words of the C library for what `rmSync` of Node 26 throws without a code: every error that it does not expect. */
const WORDS: readonly (readonly [RegExp, string])[] = [
  [/^[^']*no space left on device/i, "ENOSPC"],
  [/^[^']*quota exceeded/i, "EDQUOT"],
  [/^[^']*read-only file system/i, "EROFS"],
];

function codeFromWords(message: string): string {
  return WORDS.find(([words]) => words.test(message))?.[1] ?? "EIO";
}

/** What systems say when a file can have no second name here: forbidden, unsupported, too many, elsewhere. */
const NO_LINKS = new Set(["EPERM", "ENOTSUP", "EOPNOTSUPP", "ENOSYS", "EMLINK", "EXDEV"]);

/** Whether an error says that a file can have no second name here (hard link). */
export function isWithoutLinks(error: unknown): boolean {
  return NO_LINKS.has(systemErrorCode(error) ?? "");
}
