import { spawn } from "node:child_process";
import * as fs from "node:fs";
import { setImmediate as nextTurn } from "node:timers/promises";
import { type Disk, type FileKind, type FileStat, systemErrorCode } from "./disk.ts";

/**
 * The machine's disk.
 *
 * Making many files durable. One fsync each, one after the other, waits for the medium as often as there are files.
 * `sync -f` of the whole file system is ten times faster, but an error that another process was told already is not
 * told again, so alone it proves nothing. So for many files both: the one sync writes everything out in the best order
 * (its outcome is ignored, it only saves time), then each file gets its own fsync, which finds nothing left to write
 * and answers for this very file. Measured for 3,000 files of 20 kB (ext4, 2 cores): fsync one by one 686 ms, sixteen
 * at once 225 ms, sync alone 50 ms, sync and then fsync one by one 222 ms; with many or large files the share of the
 * fsyncs shrinks to nothing. Few files get their fsync at once: starting a process costs as much as ten of them.
 *
 * Not promised: that a disk which lies about its write cache keeps anything.
 */
const SYNC_TOGETHER_MIN = 48;
/** Calls between two turns of the event loop, so that progress is shown while thousands of files are waited for. */
const SYNC_TURN = 64;

const { constants } = fs;
const WINDOWS = process.platform === "win32";
// Windows has no such flag and Node's constant is missing there; links are refused by whoever walks the parents.
const NO_FOLLOW = constants.O_NOFOLLOW ?? 0;
const CREATE = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | NO_FOLLOW;
const MODE_BITS = 0o777;

/** The disk of the machine that this process runs on. */
export const realDisk: Disk = {
  windows: WINDOWS,
  lstat,
  readDirectory,
  readFile,
  readLink: (path) => fs.readlinkSync(path),
  makeDirectory(path, mode) {
    fs.mkdirSync(path, { mode });
    // The process's umask may have taken bits away.
    if (!WINDOWS && (fs.lstatSync(path).mode & MODE_BITS) !== mode) fs.chmodSync(path, mode);
  },
  removeDirectory: (path) => fs.rmdirSync(path),
  writeFile,
  copyFile,
  link: (from, to) => fs.linkSync(from, to),
  symlink: (target, path) => fs.symlinkSync(target, path),
  rename: (from, to) => (WINDOWS ? renameOnWindows(from, to) : fs.renameSync(from, to)),
  unlink: (path) => (WINDOWS ? unlinkOnWindows(path) : fs.unlinkSync(path)),
  changeMode: (path, mode) => fs.chmodSync(path, mode),
  demandWritable: (directory) => fs.accessSync(directory, constants.W_OK | constants.X_OK),
  demandReplaceable(path) {
    try {
      fs.accessSync(path, constants.W_OK);
    } catch (error) {
      // Nobody may write to an immutable file; whether we may write to another one says nothing about its name.
      if (!WINDOWS && systemErrorCode(error) === "EPERM") throw error;
    }
  },
  isInUse: (path) => WINDOWS && isHeldOnWindows(path),
  freeBytes(path) {
    const { bavail, bsize } = fs.statfsSync(path);
    return bavail * bsize;
  },
  syncFiles: (paths) => syncEach(paths, syncFile),
  async syncDirectories(paths) {
    if (!WINDOWS) await syncEach(paths, syncDirectory);
  },
};

function lstat(path: string): FileStat | null {
  try {
    const stat = fs.lstatSync(path, { bigint: true, throwIfNoEntry: false });
    if (stat === undefined) return null;
    return {
      kind: kindOf(stat),
      size: Number(stat.size),
      mode: Number(stat.mode) & MODE_BITS,
      mtimeNs: stat.mtimeNs,
      ctimeNs: stat.ctimeNs,
      ino: stat.ino,
      dev: stat.dev,
    };
  } catch (error) {
    // A parent that is a file: nothing can stand below it.
    if (systemErrorCode(error) === "ENOTDIR") return null;
    throw error;
  }
}

function systemError(code: string, path: string): Error {
  return Object.assign(new Error(`${code}: refused before the system was asked, ${path}`), { code });
}

function kindOf(stat: fs.BigIntStats): FileKind {
  if (stat.isFile()) return "file";
  if (stat.isDirectory()) return "directory";
  // Junctions of Windows come as links as well.
  return stat.isSymbolicLink() ? "link" : "other";
}

function readDirectory(path: string): string[] {
  // The system would follow a link here.
  if (lstat(path)?.kind === "link") throw systemError("ENOTDIR", path);
  return fs.readdirSync(path);
}

