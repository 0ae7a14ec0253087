import { createHash } from "node:crypto";
import { type FileHandle, mkdir, open, readdir, rename, rm, stat, utimes } from "node:fs/promises";
import { join } from "node:path";
import { isSha256, type Sha256 } from "@lockstep/core";
import { systemErrorCode, systemRandom } from "@lockstep/platform";

/**
 * The steps that this hub has made, as files; losing them costs the time to make them again.
 *
 * `FROM-TO` holds the step and behind it its digest. A file is held against that digest when this process first uses it: the
 * disk may have lost power while it was written.
 */
export interface StepFile {
  readonly handle: FileHandle;
  /** Bytes of the step, without the digest. */
  readonly size: number;
}

const DIGEST_BYTES = 32;
const READ_BYTES = 256 * 1024;

export class StepFiles {
  readonly #directory: string;
  readonly #bytesMax: number;
  readonly #verified = new Set<string>();
  /** A maker of a hub that was killed may still be at it: this hub's files have names of their own. */
  readonly #mark = systemRandom.hex(8);

  private constructor(directory: string, bytesMax: number) {
    this.#directory = directory;
    this.#bytesMax = bytesMax;
  }

  /** What other processes left half made is removed: one hub has a data directory. */
  static async open(directory: string, bytesMax: number): Promise<StepFiles> {
    await mkdir(directory, { recursive: true, mode: 0o700 });
    for (const name of await readdir(directory))
      if (!isStepName(name)) await rm(join(directory, name), { recursive: true, force: true });
    return new StepFiles(directory, bytesMax);
  }

  /** Where a step is to be made before it is placed. */
  temporary(from: Sha256, to: Sha256): string {
    return join(this.#directory, `${stepName(from, to)}.${this.#mark}.new`);
  }

  async place(from: Sha256, to: Sha256): Promise<void> {
    await rename(this.temporary(from, to), join(this.#directory, stepName(from, to)));
    await this.#collect();
  }

  /** The step, opened for reading, or null. The handle is the caller's to close. */
  async find(from: Sha256, to: Sha256): Promise<StepFile | null> {
    const name = stepName(from, to);
    const path = join(this.#directory, name);
    let handle: FileHandle;
    try {
      handle = await open(path, "r");
    } catch (error) {
      if (systemErrorCode(error) === "ENOENT") return null;
      throw error;
    }
    const size = (await handle.stat()).size - DIGEST_BYTES;
    if (!this.#verified.has(name) && !(await isWhole(handle, size))) {
      await handle.close();
      await rm(path, { force: true });
      return null;
    }
    this.#verified.add(name);
    const now = new Date();
    await utimes(path, now, now).catch(() => {});
    return { handle, size };
  }

  /** The longest unused go first. */
  async #collect(): Promise<void> {
    const files: { path: string; size: number; usedAt: number }[] = [];
    for (const name of await readdir(this.#directory)) {
      const path = join(this.#directory, name);
      const found = await stat(path).catch(() => null);
      if (found !== null && isStepName(name)) files.push({ path, size: found.size, usedAt: found.mtimeMs });
    }
    let total = files.reduce((sum, { size }) => sum + size, 0);
    for (const { path, size } of files.sort((a, b) => a.usedAt - b.usedAt)) {
      if (total <= this.#bytesMax) return;
      await rm(path, { force: true });
      total -= size;
    }
  }
}

const stepName = (from: Sha256, to: Sha256) => `${from}-${to}`;

function isStepName(name: string): boolean {
  const [from, to, ...more] = name.split("-");
  return isSha256(from) && isSha256(to) && more.length === 0;
}

async function isWhole(handle: FileHandle, size: number): Promise<boolean> {
  if (size < 0) return false;
  const hash = createHash("sha256");
  const buffer = Buffer.alloc(READ_BYTES);
  for (let at = 0; at < size; ) {
    const { bytesRead } = await handle.read(buffer, 0, Math.min(READ_BYTES, size - at), at);
    if (bytesRead === 0) return false;
    hash.update(buffer.subarray(0, bytesRead));
    at += bytesRead;
  }
  await handle.read(buffer, 0, DIGEST_BYTES, size);
  return hash.digest().equals(buffer.subarray(0, DIGEST_BYTES));
}
