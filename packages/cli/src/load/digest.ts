import type { Scan, SourceFile } from "./scan.ts";
import { sourceFailure } from "./source-changed.ts";
import type { DigestedFile, WorkFault } from "./work.ts";
import type { WorkerPool } from "./worker-pool.ts";

const BATCH_FILES_MAX = 256;
const BATCH_BYTES_MAX = 8 * 1024 * 1024;

export interface DigestOptions {
  readonly signal: AbortSignal;
  readonly onProgress: (done: { readonly files: number; readonly bytes: number }) => void;
}

/**
 * Digests every file of a scan, in its order. Throws LOAD_SOURCE_UNREADABLE with every file that may not be read, else
 * LOAD_SOURCE_CHANGED with every one that is not what the scan saw, and the signal's reason when it aborts.
 */
export async function digestFiles(
  scan: Scan,
  pool: Pick<WorkerPool, "ordersWanted" | "run">,
  options: DigestOptions,
): Promise<DigestedFile[]> {
  const digested: DigestedFile[] = new Array(scan.files.length);
  const faults: WorkFault[] = [];
  let files = 0;
  let bytes = 0;
  const one = async (start: number, batch: readonly SourceFile[]) => {
    const answer = await pool.run({ kind: "digest", base: scan.base, files: batch });
    if (answer.kind !== "digest") throw new TypeError("an answer to another order");
    faults.push(...answer.faults);
    batch.forEach((file, index) => {
      digested[start + index] = { ...file, sha256: answer.sha256[index] ?? "" };
      bytes += file.size;
    });
    files += batch.length;
    options.onProgress({ files, bytes });
  };
  const running = new Set<Promise<void>>();
  for (const { start, batch } of batches(scan.files, BATCH_FILES_MAX, BATCH_BYTES_MAX)) {
    options.signal.throwIfAborted();
    while (running.size >= pool.ordersWanted) await Promise.race(running);
    const work: Promise<void> = one(start, batch).finally(() => running.delete(work));
    // Looked at together with the others; where the load is stopped before, nobody may call it unhandled.
    work.catch(() => {});
    running.add(work);
  }
  await Promise.all(running);
  options.signal.throwIfAborted();
  if (faults.length > 0) throw sourceFailure(faults);
  return digested;
}

/** Cuts a list into batches of at most so many files and bytes; a larger file makes a batch of its own. */
export function* batches<T extends { readonly size: number }>(
  files: readonly T[],
  filesMax: number,
  bytesMax: number,
): Generator<{ readonly start: number; readonly batch: readonly T[] }, void> {
  let start = 0;
  let bytes = 0;
  for (const [index, file] of files.entries()) {
    if (index > start && (index - start >= filesMax || bytes + file.size > bytesMax)) {
      yield { start, batch: files.slice(start, index) };
      start = index;
      bytes = 0;
    }
    bytes += file.size;
  }
  if (start < files.length) yield { start, batch: files.slice(start) };
}