function readFile(path: string): Uint8Array {
  const file = fs.openSync(path, constants.O_RDONLY | NO_FOLLOW);
  try {
    return fs.readFileSync(file);
  } finally {
    fs.closeSync(file);
  }
}

function writeFile(path: string, bytes: Uint8Array, mode: number): void {
  const file = fs.openSync(path, CREATE, mode);
  try {
    fs.writeFileSync(file, bytes);
    fs.fchmodSync(file, mode);
  } finally {
    fs.closeSync(file);
  }
}

const COPY_BYTES = 1 << 20;

function copyFile(from: string, to: string, mode: number): void {
  const source = fs.openSync(from, constants.O_RDONLY | NO_FOLLOW);
  try {
    // Before the target is made, so that a refused copy leaves nothing behind.
    if (!fs.fstatSync(source).isFile()) throw systemError("EISDIR", from);
    const target = fs.openSync(to, CREATE, mode);
    try {
      const buffer = Buffer.allocUnsafe(COPY_BYTES);
      for (let read = fs.readSync(source, buffer); read > 0; read = fs.readSync(source, buffer)) {
        for (let done = 0; done < read; ) done += fs.writeSync(target, buffer, done, read - done);
      }
      fs.fchmodSync(target, mode);
    } finally {
      fs.closeSync(target);
    }
  } finally {
    fs.closeSync(source);
  }
}

async function syncEach(paths: readonly string[], sync: (path: string) => void): Promise<void> {
  const [first] = paths;
  if (first !== undefined && paths.length >= SYNC_TOGETHER_MIN && process.platform === "linux")
    await writeOut(first);
  let turn = 0;
  for (const path of paths) {
    sync(path);
    if (++turn % SYNC_TURN === 0) await nextTurn();
  }
}

/** Asks the system to write the whole file system of a path out. Only saves time, so it never fails. */
function writeOut(path: string): Promise<void> {
  return new Promise((resolve) => {
    try {
      const child = spawn("sync", ["-f", path], { stdio: "ignore", env: { PATH: "/usr/bin:/bin" } });
      child.once("error", () => resolve());
      child.once("close", () => resolve());
    } catch {
      // Too long a path, no memory.
      resolve();
    }
  });
}

function syncFile(path: string): void {
  const file = openToSync(path);
  try {
    fs.fsyncSync(file);
  } finally {
    fs.closeSync(file);
  }
}

function syncDirectory(path: string): void {
  const directory = fs.openSync(path, constants.O_RDONLY | constants.O_DIRECTORY | NO_FOLLOW);
  try {
    fs.fsyncSync(directory);
  } finally {
    fs.closeSync(directory);
  }
}

const DENIED = new Set(["EPERM", "EACCES"]);

/** Opens a file of ours also where its own mode forbids it, and leaves the mode as it is. */
function openToSync(path: string): number {
  // Windows flushes only what was opened for writing, which a read-only file refuses.
  const flags = WINDOWS ? constants.O_RDWR : constants.O_RDONLY | NO_FOLLOW;
  try {
    return fs.openSync(path, flags);
  } catch (error) {
    if (!DENIED.has(systemErrorCode(error) ?? "")) throw error;
    const { mode } = fs.lstatSync(path);
    fs.chmodSync(path, mode | 0o600);
    const file = fs.openSync(path, flags);
    fs.fchmodSync(file, mode & MODE_BITS);
    return file;
  }
}

/** Windows refuses to replace or remove what carries the read-only attribute: take it off and try once more. */
function insist(path: string, act: () => void): void {
  try {
    act();
  } catch (error) {
    const mode = fs.lstatSync(path, { throwIfNoEntry: false })?.mode;
    if (!DENIED.has(systemErrorCode(error) ?? "") || mode === undefined || (mode & 0o200) !== 0) throw error;
    fs.chmodSync(path, mode | 0o200);
    act();
  }
}

function renameOnWindows(from: string, to: string): void {
  insist(to, () => fs.renameSync(from, to));
}

function unlinkOnWindows(path: string): void {
  insist(path, () => fs.unlinkSync(path));
}

/** A running program or loaded library cannot be opened for writing; read-only files are not asked. */
function isHeldOnWindows(path: string): boolean {
  const mode = fs.lstatSync(path, { throwIfNoEntry: false })?.mode;
  if (mode === undefined || (mode & 0o200) === 0) return false;
  try {
    fs.closeSync(fs.openSync(path, "r+"));
    return false;
  } catch (error) {
    return ["EBUSY", "EPERM", "EACCES", "ETXTBSY"].includes(systemErrorCode(error) ?? "");
  }
}
