import type { Stats } from "node:fs";
import type { FileHandle } from "node:fs/promises";
import { mkdir, open, readdir, rename, rm, stat, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import {
  type Clock,
  type Random,
  realDisk,
  systemClock,
  systemErrorCode,
  systemRandom,
} from "@lockstep/platform";
import { isLockstepError } from "@lockstep/protocol/wire";
import { type ContentKey, verifyBytes, verifyContent } from "./verify.ts";

/**
 * Contents by their hash in a directory: a cache that any number of processes may share and that may be lost at any
 * time, since what is in it can be had again.
 *
 * A content comes under its name by a rename, after it was verified, so no reader ever sees half of one. What a power
 * cut does to a file that was not flushed is another matter, as is a failing disk; therefore each content is verified
 * again when this process uses it for the first time, and whenever its size, inode or time of change are not those that
 * were verified; a damaged one is dropped as if it had never been there. That costs one read of each file per start, and
 * saves an fsync for each write.
 *
 *   DIR/sha256/ab/abcd…        as it is
 *   DIR/sha256/ab/abcd….zst    as one zstd frame
 *   DIR/partial/               being written; whatever lies there untouched for an hour belongs to somebody who died
 */
export interface ContentStoreOptions {
  /** Above this sum of file sizes `collect` removes what was not used for the longest time. In bytes. */
  readonly sizeBytesMax: number;
  /** Flush each content and its directory before it counts as written. */
  readonly durable?: boolean;
  readonly clock?: Pick<Clock, "now">;
  readonly random?: Pick<Random, "hex">;
}

export interface Collected {
  readonly files: number;
  readonly bytes: number;
}

/** A content that is open for reading. */
export interface OpenContent {
  readonly file: FileHandle;
  /** Decoded length in bytes. */
  readonly size: number;
  /** Length as it lies there. */
  readonly stored: number;
}

interface Verified {
  readonly look: string;
  readonly size: number;
}

const ABANDONED_MS = 3_600_000;
/** How exact the order of use is. A time stamp for each use would turn every read into a write. */
const USED_RESOLUTION_MS = 600_000;

export class ContentStore {
  readonly #directory: string;
  readonly #options: Required<ContentStoreOptions>;
  /** What the files that this process has seen whole looked like then, and their decoded length, by name. */
  readonly #verified = new Map<string, Verified>();
  readonly #filling = new Map<string, Promise<void>>();
  #sizeBytes = 0;

  private constructor(directory: string, options: ContentStoreOptions) {
    this.#directory = directory;
    this.#options = { durable: false, clock: systemClock, random: systemRandom, ...options };
  }

  /** Opens or creates a store. The directory is readable for this user alone. */
  static async open(directory: string, options: ContentStoreOptions): Promise<ContentStore> {
    const store = new ContentStore(directory, options);
    await mkdir(join(directory, "partial"), { recursive: true, mode: 0o700 });
    await mkdir(join(directory, "sha256"), { recursive: true, mode: 0o700 });
    for (const file of await store.#list()) store.#sizeBytes += file.size;
    return store;
  }

  /** Sum of the sizes of its files in bytes, as far as this process knows. */
  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  /** Whether the collection is due: the store is larger than it should be. */
  get isOverfull(): boolean {
    return this.#sizeBytes > this.#options.sizeBytesMax;
  }

  /** Where a content lies when the store has it. Open it through `open`, which verifies. */
  path(key: ContentKey): string {
    return join(this.#directory, "sha256", key.sha256.slice(0, 2), fileName(key));
  }

  /** Whether the store has a content, and sound. */
  async has(key: ContentKey): Promise<boolean> {
    const file = await this.open(key);
    await file?.close();
    return file !== null;
  }

  /**
   * Opens a content for reading, or returns null when the store has none. The handle is the caller's to close; it stays
   * good when the content is collected meanwhile. Throws what the file system throws, save that there is no such file.
   */
  async open(key: ContentKey): Promise<FileHandle | null> {
    return (await this.openMeasured(key))?.file ?? null;
  }

  /** The same, with the lengths, for who knows no more of a content than its digest. */
  async openMeasured(key: ContentKey): Promise<OpenContent | null> {
    const path = this.path(key);
    const file = await openOrNull(path);
    if (file === null) return null;
    try {
      const found = await file.stat();
      const known = this.#verified.get(fileName(key));
      let size = known?.size ?? 0;
      if (known?.look !== lookOf(found)) {
        const sound = found.isFile() ? await measure(key, file) : null;
        if (sound === null) {
          await file.close();
          await this.#remove(path, found.size);
          return null;
        }
        size = sound;
        this.#verified.set(fileName(key), { look: lookOf(found), size });
      }
      const now = this.#options.clock.now();
      // A cache on a read-only disk still serves; only the order of use is lost.
      if (Math.abs(now - found.mtimeMs) > USED_RESOLUTION_MS) {
        await file.utimes(now / 1000, now / 1000).catch(() => undefined);
        this.#verified.set(fileName(key), { look: lookOf(await file.stat()), size });
      }
      return { file, size, stored: found.size };
    } catch (error) {
      await file.close().catch(() => undefined);
      throw error;
    }
  }

  /** A whole content in memory, as it lies there, or null. Meant for small ones. */
  async read(key: ContentKey): Promise<Buffer | null> {
    const file = await this.open(key);
    if (file === null) return null;
    try {
      return await file.readFile();
    } finally {
      await file.close();
    }
  }

  /**
   * Stores a content from a stream of its bytes as they shall lie there. It is verified on the way; a wrong one throws
   * CONTENT_MISMATCH and leaves nothing. Writing what the store already has is harmless.
   */
  async write(key: ContentKey, source: AsyncIterable<Uint8Array>, signal?: AbortSignal): Promise<void> {
    const partial = join(this.#directory, "partial", `${process.pid}-${this.#options.random.hex(8)}`);
    const file = await open(partial, "wx", 0o600);
    let stored = 0;
    try {
      const keep = async (chunk: Uint8Array) => {
        for (let at = 0; at < chunk.length; )
          at += (await file.write(chunk, at, chunk.length - at, stored + at)).bytesWritten;
        stored += chunk.length;
      };
      const size = await verifyContent(key, source, keep, signal);
      if (this.#options.durable) await file.sync();
      await file.close();
      await this.#place(key, partial, { size, stored });
    } catch (error) {
      await file.close().catch(() => undefined);
      await rm(partial, { force: true });
      throw error;
    }
  }

  /** Stores a content that is in memory, as it shall lie there. Throws CONTENT_MISMATCH. */
  async put(key: ContentKey, bytes: Uint8Array): Promise<void> {
    const size = verifyBytes(key, bytes);
    const partial = join(this.#directory, "partial", `${process.pid}-${this.#options.random.hex(8)}`);
    try {
      await writeFile(partial, bytes, { mode: 0o600, flag: "wx", flush: this.#options.durable });
      await this.#place(key, partial, { size, stored: bytes.length });
    } catch (error) {
      await rm(partial, { force: true });
      throw error;
    }
  }

  /**
   * Takes a file of the same file system into the store, once it is verified. It is gone from its place afterwards, also
   * when it is the wrong one, which throws CONTENT_MISMATCH.
   */
  async adopt(key: ContentKey, path: string): Promise<void> {
    const file = await open(path, "r+");
    try {
      const size = await verifyContent(key, readFrom(file));
      const stored = (await file.stat()).size;
      if (this.#options.durable) await file.sync();
      await this.#place(key, path, { size, stored });
    } catch (error) {
      await rm(path, { force: true });
      throw error;
    } finally {
      await file.close();
    }
  }

  async #place(
    key: ContentKey,
    partial: string,
    { size, stored }: { readonly size: number; readonly stored: number },
  ): Promise<void> {
    const path = this.path(key);
    const directory = join(path, "..");
    await mkdir(directory, { recursive: true, mode: 0o700 });
    const before = await stat(path).catch(() => null);
    await rename(partial, path);
    if (this.#options.durable) await realDisk.syncDirectories([directory]);
    this.#sizeBytes += stored - (before?.size ?? 0);
    const placed = await stat(path).catch(() => null);
    if (placed !== null) this.#verified.set(fileName(key), { look: lookOf(placed), size });
  }

  /**
   * Opens a content, filling it in first where the store has none. Whoever asks for the same content meanwhile waits
   * for the one that is being filled in. Throws what `produce` and `write` throw.
   */
  async openOrFill(key: ContentKey, produce: () => AsyncIterable<Uint8Array>): Promise<FileHandle> {
    for (let attempt = 0; ; attempt++) {
      const file = await this.open(key);
      if (file !== null) return file;
      const name = fileName(key);
      const running = this.#filling.get(name);
      if (running !== undefined) {
        await running.catch(() => undefined);
        continue;
      }
      // Another process may collect what was just filled in; once is bad luck, three times a limit that is too small.
      if (attempt >= 3)
        throw new Error(`content ${key.sha256} vanishes from ${this.#directory} while it is used`);
      const filling = this.write(key, produce());
      this.#filling.set(name, filling);
      try {
        await filling;
      } finally {
        this.#filling.delete(name);
      }
    }
  }

  /** Removes a content. Removing what is not there is no error. */
  async remove(key: ContentKey): Promise<void> {
    const path = this.path(key);
    const found = await stat(path).catch(() => null);
    if (found !== null) await this.#remove(path, found.size);
  }

  /**
   * Brings the store below its limit, the longest unused first, and clears away what dead processes left half written.
   * Leaves a tenth of the limit free, so that the next write does not lead to the next collection.
   */
  async collect(): Promise<Collected> {
    await this.#removeAbandoned();
    const files = (await this.#list()).sort((a, b) => a.usedAt - b.usedAt);
    this.#sizeBytes = files.reduce((sum, file) => sum + file.size, 0);
    const collected = { files: 0, bytes: 0 };
    if (!this.isOverfull) return collected;
    for (const file of files) {
      if (this.#sizeBytes <= this.#options.sizeBytesMax * 0.9) break;
      await this.#remove(file.path, file.size);
      collected.files++;
      collected.bytes += file.size;
    }
    return collected;
  }

  async #removeAbandoned(): Promise<void> {
    const directory = join(this.#directory, "partial");
    for (const name of await readdir(directory)) {
      const found = await stat(join(directory, name)).catch(() => null);
      if (found !== null && this.#options.clock.now() - found.mtimeMs > ABANDONED_MS)
        await rm(join(directory, name), { force: true });
    }
  }

  async #remove(path: string, size: number): Promise<void> {
    try {
      // Recursive: something else than a file may stand there, which is as good as nothing.
      await rm(path, { recursive: true });
      this.#sizeBytes = Math.max(0, this.#sizeBytes - size);
    } catch (error) {
      if (!isMissing(error)) throw error;
    }
    this.#verified.delete(basename(path));
  }

  async #list(): Promise<{ path: string; size: number; usedAt: number }[]> {
    const root = join(this.#directory, "sha256");
    const files: { path: string; size: number; usedAt: number }[] = [];
    for (const directory of await readdir(root))
      for (const name of await readdir(join(root, directory)).catch(() => [])) {
        const path = join(root, directory, name);
        const found = await stat(path).catch(() => null);
        if (found?.isFile() === true) files.push({ path, size: found.size, usedAt: found.mtimeMs });
      }
    return files;
  }
}

function fileName(key: ContentKey): string {
  return key.encoding === "zstd" ? `${key.sha256}.zst` : key.sha256;
}

/** By what a file is known to be untouched: whoever writes to it changes the time of change, which nobody can set. */
function lookOf({ ino, size, ctimeMs }: Stats): string {
  return `${ino} ${size} ${ctimeMs}`;
}

async function openOrNull(path: string): Promise<FileHandle | null> {
  try {
    return await open(path, "r");
  } catch (error) {
    if (isMissing(error)) return null;
    throw error;
  }
}

/** The decoded length of a sound content; null: it is damaged. */
async function measure(key: ContentKey, file: FileHandle): Promise<number | null> {
  try {
    return await verifyContent(key, readFrom(file));
  } catch (error) {
    if (isLockstepError(error, "CONTENT_MISMATCH")) return null;
    throw error;
  }
}

function readFrom(file: FileHandle): AsyncIterable<Uint8Array> {
  return file.createReadStream({ autoClose: false, start: 0, highWaterMark: 256 * 1024 });
}

function isMissing(error: unknown): boolean {
  return systemErrorCode(error) === "ENOENT";
}
