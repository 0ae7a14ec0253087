import { createHash, hash } from "node:crypto";
import { once } from "node:events";
import { constants, createZstdDecompress, type ZstdDecompress, zstdDecompressSync } from "node:zlib";
import { type ContentHeader, LockstepError } from "@lockstep/protocol";
import { PART_BYTES, type PartsCopy } from "./copy-parts.ts";

/**
 * Takes contents in as they arrive: each is decoded and hashed while its stored bytes go on into the database.
 *
 * Nothing is believed: a content counts only when what comes out of it has the announced length and digest. Decoding
 * stops at the announced length, so a few bytes that stand for gigabytes cost what they announce and no more, and
 * frames that need a larger window than ours are refused, since every reader would need it too.
 *
 * Small contents are decoded in one piece: for a file of a few kilobytes a stream costs ten times what decoding does.
 * Of large ones never more than a part is held.
 */
const WHOLE_BYTES_MAX = PART_BYTES;
/** 8 MiB of window: what levels up to 19 use by default. */
const WINDOW_LOG_MAX = 23;
const DECODED_CHUNK_BYTES = 256 * 1024;

export class ContentIntake {
  readonly #copy: PartsCopy;
  #current: SmallContent | LargeContent | SkippedContent | null = null;

  constructor(copy: PartsCopy) {
    this.#copy = copy;
  }

  /** Begins a content. One that is not `wanted` is read past. */
  begin(header: ContentHeader, wanted: boolean): void {
    if (!wanted) this.#current = new SkippedContent();
    else if (header.stored <= WHOLE_BYTES_MAX && header.size <= WHOLE_BYTES_MAX)
      this.#current = new SmallContent(header, this.#copy);
    else this.#current = new LargeContent(header, this.#copy);
  }

  /** Takes the next bytes. Throws LOAD_CONTENT_MISMATCH. */
  async bytes(bytes: Uint8Array): Promise<void> {
    await this.#current?.bytes(bytes);
  }

  /** Ends the content. Throws LOAD_CONTENT_MISMATCH when it is not what was announced. */
  async end(): Promise<void> {
    const current = this.#current;
    this.#current = null;
    await current?.end();
  }

  /** Lets go of whatever is half done. */
  abort(): void {
    this.#current?.abort();
    this.#current = null;
  }
}

class SkippedContent {
  bytes(): void {}
  end(): void {}
  abort(): void {}
}

class SmallContent {
  readonly #header: ContentHeader;
  readonly #copy: PartsCopy;
  readonly #pieces: Uint8Array[] = [];

  constructor(header: ContentHeader, copy: PartsCopy) {
    this.#header = header;
    this.#copy = copy;
  }

  bytes(bytes: Uint8Array): void {
    this.#pieces.push(bytes);
  }

