import { createHash } from "node:crypto";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { createZstdDecompress } from "node:zlib";
import type { Sha256 } from "@lockstep/core";
import { type ContentEncoding, LockstepError } from "@lockstep/protocol/wire";

/** One content as it lies on disk: which it is, how long it is when decoded, and how it is encoded there. */
export interface ContentKey {
  readonly sha256: Sha256;
  /** Decoded length in bytes. */
  readonly size: number;
  readonly encoding: ContentEncoding;
}

/**
 * Reads a stream to its end and holds it against what it should be, decoding on the way. `through` sees every chunk as
 * it came, before it counts as verified. Throws CONTENT_MISMATCH, also for a stream that grows beyond the size.
 */
export async function verifyContent(
  key: ContentKey,
  source: AsyncIterable<Uint8Array>,
  through: (chunk: Uint8Array) => Promise<void> | void = () => {},
  signal?: AbortSignal,
): Promise<void> {
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
      if (size > key.size) throw mismatch(key, `more than ${key.size} bytes`);
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
  if (size !== key.size) throw mismatch(key, `${size} bytes`);
  const found = hash.digest("hex");
  if (found !== key.sha256) throw mismatch(key, found);
}

function isBrokenFrame(error: unknown): error is Error {
  if (!(error instanceof Error) || !("code" in error)) return false;
  const code = String(error.code);
  return code.startsWith("ZSTD_error") || code === "Z_BUF_ERROR" || code === "ERR_ZSTD_DECOMPRESSION_FAILED";
}

function mismatch(key: ContentKey, found: string, cause?: unknown): LockstepError {
  return new LockstepError("CONTENT_MISMATCH", `content ${key.sha256} is not what it should be`, {
    expected: `${key.size} bytes with SHA-256 ${key.sha256}`,
    found,
    hint: "It was not kept. Try again; if it happens again, the source is damaged.",
    cause,
  });
}
