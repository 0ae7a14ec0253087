import { systemErrorCode } from "@lockstep/platform";
import type { LogFiles } from "./files.ts";

/**
 * Makes room for a new log: `log` becomes `log.1`, `log.1` becomes `log.2` and so on, and the oldest goes.
 *
 * Done naively, a crash in the middle costs a file: the next rotation renames one backup over another. So files only
 * move where nothing is: those before the first gap move up by one, from the top, and a gap that a crash left is simply
 * the first to be filled. No name is ever written over, which also keeps a second process that writes the same log from
 * doing harm: `link` refuses an existing name, where `rename` would replace it. A crash between `link` and `unlink`
 * leaves one file under two names. That costs a place in the history and no line, so nobody tries to mend it: whoever
 * saw two names while another process is in the middle of a move would delete the file by taking one away.
 *
 * Throws what the system throws; whatever was done until then has lost nothing.
 */
export async function rotate(files: LogFiles, path: string, historySize: number): Promise<void> {
  const gap = await findGap(files, path, historySize);
  if (gap > historySize) await files.unlink(backupName(path, historySize));
  for (let number = Math.min(gap, historySize); number > 0; number--)
    await move(files, backupName(path, number - 1), backupName(path, number));
  if (historySize === 0) await unlinkIfThere(files, path);
  await dropBeyond(files, path, historySize);
}

/** `log`, `log.1`, `log.2`: the higher the older. */
export function backupName(path: string, number: number): string {
  return number === 0 ? path : `${path}.${number}`;
}

/** The smallest backup that is not there; historySize + 1 when all are. */
async function findGap(files: LogFiles, path: string, historySize: number): Promise<number> {
  for (let number = 1; number <= historySize; number++)
    if ((await files.identify(backupName(path, number))) === null) return number;
  return historySize + 1;
}

/** To a free name only. A file system without second names has to be trusted that nobody else is at work. */
async function move(files: LogFiles, from: string, to: string): Promise<void> {
  try {
    await files.link(from, to);
  } catch (error) {
    if (isCode(error, "ENOENT") || isCode(error, "EEXIST")) throw error;
    await files.rename(from, to);
    return;
  }
  await files.unlink(from);
}

/** Backups that a larger history left behind. */
async function dropBeyond(files: LogFiles, path: string, historySize: number): Promise<void> {
  for (let number = Math.max(historySize, 0) + 1; ; number++) {
    if ((await files.identify(backupName(path, number))) === null) return;
    await files.unlink(backupName(path, number));
  }
}

async function unlinkIfThere(files: LogFiles, path: string): Promise<void> {
  if ((await files.identify(path)) !== null) await files.unlink(path);
}

function isCode(error: unknown, code: string): boolean {
  return systemErrorCode(error) === code;
}
