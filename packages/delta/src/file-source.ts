import { closeSync, openSync, readSync } from "node:fs";
import { type ByteSource, brokenDelta } from "./delta-format.ts";

/**
 * Files that are read by position, many of them, in little memory.
 *
 * A step may build on more files than a process may hold open, and takes some of them in a hundred thousand small
 * stretches. So the files used last stay open, and each reads a little ahead into memory of its own, which is used again
 * and again: memory that is made anew for each read is only given back when the collector comes by.
 */
export class FileSources {
  readonly #open: (path: string) => number;
  /** Those that are open; the longest unused come first. */
  readonly #opened = new Set<FileSource>();

  /** `open` opens a file for reading, and may throw what it likes. */
  constructor(open: (path: string) => number = (path) => openSync(path, "r")) {
    this.#open = open;
  }

  /** A file of `size` bytes. It is opened when it is read; a read throws DELTA_INVALID when it has become shorter. */
  source(path: string, size: number): ByteSource {
    return new FileSource(size, this.#opened, () => this.#open(path));
  }

  /** Closes them all. A source that is read afterwards opens its file again. */
  close(): void {
    for (const source of this.#opened) source.close();
  }
}

const OPEN_MAX = 64;
/** A stretch behind the last one is most often near it; more would be read in vain where they lie scattered. */
const AHEAD_BYTES = 16 * 1024;
/** Memory above this is not kept. */
const KEPT_BYTES_MAX = 1024 * 1024;

class FileSource implements ByteSource {
  readonly size: number;
  readonly #opened: Set<FileSource>;
  readonly #open: () => number;
  #file: number | null = null;
  #kept = new Uint8Array(0);
  /** What of the file is in memory. */
  #start = 0;
  #length = 0;

  constructor(size: number, opened: Set<FileSource>, open: () => number) {
    this.size = size;
    this.#opened = opened;
    this.#open = open;
  }

  read(position: number, length: number): Uint8Array {
    if (length > KEPT_BYTES_MAX) return this.#fill(new Uint8Array(length), position);
    if (position < this.#start || position + length > this.#start + this.#length)
      this.#keep(position, length);
    const from = position - this.#start;
    return this.#kept.subarray(from, from + length);
  }

  close(): void {
    if (this.#file !== null) closeSync(this.#file);
    this.#file = null;
    this.#length = 0;
    this.#kept = new Uint8Array(0);
    this.#opened.delete(this);
  }

  #keep(position: number, length: number): void {
    const count = Math.max(length, Math.min(AHEAD_BYTES, this.size - position));
    this.#length = 0;
    if (this.#kept.length < count) this.#kept = new Uint8Array(count);
    this.#fill(this.#kept.subarray(0, count), position);
    this.#start = position;
    this.#length = count;
  }

  #fill(bytes: Uint8Array, position: number): Uint8Array {
    const file = this.#use();
    for (let done = 0; done < bytes.length; ) {
      const count = readSync(file, bytes, done, bytes.length - done, position + done);
      if (count === 0) throw brokenDelta("a file became shorter while it was read");
      done += count;
    }
    return bytes;
  }

  /** Its file, open, as the one that was used last. */
  #use(): number {
    this.#opened.delete(this);
    this.#file ??= this.#begin();
    this.#opened.add(this);
    return this.#file;
  }

  #begin(): number {
    const [oldest] = this.#opened;
    if (oldest !== undefined && this.#opened.size >= OPEN_MAX) oldest.close();
    return this.#open();
  }
}
