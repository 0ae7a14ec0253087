import { createHash } from "node:crypto";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { createZstdDecompress, zstdDecompressSync } from "node:zlib";
import type { Sha256 } from "@lockstep/core";
import { type ContentEncoding, LockstepError } from "@lockstep/protocol/wire";

/** One content as it lies on disk: which it is, how long it is when decoded, and how it is encoded there. */
export interface ContentKey {
  readonly sha256: Sha256;
  /** Decoded length in bytes; null: nobody said, and the digest alone decides. */
  readonly size: number | null;
  readonly encoding: ContentEncoding;
}

/**
 * Reads a stream to its end and holds it against what it should be, decoding on the way. `through` sees every chunk as
 * it came, before it counts as verified. Returns the decoded length in bytes. Throws CONTENT_MISMATCH, also for a stream that grows beyond the size.
 */
export async function verifyContent(
  key: ContentKey,
  source: AsyncIterable<Uint8Array>,
  through: (chunk: Uint8Array) => Promise<void> | void = () => {},
  signal?: AbortSignal,
): Promise<number> {
  const hash = createHash("sha256");
  let size = 0;
  const passOn = async function* (chunks: AsyncIterable<Uint8Array>) {
    for await (const chunk of chunks) {
      await through(chunk);
      yield chunk;
    }
  };
  const measure = async (chunks: AsyncIterable<Uint8Array>) => {
    for await (const chunk of chunks) {
      size += chunk.length;
      if (key.size !== null && size > key.size) throw mismatch(key, `more than ${key.size} bytes`);
      hash.update(chunk);
    }
  };
  const from = Readable.from(source, { objectMode: false, highWaterMark: 256 * 1024 });
  const options = signal === undefined ? {} : { signal };
  try {
    if (key.encoding === "zstd") await pipeline(from, passOn, createZstdDecompress(), measure, options);
    else await pipeline(from, passOn, measure, options);
  } catch (error) {
    if (isBrokenFrame(error)) throw mismatch(key, `no zstd frame (${error.message})`, error);
    throw error;
  }
  if (key.size !== null && size !== key.size) throw mismatch(key, `${size} bytes`);
  const found = hash.digest("hex");
  if (found !== key.sha256) throw mismatch(key, found);
  return size;
}

/** The same for bytes that are all in memory. Returns the decoded length. */
export function verifyBytes(key: ContentKey, stored: Uint8Array): number {
  let content = stored;
  try {
    const limit = key.size === null ? {} : { maxOutputLength: Math.max(key.size, 1) };
    if (key.encoding === "zstd") content = zstdDecompressSync(stored, limit);
  } catch (error) {
    throw mismatch(key, `no zstd frame (${error instanceof Error ? error.message : "unreadable"})`, error);
  }
  if (key.size !== null && content.length !== key.size) throw mismatch(key, `${content.length} bytes`);
  const found = createHash("sha256").update(content).digest("hex");
  if (found !== key.sha256) throw mismatch(key, found);
  return content.length;
}

function isBrokenFrame(error: unknown): error is Error {
  if (!(error instanceof Error) || !("code" in error)) return false;
  const code = String(error.code);
  return code.startsWith("ZSTD_error") || code === "Z_BUF_ERROR" || code === "ERR_ZSTD_DECOMPRESSION_FAILED";
}

function mismatch(key: ContentKey, found: string, cause?: unknown): LockstepError {
  return new LockstepError("CONTENT_MISMATCH", `content ${key.sha256} is not what it should be`, {
    expected: `${key.size === null ? "" : `${key.size} bytes with `}SHA-256 ${key.sha256}`,
    found,
    hint: "It was not kept. Try again; if it happens again, the source is damaged.",
    cause,
  });
}
