/**
 * One hub per data directory. The lock is the operating system's (the file lock that SQLite takes on the lock file), so
 * it ends with the process, however that ends: there is nothing stale to judge, and no moment in which two can have it.
 * Who holds it stands in a file beside it, for the error message only.
 */
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { LockstepError } from "@lockstep/protocol";

export interface DataLock {
  release(): void;
}

/** Takes the lock. Throws HUB_ALREADY_RUNNING with the process id of who has it. */
export async function lockDataDirectory(directory: string): Promise<DataLock> {
  const holder = join(directory, "hub.pid");
  const lock = new DatabaseSync(join(directory, "hub.lock"));
  try {
    lock.exec("pragma busy_timeout = 0; pragma locking_mode = exclusive; pragma journal_mode = memory");
    lock.exec("begin exclusive");
  } catch (error) {
    lock.close();
    if (!(error instanceof Error) || !/locked|busy/.test(error.message)) throw error;
    const pid = (await readFile(holder, "utf8").catch(() => "")).trim();
    throw new LockstepError("HUB_ALREADY_RUNNING", "another hub uses this data directory", {
      found: pid === "" ? directory : `process ${pid}`,
      hint: "stop that hub first, or give this one a data directory of its own",
      cause: error,
    });
  }
  await writeFile(holder, `${process.pid}\n`, { mode: 0o600 });
  return { release: () => lock.close() };
}
