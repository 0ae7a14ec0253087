import { createHash } from "node:crypto";
import { closeSync, ftruncateSync, openSync, readSync, renameSync, rmSync, writeSync } from "node:fs";
import { setImmediate as nextTurn } from "node:timers/promises";
import { constants, createZstdDecompress } from "node:zlib";
import { type ContentEncoding, isLockstepError } from "@lockstep/protocol/wire";
import { mismatch } from "./content-bundle.ts";
import { Persistence } from "./content-retry.ts";
import type { StagingTask, StagingTotals, WantedContent } from "./contents.ts";
import { throwIfInterrupted } from "./interruption.ts";
import { guarded, ioFailure } from "./io-failure.ts";

/**
 * Large contents, one request each, resumed wherever they were cut, by this process or by another one.
 *
 * The bytes are kept as they travel (compressed where the hub has them compressed), because only then can a cut at any
 * byte go on at that byte; they are decoded, capped and verified when they are all here. What turns out wrong after a
 * resumption is fetched once more from the beginning, since the remains of the earlier try may be to blame; what is
 * wrong then is the hub's.
 */
/** At most: each holds two buffers. */
export const LARGE_AT_ONCE = 2;
const READ_BYTES = 512 * 1024;
/** Memory that a frame may ask of its reader: 2^23 bytes. Ours need 2 MiB. */
const WINDOW_LOG_MAX = 23;

/** Fetches the contents, `atOnce` at a time. `done` is called for each that stands in its first place. */
export async function fetchLarge(
  task: StagingTask,
  contents: readonly WantedContent[],
  totals: StagingTotals,
  done: (content: WantedContent) => void,
  atOnce = LARGE_AT_ONCE,
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
  const outcomes = await Promise.allSettled(Array.from({ length: atOnce }, run));
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
    // The beginning may be the relay's, and the end the hub's.
    const mixed = task.client.leaveRelay(error) || task.client.relayRemarks.length > 0 || resumed;
    if (!isLockstepError(error, "CONTENT_MISMATCH") || !mixed) throw error;
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
  const persistence = new Persistence(task.clock, task.signal, task.client);
  const here = () => task.partial.travelling(content.sha256)?.offset ?? 0;
  let most = here();
  while (true) {
    throwIfInterrupted(task.signal);
    try {
      return await downloadOnce(task, content, totals, told);
    } catch (error) {
      // Bytes that were here before are none: a hub that always begins anew would go on for ever.
      if (here() > most) persistence.progress();
      most = Math.max(most, here());
      if (isLockstepError(error, "CONTENT_MISMATCH")) task.partial.drop(content.sha256);
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
  guarded(place, "writing", () => rmSync(place, { force: true }));
  // What came as it is needs no second copy: it is read, and moved.
  const sink = new VerifyingSink(content, encoding === "identity" ? null : place);
  try {
    const decoder = encoding === "identity" ? null : new FrameDecoder(sink);
    for await (const piece of pieces(from)) {
      throwIfInterrupted(task.signal);
      if (decoder === null) sink.take(piece);
      else await decoder.take(piece);
    }
    await decoder?.end();
    sink.demand();
  } catch (error) {
    sink.close();
    rmSync(place, { force: true });
    throw ioFailure(error, place, "writing");
  }
  // First, so that whoever is killed now leaves it where the next run looks.
  task.partial.noteStaged(content.sha256, place);
  task.partial.flush();
  guarded(place, "writing", () => {
    sink.close();
    if (encoding === "identity") renameSync(from, place);
    else rmSync(from, { force: true });
  });
}

/** The bytes of a file, in one buffer that is used again for each piece. */
async function* pieces(path: string): AsyncGenerator<Buffer, void> {
  const buffer = Buffer.allocUnsafeSlow(READ_BYTES);
  const file = openSync(path, "r");
  try {
    let position = 0;
    for (let read = readSync(file, buffer, 0, READ_BYTES, position); read > 0; ) {
      yield buffer.subarray(0, read);
      position += read;
      // Lets the other transfers get on.
      await nextTurn();
      read = readSync(file, buffer, 0, READ_BYTES, position);
    }
  } finally {
    closeSync(file);
  }
}

/** Decodes a frame piece by piece; each piece may be used again when `take` is done. */
class FrameDecoder {
  readonly #content: WantedContent;
  readonly #decoder = createZstdDecompress({
    chunkSize: READ_BYTES,
    params: { [constants.ZSTD_d_windowLogMax]: WINDOW_LOG_MAX },
  });
  #failure: { readonly error: unknown } | null = null;

  constructor(sink: VerifyingSink) {
    this.#content = sink.content;
    this.#decoder.on("data", (chunk: Buffer) => {
      try {
        sink.take(chunk);
      } catch (error) {
        this.#failure ??= { error };
      }
      giveBack(chunk);
    });
    this.#decoder.on("error", (cause) => {
      this.#failure ??= { error: mismatch(this.#content.sha256, "a whole content", "a broken frame", cause) };
    });
  }

  async take(piece: Buffer): Promise<void> {
    await new Promise<void>((resolve) => {
      // A decoder that meets a broken frame closes, and never answers the write.
      this.#decoder.once("close", resolve);
      this.#decoder.write(piece, () => {
        this.#decoder.off("close", resolve);
        resolve();
      });
    });
    if (this.#failure !== null) throw this.#failure.error;
  }

  async end(): Promise<void> {
    await new Promise<void>((resolve) => {
      if (this.#decoder.closed) resolve();
      this.#decoder.once("close", resolve);
      this.#decoder.end();
    });
    if (this.#failure !== null) throw this.#failure.error;
  }
}

/**
 * Frees the memory of decoded bytes at once; the collector would let some 60 MiB of it pile up. The decoder fills one
 * buffer with several chunks in a row, so only the last one of a buffer may do that.
 */
function giveBack(chunk: Buffer): void {
  const { buffer } = chunk;
  const isLast = chunk.byteOffset + chunk.length === buffer.byteLength;
  // Node's own pool may not be detached; what a decoder allocates is of the size that we asked for.
  if (isLast && buffer instanceof ArrayBuffer && buffer.byteLength === READ_BYTES) buffer.transfer(0);
}

/** Takes decoded bytes, writes them if there is a place to, and never more than were promised. */
class VerifyingSink {
  readonly content: WantedContent;
  readonly #hash = createHash("sha256");
  #file: number | null;
  #length = 0;

  constructor(content: WantedContent, target: string | null) {
    this.content = content;
    this.#file =
      target === null ? null : guarded(target, "making", () => openSync(target, "wx", content.mode | 0o200));
  }

  take(chunk: Buffer): void {
    this.#length += chunk.length;
    if (this.#length > this.content.size)
      throw mismatch(this.content.sha256, `${this.content.size} bytes`, "more bytes");
    this.#hash.update(chunk);
    for (let written = 0; this.#file !== null && written < chunk.length; )
      written += writeSync(this.#file, chunk, written);
  }

  close(): void {
    if (this.#file !== null) closeSync(this.#file);
    this.#file = null;
  }

  /** Throws CONTENT_MISMATCH unless exactly the promised bytes came. */
  demand(): void {
    const { sha256, size } = this.content;
    if (this.#length !== size) throw mismatch(sha256, `${size} bytes`, `${this.#length} bytes`);
    const found = this.#hash.digest("hex");
    if (found !== sha256) throw mismatch(sha256, sha256, found);
  }
}
