import { createHash, randomBytes } from "node:crypto";
import {
  chmodSync,
  closeSync,
  fsyncSync,
  lstatSync,
  mkdirSync,
  openSync,
  readSync,
  renameSync,
  rmSync,
  type Stats,
  writeSync,
} from "node:fs";
import { join, resolve } from "node:path";
import { LockstepError } from "@lockstep/protocol/wire";
import type { WantedFile } from "./wanted.ts";

const BLOCK_BYTES = 1024 * 1024;

/**
 * The directory that an export writes into. Each file is written beside its place, verified, and renamed into it, so
 * that a reader sees the old content or the new one; nothing is ever written through a link that stands below the
 * directory. Files that are equal already are left alone.
 */
export class TargetDirectory {
  readonly #base: string;
  readonly #folders = new Set<string>();

  constructor(directory: string) {
    this.#base = resolve(directory);
    mkdirSync(this.#base, { recursive: true });
  }

  /** Whether the file is there already, with this content; its mode is put right. */
  isEqual(file: WantedFile): boolean {
    const place = join(this.#base, file.path);
    const stat = lstat(place);
    if (stat === null || !stat.isFile() || stat.size !== file.size) return false;
    if (!this.#hasPlainParents(file.path)) return false;
    if (digestFile(place) !== file.sha256) return false;
    if ((stat.mode & 0o777) !== file.mode) chmodSync(place, file.mode);
    return true;
  }

  /** Begins a file; feed it its bytes, then `finish` or `discard`. */
  begin(file: WantedFile): FileWriter {
    this.#makeParents(file.path);
    return new FileWriter(join(this.#base, file.path), file);
  }

  #hasPlainParents(path: string): boolean {
    return parentsOf(path).every((folder) => lstat(join(this.#base, folder))?.isDirectory() === true);
  }

  #makeParents(path: string): void {
    for (const folder of parentsOf(path)) {
      if (this.#folders.has(folder)) continue;
      const place = join(this.#base, folder);
      const stat = lstat(place);
      if (stat === null) mkdirSync(place);
      else if (!stat.isDirectory())
        throw new LockstepError("EXPORT_TARGET_REFUSED", `${place} is in the way: it is not a plain folder`, {
          hint: "Remove it, or export into an empty directory. Links are never followed.",
        });
      this.#folders.add(folder);
    }
  }
}

/** Writes one file beside its place and moves it there once it is whole and right. */
export class FileWriter {
  readonly #place: string;
  readonly #temporary: string;
  readonly #file: WantedFile;
  readonly #hasher = createHash("sha256");
  readonly #fd: number;
  #size = 0;

  constructor(place: string, file: WantedFile) {
    this.#place = place;
    this.#file = file;
    this.#temporary = `${place.slice(0, place.length - basenameLength(place))}.lockstep-${randomBytes(6).toString("hex")}.tmp`;
    this.#fd = openSync(this.#temporary, "wx", 0o600);
  }

  write(bytes: Uint8Array): void {
    this.#size += bytes.length;
    this.#hasher.update(bytes);
    for (let at = 0; at < bytes.length; ) at += writeSync(this.#fd, bytes, at);
  }

  /** Verifies and moves the file into its place. Throws CONTENT_MISMATCH, and then nothing is left of it. */
  finish(): void {
    const found = this.#hasher.digest("hex");
    if (this.#size !== this.#file.size || found !== this.#file.sha256) {
      this.discard();
      throw new LockstepError("CONTENT_MISMATCH", `the hub sent other bytes for ${this.#file.path}`, {
        expected: this.#file.sha256,
        found,
        hint: "The file was not written. A proxy between may have altered the answer; look at the hub's log.",
      });
    }
    fsyncSync(this.#fd);
    closeSync(this.#fd);
    chmodSync(this.#temporary, this.#file.mode);
    renameSync(this.#temporary, this.#place);
  }

  discard(): void {
    closeSync(this.#fd);
    rmSync(this.#temporary, { force: true });
  }
}

function basenameLength(place: string): number {
  return place.length - Math.max(place.lastIndexOf("/"), place.lastIndexOf("\\")) - 1;
}

function parentsOf(path: string): string[] {
  const names = path.split("/").slice(0, -1);
  return names.map((_, index) => names.slice(0, index + 1).join("/"));
}

function lstat(place: string): Stats | null {
  return lstatSync(place, { throwIfNoEntry: false }) ?? null;
}

function digestFile(place: string): string {
  const hasher = createHash("sha256");
  const block = Buffer.allocUnsafe(BLOCK_BYTES);
  const fd = openSync(place, "r");
  try {
    for (let got = readSync(fd, block); got > 0; got = readSync(fd, block))
      hasher.update(block.subarray(0, got));
  } finally {
    closeSync(fd);
  }
  return hasher.digest("hex");
}
