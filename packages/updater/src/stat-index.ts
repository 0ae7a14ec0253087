import { hash } from "node:crypto";
import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { FILES_LINE } from "@lockstep/core";
import { type InstallationPaths, PRIVATE_MODE } from "./layout.ts";

/**
 * The stat cache: what the system said of each installed file when its content was last known for certain.
 *
 * While size, modification time, change time and inode are all as they were, the content is the recorded one and nobody
 * opens the file. The change time cannot be set by a program, so an editor that puts the modification time back is found.
 * One trap is known from version control: a file that changes twice within one tick of the file system's clock looks
 * unchanged. So an entry whose change time is not safely older than the moment of looking is not remembered at all;
 * such a file is read once more, and remembered then.
 *
 * The cache is bound to the list of files that it speaks of. Without it, or with one that does not fit, everything is
 * looked at anew: it can be deleted at any time. Times are kept as numbers of milliseconds, exact to a quarter of a
 * microsecond, which is finer than any file system ticks.
 */
export interface SeenStat {
  readonly size: number;
  readonly mtimeMs: number;
  readonly ctimeMs: number;
  readonly ino: number;
}

const MAGIC = "LSINDEX2";
const FIELDS = 4;
/** Linux counts change times in ticks of at most 10 ms. */
const TICK_MS = 20;
/** File systems without fractions of a second: FAT counts in steps of two seconds. */
const COARSE_TICK_MS = 2000;

/** Whether a look at `at` can tell for certain that nothing changed since the change time it saw. */
export function isSettled(stat: SeenStat, at: number): boolean {
  const tick = Number.isInteger(stat.ctimeMs / 1000) ? COARSE_TICK_MS : TICK_MS;
  return stat.ctimeMs < at - tick;
}

/** The remembered values of a list of files, by position. */
export class StatIndex {
  readonly #values: Float64Array;

  private constructor(values: Float64Array) {
    this.#values = values;
  }

  static empty(files: number): StatIndex {
    return new StatIndex(new Float64Array(files * FIELDS).fill(Number.NaN));
  }

  /** Reads the cache of the list of so many files; an empty one when there is none or it belongs to another list. */
  static read(path: string, files: number, list: ListDigest): StatIndex {
    let bytes: Buffer;
    try {
      bytes = readFileSync(path);
    } catch {
      return StatIndex.empty(files);
    }
    const expected = header(list);
    const length = expected.length + files * FIELDS * 8;
    if (bytes.length !== length || !bytes.subarray(0, expected.length).equals(expected))
      return StatIndex.empty(files);
    const values = new Float64Array(files * FIELDS);
    Buffer.from(values.buffer).set(bytes.subarray(expected.length));
    return new StatIndex(values);
  }

  /** Whether file number `position` looks as it did when its content was known. */
  matches(position: number, stat: SeenStat): boolean {
    const at = position * FIELDS;
    return (
      this.#values[at] === stat.size &&
      this.#values[at + 1] === stat.mtimeMs &&
      this.#values[at + 2] === stat.ctimeMs &&
      this.#values[at + 3] === stat.ino
    );
  }

  /** Remembers a look, or forgets the file (null). `at` is when the look began, milliseconds since 1970. */
  set(position: number, stat: SeenStat | null, at: number): void {
    const known = stat !== null && isSettled(stat, at);
    this.#values.set(
      known
        ? [stat.size, stat.mtimeMs, stat.ctimeMs, stat.ino]
        : [Number.NaN, Number.NaN, Number.NaN, Number.NaN],
      position * FIELDS,
    );
  }

  /** Takes over what another cache knows of one of its files. */
  copy(position: number, from: StatIndex, fromPosition: number): void {
    const start = fromPosition * FIELDS;
    this.#values.set(from.#values.subarray(start, start + FIELDS), position * FIELDS);
  }

  /** The file's bytes, for the same list of files. */
  format(list: ListDigest): Buffer {
    return Buffer.concat([header(list), Buffer.from(this.#values.buffer)]);
  }
}

/** Names a list of files: a digest of the rows of InstallState.config. */
export type ListDigest = Buffer;

/** The digest of the list in the text of an InstallState.config. What stands before the list does not matter. */
export function digestList(stateText: string): ListDigest {
  const start = stateText.indexOf(FILES_LINE);
  return hash("sha256", stateText.slice(Math.max(start, 0)), "buffer");
}

function header(list: ListDigest): Buffer {
  return Buffer.concat([Buffer.from(MAGIC, "latin1"), list]);
}

/** Puts a cache in place. It only saves time, so where it cannot be written there is none. */
export function writeIndexFile(paths: InstallationPaths, bytes: Uint8Array): void {
  const temporary = `${paths.index}.new`;
  try {
    mkdirSync(paths.privateDirectory, { recursive: true, mode: PRIVATE_MODE });
    writeFileSync(temporary, bytes, { mode: 0o600 });
    renameSync(temporary, paths.index);
  } catch {
    try {
      rmSync(temporary, { force: true });
    } catch {
      // Nor may this user remove anything there: then nothing was written either.
    }
  }
}
