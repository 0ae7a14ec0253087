import { readdir, rmdir, stat, unlink } from "node:fs/promises";
import { join } from "node:path";
import { isQuietStepsName } from "./quiet-steps.ts";

const NAME = /^Job_\d+_\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d-\d{3}\.log$/;

/**
 * Deletes the logs of single steps that were last written before `beforeMs`, and directories that became empty. Only
 * names that the service itself gives are touched. Returns how many files went; never throws: what cannot be deleted
 * now is tried again the next time.
 */
export async function deleteOldStepLogs(directory: string, beforeMs: number): Promise<number> {
  let count = 0;
  for (const group of await list(directory)) {
    if (isQuietStepsName(group)) {
      const path = join(directory, group);
      if ((await isOlder(path, beforeMs)) && (await succeeds(unlink(path)))) count++;
    }
    if (!/^\d{1,4}$/.test(group)) continue;
    for (const name of await list(join(directory, group))) {
      const path = join(directory, group, name);
      if (NAME.test(name) && (await isOlder(path, beforeMs)) && (await succeeds(unlink(path)))) count++;
    }
    // Refused while something is in it, which is right.
    await succeeds(rmdir(join(directory, group)));
  }
  return count;
}

async function list(directory: string): Promise<string[]> {
  try {
    return await readdir(directory);
  } catch {
    return [];
  }
}

async function isOlder(path: string, beforeMs: number): Promise<boolean> {
  try {
    return (await stat(path)).mtimeMs < beforeMs;
  } catch {
    return false;
  }
}

async function succeeds(work: Promise<unknown>): Promise<boolean> {
  try {
    await work;
    return true;
  } catch {
    return false;
  }
}
