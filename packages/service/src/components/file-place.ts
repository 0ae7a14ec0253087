import { createHash, randomBytes } from "node:crypto";
import type { Stats } from "node:fs";
import {
  type FileHandle,
  link,
  lstat,
  mkdir,
  open,
  readlink,
  rename,
  rm,
  symlink,
  unlink,
} from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { systemErrorCode } from "@lockstep/platform";
import { LockstepError } from "@lockstep/protocol/wire";
import { lstatOrNull, refused } from "./file-paths.ts";

/**
 * Puts files into a directory so that whoever reads sees the old one or the new one, also after a power cut: written
 * beside its place under another name, flushed, renamed, and the directory flushed. A step that is killed in between
 * leaves a file `.lockstep-….tmp` behind and nothing else.
 */
export type IfExists = "replace" | "keep" | "fail";

const BUFFER_BYTES = 1024 * 1024;

export class Destination {
  readonly #followLinks: boolean;
  readonly #ready = new Set<string>();
  readonly #touched = new Set<string>();

  constructor(followLinks: boolean) {
    this.#followLinks = followLinks;
  }

  /**
   * Makes the directories from `root` down to the one that holds `path`. Throws PATH_REFUSED where one of them is a
   * link or a file; `root` and what is above it is made as it is missing.
   */
  async makeParents(root: string, path: string): Promise<void> {
    const directory = dirname(path);
    if (this.#ready.has(directory)) return;
    if (directory.length > root.length && directory.startsWith(root)) await this.makeParents(root, directory);
    const found = await lstatOrNull(directory);
    if (found === null) {
      await mkdir(directory, { recursive: true });
      this.#touched.add(dirname(directory));
    } else if (found.isSymbolicLink() && directory.length >= root.length && !this.#followLinks)
      throw refused("directory", directory, "it is a symbolic link; followLinks: true follows it");
    this.#ready.add(directory);
  }

  /**
   * Puts a file into its place. `write` gets it empty and open. Returns false where one is there already and is kept.
   * Throws FILE_ACCESS_FAILED where one is there and must not be.
   */
  async place(
    path: string,
    ifExists: IfExists,
    mode: number,
    write: (handle: FileHandle, temporary: string) => Promise<void>,
  ): Promise<boolean> {
    if (ifExists !== "replace" && (await lstatOrNull(path)) !== null) return keep(path, ifExists);
    return await this.#through(path, ifExists, async (temporary) => {
      const handle = await open(temporary, "wx", 0o600);
      try {
        await write(handle, temporary);
        await handle.chmod(mode);
        await handle.sync();
      } finally {
        await handle.close();
      }
    });
  }

  /** Puts a copy of a symbolic link into its place. */
  async placeLink(path: string, ifExists: IfExists, source: string): Promise<boolean> {
    const target = await readlink(source);
    return await this.#through(path, ifExists, (temporary) => symlink(target, temporary));
  }

  async #through(
    path: string,
    ifExists: IfExists,
    make: (temporary: string) => Promise<void>,
  ): Promise<boolean> {
    const temporary = join(dirname(path), `.lockstep-${randomBytes(9).toString("base64url")}.tmp`);
    try {
      await make(temporary);
      if (ifExists === "replace") await rename(temporary, path);
      else {
        try {
          // A link fails where something is there by now; a rename would replace it.
          await link(temporary, path);
        } catch (error) {
          if (systemErrorCode(error) === "EEXIST") return keep(path, ifExists);
          throw error;
        }
      }
      this.#touched.add(dirname(path));
      return true;
    } finally {
      await rm(temporary, { force: true });
    }
  }

  /** Notes that something in this directory changed. */
  touch(directory: string): void {
    this.#touched.add(directory);
  }

  /** Flushes every directory that was changed. */
  async flush(): Promise<void> {
    if (process.platform === "win32") return;
    for (const directory of this.#touched) {
      const handle = await open(directory).catch(() => null);
      // A directory that has gone since needs no flushing.
      if (handle === null) continue;
      try {
        await handle.sync();
      } finally {
        await handle.close();
      }
    }
    this.#touched.clear();
  }
}

function keep(path: string, ifExists: IfExists): false {
  if (ifExists === "keep") return false;
  throw new LockstepError("FILE_ACCESS_FAILED", `${path} is there already`, {
    hint: "ifExists says what to do with it.",
  });
}

export interface CopyOptions {
  readonly signal: AbortSignal;
  /** Read the copy again and compare its hash. */
  readonly verify: boolean;
  /** The hash that the source must have, in lower-case hex. */
  readonly sha256?: string | undefined;
}

/** Copies the content and the times of a file into an open one. Throws CONTENT_MISMATCH, FILE_ACCESS_FAILED. */
export async function copyContent(
  source: string,
  handle: FileHandle,
  temporary: string,
  options: CopyOptions,
): Promise<void> {
  const from = await open(source, "r");
  try {
    const before = await from.stat();
    const hash = await pump(from, handle, options.signal);
    const after = await from.stat();
    if (before.size !== after.size || before.mtimeMs !== after.mtimeMs)
      throw new LockstepError("FILE_ACCESS_FAILED", `${source} changed while it was copied`, {
        hint: "Another try copies it as it is then.",
      });
    if (options.sha256 !== undefined && options.sha256 !== hash) throw mismatch(source, options.sha256, hash);
    await handle.utimes(before.atime, before.mtime);
    if (!options.verify) return;
    await handle.sync();
    const copy = await hashFile(temporary, options.signal);
    if (copy !== hash) throw mismatch(`the copy of ${source}`, hash, copy);
  } finally {
    await from.close();
  }
}

function mismatch(what: string, expected: string, found: string): LockstepError {
  return new LockstepError("CONTENT_MISMATCH", `${what} has another content than expected`, {
    expected,
    found,
  });
}

async function pump(from: FileHandle, to: FileHandle | null, signal: AbortSignal): Promise<string> {
  const hash = createHash("sha256");
  const buffer = Buffer.allocUnsafe(BUFFER_BYTES);
  for (;;) {
    signal.throwIfAborted();
    const { bytesRead } = await from.read(buffer, 0, buffer.length);
    if (bytesRead === 0) return hash.digest("hex");
    const part = buffer.subarray(0, bytesRead);
    hash.update(part);
    for (let at = 0; to !== null && at < part.length; ) at += (await to.write(part, at)).bytesWritten;
  }
}

/** SHA-256 of a file in lower-case hex. */
export async function hashFile(path: string, signal: AbortSignal): Promise<string> {
  const handle = await open(path, "r");
  try {
    return await pump(handle, null, signal);
  } finally {
    await handle.close();
  }
}

/** Removes a file or link that is still the one that was seen. Returns false where it has gone already. */
export async function removeFile(path: string): Promise<boolean> {
  try {
    await unlink(path);
    return true;
  } catch (error) {
    if (systemErrorCode(error) === "ENOENT") return false;
    throw error;
  }
}

/** Whether it is there as a directory of its own, not by a link. */
export async function isRealDirectory(path: string): Promise<boolean> {
  return (await lstatOrNull(path))?.isDirectory() === true;
}

/** Whether two paths are the same file. */
export async function isSameFile(a: string, stats: Stats, b: string): Promise<boolean> {
  if (a === b) return true;
  const other = await lstat(b).catch(() => null);
  return other !== null && other.ino === stats.ino && other.dev === stats.dev && stats.isFile();
}

/** The name under which a source goes into a directory. */
export const into = (directory: string, source: string) => join(directory, basename(source));
