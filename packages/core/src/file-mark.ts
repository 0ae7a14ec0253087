/**
 * By what a file is known again, across renames and restarts: its number on the file system, its size and the time of its
 * last modification, as one short text.
 *
 * A rename leaves all three alone. Where a file's number depends on its name (FAT), size and time still tell; a file that
 * somebody wrote to meanwhile keeps its number. Times of access, modes and link counts are left out: what we do ourselves
 * changes them.
 */
export type FileMark = string;

const PATTERN = /^[0-9a-z]{1,13}\.[0-9a-z]{1,11}\.-?[0-9a-z]{1,14}$/;
const RADIX = 36;

/** The mark of what a look at a file gave. */
export function markOf(look: {
  readonly ino: bigint;
  readonly size: number;
  readonly mtimeNs: bigint;
}): FileMark {
  return `${look.ino.toString(RADIX)}.${look.size.toString(RADIX)}.${look.mtimeNs.toString(RADIX)}`;
}

export function isFileMark(value: unknown): value is FileMark {
  return typeof value === "string" && PATTERN.test(value);
}

/** Whether two marks can be those of one file: the same number, or the same size and time. */
export function mayBeSame(a: FileMark, b: FileMark): boolean {
  const numberEnd = (mark: FileMark) => mark.indexOf(".");
  return (
    a.slice(0, numberEnd(a)) === b.slice(0, numberEnd(b)) || a.slice(numberEnd(a)) === b.slice(numberEnd(b))
  );
}