  async end(): Promise<void> {
    const [first] = this.#pieces;
    const stored =
      this.#pieces.length === 1 && first !== undefined
        ? Buffer.from(first.buffer, first.byteOffset, first.length)
        : Buffer.concat(this.#pieces);
    const decoded = this.#decode(stored);
    if (decoded.length !== this.#header.size)
      throw mismatch(this.#header, `${decoded.length} bytes`, `${this.#header.size} bytes`);
    const found = hash("sha256", decoded, "hex");
    if (found !== this.#header.sha256) throw mismatch(this.#header, found, this.#header.sha256);
    if (stored.length > 0) await this.#copy.row(Buffer.from(this.#header.sha256, "hex"), 0, stored);
  }

  abort(): void {}

  #decode(stored: Buffer): Buffer {
    if (this.#header.encoding === "identity") return stored;
    try {
      // With `info` the answer says how much of the input was used; the types do not know it.
      const { buffer, engine } = zstdDecompressSync(stored, {
        info: true,
        maxOutputLength: Math.max(1, this.#header.size),
        params: { [constants.ZSTD_d_windowLogMax]: WINDOW_LOG_MAX },
      }) as unknown as { buffer: Buffer; engine: { bytesWritten: number } };
      if (engine.bytesWritten !== stored.length)
        throw mismatch(this.#header, "bytes behind the end of its frame", "one zstd frame");
      return buffer;
    } catch (error) {
      throw frameFault(this.#header, error);
    }
  }
}

class LargeContent {
  readonly #header: ContentHeader;
  readonly #copy: PartsCopy;
  readonly #digest: Buffer;
  readonly #hash = createHash("sha256");
  readonly #decoder: ZstdDecompress | null;
  #decoded = 0;
  #failure: unknown = null;
  #part: Uint8Array[] = [];
  #partBytes = 0;
  #seq = 0;

  constructor(header: ContentHeader, copy: PartsCopy) {
    this.#header = header;
    this.#copy = copy;
    this.#digest = Buffer.from(header.sha256, "hex");
    this.#decoder = header.encoding === "zstd" ? this.#createDecoder() : null;
  }

  async bytes(bytes: Uint8Array): Promise<void> {
    if (this.#decoder === null) this.#measure(bytes);
    else if (!this.#decoder.write(bytes)) await this.#drained(this.#decoder);
    if (this.#failure !== null) throw this.#failure;
    let rest = bytes;
    while (rest.length > 0) {
      const piece = rest.subarray(0, PART_BYTES - this.#partBytes);
      this.#part.push(piece);
      this.#partBytes += piece.length;
      rest = rest.subarray(piece.length);
      if (this.#partBytes === PART_BYTES) await this.#writePart();
    }
  }

  async end(): Promise<void> {
    if (this.#decoder !== null) {
      const ended = once(this.#decoder, "end");
      this.#decoder.end();
      await ended.catch((error: unknown) => {
        throw this.#failure ?? error;
      });
      if (this.#decoder.bytesWritten !== this.#header.stored)
        throw mismatch(this.#header, "bytes behind the end of its frame", "one zstd frame");
    }
    if (this.#failure !== null) throw this.#failure;
    if (this.#decoded !== this.#header.size)
      throw mismatch(this.#header, `${this.#decoded} bytes`, `${this.#header.size} bytes`);
    const found = this.#hash.digest("hex");
    if (found !== this.#header.sha256) throw mismatch(this.#header, found, this.#header.sha256);
    if (this.#partBytes > 0) await this.#writePart();
  }

  abort(): void {
    this.#decoder?.destroy();
  }

  #createDecoder(): ZstdDecompress {
    const decoder = createZstdDecompress({
      chunkSize: DECODED_CHUNK_BYTES,
      params: { [constants.ZSTD_d_windowLogMax]: WINDOW_LOG_MAX },
    });
    decoder.on("data", (chunk: Buffer) => {
      this.#measure(chunk);
      if (this.#failure !== null) decoder.destroy();
    });
    decoder.on("error", (error) => {
      this.#failure ??= frameFault(this.#header, error);
    });
    return decoder;
  }

  #measure(bytes: Uint8Array): void {
    this.#decoded += bytes.length;
    if (this.#decoded > this.#header.size)
      this.#failure ??= mismatch(
        this.#header,
        `more than ${this.#header.size} bytes`,
        `${this.#header.size} bytes`,
      );
    else this.#hash.update(bytes);
  }

  async #drained(decoder: ZstdDecompress): Promise<void> {
    if (decoder.destroyed) return;
    await new Promise<void>((resolve) => {
      const done = () => {
        decoder.off("drain", done);
        decoder.off("close", done);
        resolve();
      };
      decoder.on("drain", done);
      decoder.on("close", done);
    });
  }

  async #writePart(): Promise<void> {
    const [first] = this.#part;
    const bytes = this.#part.length === 1 && first !== undefined ? first : Buffer.concat(this.#part);
    this.#part = [];
    this.#partBytes = 0;
    await this.#copy.row(this.#digest, this.#seq++, bytes);
  }
}

function mismatch(header: ContentHeader, found: string, expected: string): LockstepError {
  return new LockstepError(
    "LOAD_CONTENT_MISMATCH",
    `the content ${header.sha256} is not what it was announced to be`,
    {
      expected,
      found,
      hint: "Nothing was loaded. Load again; if it happens again, look at what stands between.",
    },
  );
}

function frameFault(header: ContentHeader, error: unknown): LockstepError {
  if (error instanceof LockstepError) return error;
  const code = typeof error === "object" && error !== null && "code" in error ? String(error.code) : "";
  if (code === "ERR_BUFFER_TOO_LARGE")
    return mismatch(header, `more than ${header.size} bytes`, `${header.size} bytes`);
  return new LockstepError("LOAD_CONTENT_MISMATCH", `the content ${header.sha256} cannot be decoded`, {
    expected: "one zstd frame with a window of at most 8 MiB",
    found: error instanceof Error ? error.message : String(error),
    hint: "Nothing was loaded. Load again with this version of Lockstep.",
    cause: error,
  });
}
