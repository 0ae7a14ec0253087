import { createHash } from "node:crypto";
import { closeSync, createReadStream, ftruncateSync, openSync, renameSync, rmSync, writeSync } from "node:fs";
import { Writable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { constants, createZstdDecompress } from "node:zlib";
import { type ContentEncoding, isLockstepError } from "@lockstep/protocol/wire";
import { mismatch } from "./content-bundle.ts";
import { Persistence } from "./content-retry.ts";
import type { StagingTask, StagingTotals, WantedContent } from "./contents.ts";
import { interruptedError, throwIfInterrupted } from "./interruption.ts";
import { errnoOf, ioFailure } from "./io-failure.ts";

/**
 * Large contents, one request each, resumed wherever they were cut, by this process or by another one.
 *
 * The bytes are kept as they travel (compressed where the hub has them compressed), because only then can a cut at any
 * byte go on at that byte; they are decoded, capped and verified when they are all here. What turns out wrong after a
 * resumption is fetched once more from the beginning, since the remains of the earlier try may be to blame; what is
 * wrong then is the hub's.
 */
const AT_ONCE = 2;
const READ_BYTES = 512 * 1024;
/** Memory that a frame may ask of its reader: 2^23 bytes. Ours need 2 MiB. */
const WINDOW_LOG_MAX = 23;

/** Fetches the contents, two at a time. `done` is called for each that stands in its first place. */
export async function fetchLarge(
  task: StagingTask,
  contents: readonly WantedContent[],
  totals: StagingTotals,
  done: (content: WantedContent) => void,
): Promise<void> {
  const queue = [...contents];
  let failed = false;
  const run = async () => {
    for (let next = queue.shift(); next !== undefined && !failed; next = queue.shift()) {
      try {
        await fetchOne(task, next, totals);
        done(next);
      } catch (error) {
        failed = true;
        throw error;
      }
    }
  };
  const outcomes = await Promise.allSettled(Array.from({ length: AT_ONCE }, run));
  for (const outcome of outcomes) if (outcome.status === "rejected") throw outcome.reason;
}

async function fetchOne(task: StagingTask, content: WantedContent, totals: StagingTotals): Promise<void> {
  const told = { bytes: 0 };
  const resumed = task.partial.travelling(content.sha256) !== null;
  const encoding = await download(task, content, totals, told);
  try {
    await unpack(task, content, encoding);
  } catch (error) {
    task.partial.drop(content.sha256);
    if (!resumed || !isLockstepError(error, "CONTENT_MISMATCH")) throw error;
    await unpack(task, content, await download(task, content, totals, told));
  }
  task.meter.add(1, content.size - told.bytes);
}

/** Brings all bytes here, over any number of tries. Returns the encoding in which they are. */
async function download(
  task: StagingTask,
  content: WantedContent,
  totals: StagingTotals,
  told: { bytes: number },
): Promise<ContentEncoding> {
  const persistence = new Persistence(task.clock, task.signal);
  while (true) {
    throwIfInterrupted(task.signal);
    const before = totals.receivedBytes;
    try {
      return await downloadOnce(task, content, totals, told);
    } catch (error) {
      if (totals.receivedBytes > before) persistence.progress();
      await persistence.after(error);
    }
  }
}

async function downloadOnce(
  task: StagingTask,
  content: WantedContent,
  totals: StagingTotals,
  told: { bytes: number },
): Promise<ContentEncoding> {
  const resume = task.partial.travelling(content.sha256);
  totals.requests++;
  const answer = await task.client.content(content.sha256, {
    signal: task.signal,
    ...(resume === null ? {} : { resume }),
  });
  const { encoding, offset, total, chunks } = answer;
  // No frame of ours is longer than its content but by a little; more than that is a flood.
  const storedMax = content.size + Math.ceil(content.size / 128) + 1024;
  if (total !== null && total > storedMax)
    throw mismatch(content.sha256, `at most ${storedMax} bytes`, `${total} bytes`);
  if (resume !== null && resume.encoding !== encoding) task.partial.drop(content.sha256);
  const path = task.partial.travellingPath(content.sha256, encoding);
  let position = offset;
  const tell = () => {
    const share = Math.min(1, position / (total ?? storedMax));
    const bytes = Math.floor(share * content.size);
    if (bytes > told.bytes) task.meter.add(0, bytes - told.bytes);
    told.bytes = Math.max(told.bytes, bytes);
  };
  let descriptor: number | null = null;
  try {
    descriptor = openSync(path, "a", 0o600);
    ftruncateSync(descriptor, offset);
    for await (const chunk of chunks) {
      totals.receivedBytes += chunk.length;
      if (position + chunk.length > storedMax)
        throw mismatch(content.sha256, `at most ${storedMax} bytes`, "more than that");
      writeSync(descriptor, chunk);
      position += chunk.length;
      tell();
    }
  } catch (error) {
    throw ioFailure(error, path, "writing");
  } finally {
    if (descriptor !== null) closeSync(descriptor);
  }
  return encoding;
}

/** Decodes, verifies and stages what has come. Throws CONTENT_MISMATCH. */
async function unpack(task: StagingTask, content: WantedContent, encoding: ContentEncoding): Promise<void> {
  const from = task.partial.travellingPath(content.sha256, encoding);
  const [place] = content.places;
  if (place === undefined) return;
  rmSync(place, { force: true });
  // What came as it is needs no second copy: it is read, and moved.
  const target = encoding === "identity" ? null : place;
  const sink = new VerifyingSink(content, target);
  const source = createReadStream(from, { highWaterMark: READ_BYTES });
  const signal = task.signal === undefined ? {} : { signal: task.signal };
  try {
    if (encoding === "identity") await pipeline(source, sink, signal);
    else {
      const decoder = createZstdDecompress({
        chunkSize: READ_BYTES,
        params: { [constants.ZSTD_d_windowLogMax]: WINDOW_LOG_MAX },
      });
      await pipeline(source, decoder, sink, signal);
    }
    sink.demand();
  } catch (error) {
    rmSync(place, { force: true });
    if (task.signal?.aborted) throw interruptedError(task.signal);
    const known = isLockstepError(error) || errnoOf(error) !== null;
    throw known
      ? ioFailure(error, place, "writing")
      : mismatch(content.sha256, "a whole content", "a broken frame", error);
  }
  if (encoding === "identity") renameSync(from, place);
  else rmSync(from, { force: true });
  task.partial.noteStaged(content.sha256, place);
}

/** Takes decoded bytes, writes them if there is a place to, and never more than were promised. */
class VerifyingSink extends Writable {
  readonly #content: WantedContent;
  readonly #hash = createHash("sha256");
  #descriptor: number | null;
  #length = 0;

  constructor(content: WantedContent, target: string | null) {
    super({ highWaterMark: READ_BYTES });
    this.#content = content;
    this.#descriptor = target === null ? null : openSync(target, "wx", 0o600);
  }

  override _write(chunk: Buffer, _encoding: string, callback: (error?: Error | null) => void): void {
    try {
      this.#length += chunk.length;
      if (this.#length > this.#content.size)
        throw mismatch(this.#content.sha256, `${this.#content.size} bytes`, "more bytes");
      this.#hash.update(chunk);
      for (let written = 0; this.#descriptor !== null && written < chunk.length; )
        written += writeSync(this.#descriptor, chunk, written);
      callback();
    } catch (error) {
      callback(error instanceof Error ? error : new Error(String(error)));
    }
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    if (this.#descriptor !== null) closeSync(this.#descriptor);
    this.#descriptor = null;
    callback(error);
  }

  override _final(callback: (error?: Error | null) => void): void {
    if (this.#descriptor !== null) closeSync(this.#descriptor);
    this.#descriptor = null;
    callback();
  }

  /** Throws CONTENT_MISMATCH unless exactly the promised bytes came. */
  demand(): void {
    const { sha256, size } = this.#content;
    if (this.#length !== size) throw mismatch(sha256, `${size} bytes`, `${this.#length} bytes`);
    const found = this.#hash.digest("hex");
    if (found !== sha256) throw mismatch(sha256, sha256, found);
  }
}
