import { createHash } from "node:crypto";
import { closeSync, mkdtempSync, openSync, read, rmSync, write } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { promisify } from "node:util";
import { createZstdCompress, constants as zlibConstants } from "node:zlib";
import type { UploadContent } from "@lockstep/client";
import {
  compress,
  type DigestedFile,
  giveBack,
  isSameSource,
  openSource,
  SourceChanged,
  ZSTD_LEVEL,
} from "./work.ts";

/**
 * A file too large to be held in memory, made ready for the journey.
 *
 * A content says before its first byte how long it is as it travels, and how long the compressed form is nobody knows
 * before its last. So it is compressed into a temporary file that has no name any more (whatever ends us, nothing is
 * left behind), unless a sample says that compressing is in vain: then it travels as it is, straight from its place. The sample
 * is of places all over the file: an image of a disk or a bundle may begin with what is compressed already, and be text behind it.
 */
const SAMPLE_PLACES = 16;
const PLACE_BYTES = 64 * 1024;
/** Compressing must save at least this part of the sample to be worth the detour. */
const SAVING_MIN = 0.03;
const CHUNK_BYTES = 256 * 1024;

const readAt = promisify(read);
const writeAt = promisify(write);

/** Makes a content of a large file. `dispose` gives back what it holds; call it when the content was sent. */
export async function largeContent(
  base: string,
  file: DigestedFile,
  signal: AbortSignal,
): Promise<{ readonly content: UploadContent; readonly dispose: () => void }> {
  const fd = openSource(base, file);
  try {
    if (!isSameSource(fd, file)) throw new SourceChanged();
    const spool = (await savesSpace(fd, file.size)) ? await spoolCompressed(fd, file, signal) : null;
    if (spool !== null && spool.stored < file.size) {
      closeSync(fd);
      const header = {
        sha256: file.sha256,
        encoding: "zstd",
        size: file.size,
        stored: spool.stored,
      } as const;
      return { content: { header, bytes: readAll(spool.fd) }, dispose: () => closeSync(spool.fd) };
    }
    if (spool !== null) closeSync(spool.fd);
    const header = { sha256: file.sha256, encoding: "identity", size: file.size, stored: file.size } as const;
    return { content: { header, bytes: readVerified(fd, file) }, dispose: () => closeSync(fd) };
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

async function savesSpace(fd: number, size: number): Promise<boolean> {
  const sample = Buffer.allocUnsafe(SAMPLE_PLACES * PLACE_BYTES);
  const last = Math.max(0, size - PLACE_BYTES);
  let length = 0;
  for (let place = 0; place < SAMPLE_PLACES; place++) {
    const at = Math.floor((last * place) / (SAMPLE_PLACES - 1));
    length += (await readAt(fd, sample, length, PLACE_BYTES, at)).bytesRead;
  }
  return compress(sample.subarray(0, length)).length < length * (1 - SAVING_MIN);
}

async function spoolCompressed(
  fd: number,
  file: DigestedFile,
  signal: AbortSignal,
): Promise<{ readonly fd: number; readonly stored: number }> {
  const spool = openNameless();
  try {
    let stored = 0;
    const zstd = createZstdCompress({
      chunkSize: CHUNK_BYTES,
      pledgedSrcSize: file.size,
      params: {
        [zlibConstants.ZSTD_c_compressionLevel]: ZSTD_LEVEL,
        [zlibConstants.ZSTD_c_contentSizeFlag]: 1,
      },
    });
    const keep = async (compressed: AsyncIterable<Buffer>) => {
      for await (const chunk of compressed)
        for (let at = 0; at < chunk.length; ) {
          const { bytesWritten } = await writeAt(spool, chunk, at, chunk.length - at, stored);
          at += bytesWritten;
          stored += bytesWritten;
          // A full piece has its memory for itself: for what follows the compressor has taken new one.
          if (at === CHUNK_BYTES) giveBack(chunk, CHUNK_BYTES);
        }
    };
    await pipeline(readVerified(fd, file), zstd, keep, { signal });
    return { fd: spool, stored };
  } catch (error) {
    closeSync(spool);
    throw signal.aborted ? signal.reason : error;
  }
}

/** The whole file, which must turn out to be the one that was digested. */
async function* readVerified(fd: number, file: DigestedFile): AsyncGenerator<Buffer, void> {
  const hasher = createHash("sha256");
  let size = 0;
  for await (const chunk of readAll(fd)) {
    size += chunk.length;
    if (size > file.size) break;
    hasher.update(chunk);
    // The last bytes only once all of them are known to be right, so that a wrong content never ends.
    if (size === file.size && hasher.copy().digest("hex") !== file.sha256) throw new SourceChanged();
    yield chunk;
  }
  if (size !== file.size) throw new SourceChanged();
}

/**
 * All bytes of a file, piece by piece; the next one comes in the memory of the one before. Not a stream of Node: ending one
 * of those early closes the file, which is ours to close.
 */
async function* readAll(fd: number): AsyncGenerator<Buffer, void> {
  const buffer = Buffer.allocUnsafeSlow(CHUNK_BYTES);
  for (let at = 0; ; ) {
    const { bytesRead } = await readAt(fd, buffer, 0, CHUNK_BYTES, at);
    if (bytesRead === 0) return;
    at += bytesRead;
    yield buffer.subarray(0, bytesRead);
  }
}

function openNameless(): number {
  const directory = mkdtempSync(join(tmpdir(), "lockstep-load-"));
  try {
    return openSync(join(directory, "content"), "wx+", 0o600);
  } finally {
    // Elsewhere than on Windows the file lives on without its name until it is closed.
    rmSync(directory, { recursive: true, force: true });
  }
}
