import { createHash, hash } from "node:crypto";
import { once } from "node:events";
import { constants, createZstdDecompress, type ZstdDecompress, zstdDecompressSync } from "node:zlib";
import { type ContentHeader, LockstepError } from "@lockstep/protocol";
import { PART_BYTES, type PartsCopy } from "./copy-parts.ts";
import { measureFrame } from "./zstd-frame.ts";

/**
 * Takes contents in as they arrive: each is decoded and hashed while its stored bytes go on into the database.
 *
 * Nothing is believed: a content counts only when what comes out of it has the announced length and digest. Decoding
 * stops at the announced length, so a few bytes that stand for gigabytes cost what they announce and no more, and
 * frames that need a larger window than ours are refused, since every reader would need it too.
 *
 * Small contents are gathered and decoded together, in one call for some hundred of them: setting a decoder up costs
 * more than decoding a file of a few kilobytes. Of large ones never more than a part is held.
 */
const SMALL_BYTES_MAX = PART_BYTES;
/** Contents are gathered up to these sums of decoded bytes, stored bytes and numbers. */
const BATCH = { decodedBytes: 2 * PART_BYTES, storedBytes: PART_BYTES, contents: 1_000 };
/** 8 MiB of window: what levels up to 19 use by default. */
const WINDOW_LOG_MAX = 23;
const DECODED_CHUNK_BYTES = 256 * 1024;
const GIVE_BACK_BYTES_MIN = 256 * 1024;

export class ContentIntake {
  readonly #copy: PartsCopy;
  readonly #batch: Batch;
  #small: { readonly id: number; readonly header: ContentHeader; readonly pieces: Uint8Array[] } | null =
    null;
  #large: LargeContent | null = null;

  constructor(copy: PartsCopy) {
    this.#copy = copy;
    this.#batch = new Batch(copy);
  }

  /** Begins a content, whose parts get this id. One without is read past. */
  begin(header: ContentHeader, id: number | null): void {
    if (id === null) return;
    if (header.stored <= SMALL_BYTES_MAX && header.size <= SMALL_BYTES_MAX)
      this.#small = { id, header, pieces: [] };
    else this.#large = new LargeContent(id, header, this.#copy);
  }

  /** Takes the next bytes. Throws LOAD_CONTENT_MISMATCH. */
  async bytes(bytes: Uint8Array): Promise<void> {
    if (this.#small !== null) this.#small.pieces.push(bytes);
    else await this.#large?.bytes(bytes);
  }

  /** Ends the content. Throws LOAD_CONTENT_MISMATCH when this one or one gathered before is not what was announced. */
  async end(): Promise<void> {
    const small = this.#small;
    const large = this.#large;
    this.#small = null;
    this.#large = null;
    if (small !== null) await this.#batch.add({ ...small, stored: join(small.pieces) });
    try {
      await large?.end();
    } catch (error) {
      large?.abort();
      throw error;
    }
  }

  /** Ends the last one. Only then has everything been verified. Throws LOAD_CONTENT_MISMATCH. */
  async finish(): Promise<void> {
    await this.#batch.flush();
  }

  /** Lets go of whatever is half done. */
  abort(): void {
    this.#large?.abort();
  }
}

function join(pieces: readonly Uint8Array[]): Buffer {
  const [first] = pieces;
  return pieces.length === 1 && first !== undefined
    ? Buffer.from(first.buffer, first.byteOffset, first.length)
    : Buffer.concat(pieces);
}

interface Gathered {
  readonly id: number;
  readonly header: ContentHeader;
  readonly stored: Buffer;
}

class Batch {
  readonly #copy: PartsCopy;
  #contents: Gathered[] = [];
  #decodedBytes = 0;
  #storedBytes = 0;

  constructor(copy: PartsCopy) {
    this.#copy = copy;
  }

  async add({ id, header, stored }: Gathered): Promise<void> {
    this.#contents.push({ id, header, stored });
    this.#decodedBytes += header.size;
    this.#storedBytes += header.stored;
    if (
      this.#decodedBytes >= BATCH.decodedBytes ||
      this.#storedBytes >= BATCH.storedBytes ||
      this.#contents.length >= BATCH.contents
    )
      await this.flush();
  }

  async flush(): Promise<void> {
    const contents = this.#contents;
    this.#contents = [];
    this.#decodedBytes = 0;
    this.#storedBytes = 0;
    const packed = contents.filter(({ header }) => header.encoding === "zstd");
    for (const content of packed) checkFrame(content);
    const decoded = decodeTogether(packed);
    let at = 0;
    for (const { id, header, stored } of contents) {
      const bytes = header.encoding === "identity" ? stored : decoded.subarray(at, at + header.size);
      if (header.encoding === "zstd") at += header.size;
      const found = hash("sha256", bytes, "hex");
      if (found !== header.sha256) throw mismatch(header, found, header.sha256);
      if (stored.length > 0) await this.#copy.row(id, 0, stored);
    }
    giveBack(decoded);
  }
}

/**
 * Gives memory back at once. Left to the collector it piles up, and each few dozen megabytes of it make a full collection:
 * a tenth of the hub's time. Only what is certainly too large for Node's pool, which others use.
 */
function giveBack(bytes: Buffer): void {
  const memory = bytes.buffer;
  if (memory instanceof ArrayBuffer && memory.byteLength >= GIVE_BACK_BYTES_MIN) memory.transfer(0);
}

/** Holds a small content against being one frame of the announced size: then its neighbours cannot be touched by it. */
function checkFrame({ header, stored }: Gathered): void {
  const measured = measureFrame(stored);
  if (measured === null || measured.length !== stored.length)
    throw mismatch(
      header,
      measured === null ? "none, or one that is cut off" : "bytes behind it",
      "one zstd frame",
    );
  if (measured.contentBytes !== null && measured.contentBytes !== header.size)
    throw mismatch(header, `${measured.contentBytes} bytes`, `${header.size} bytes`);
  if (measured.windowBytes > 2 ** WINDOW_LOG_MAX)
    throw mismatch(header, `a window of ${measured.windowBytes} bytes`, `at most ${2 ** WINDOW_LOG_MAX}`);
}

/** All frames decoded, one behind the other. What does not come out right is decoded once more by itself, to name it. */
function decodeTogether(packed: readonly Gathered[]): Buffer {
  const size = packed.reduce((sum, { header }) => sum + header.size, 0);
  if (packed.length === 0) return Buffer.alloc(0);
  try {
    const decoded = decode(Buffer.concat(packed.map(({ stored }) => stored)), size);
    if (decoded.length === size) return decoded;
  } catch {
    // Which of them it was comes out below.
  }
  return Buffer.concat(packed.map(decodeAlone));
}

function decodeAlone({ header, stored }: Gathered): Buffer {
  try {
    const decoded = decode(stored, header.size);
    if (decoded.length === header.size) return decoded;
    throw mismatch(header, `${decoded.length} bytes`, `${header.size} bytes`);
  } catch (error) {
    throw frameFault(header, error);
  }
}

function decode(stored: Buffer, sizeMax: number): Buffer {
  return zstdDecompressSync(stored, {
    maxOutputLength: Math.max(1, sizeMax),
    // One buffer for all of it, or the pieces would be joined by copying them.
    chunkSize: Math.max(64, sizeMax),
    params: { [constants.ZSTD_d_windowLogMax]: WINDOW_LOG_MAX },
  });
}

class LargeContent {
  readonly #id: number;
  readonly #header: ContentHeader;
  readonly #copy: PartsCopy;
  readonly #hash = createHash("sha256");
  readonly #decoder: ZstdDecompress | null;
  #decoded = 0;
  #failure: unknown = null;
  #part: Uint8Array[] = [];
  #partBytes = 0;
  #seq = 0;

  constructor(id: number, header: ContentHeader, copy: PartsCopy) {
    this.#id = id;
    this.#header = header;
    this.#copy = copy;
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
      // With an error: whoever waits for the end must hear that it will not come.
      if (this.#failure !== null)
        decoder.destroy(new Error("the content is not what it was announced to be"));
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
    await this.#copy.row(this.#id, this.#seq++, bytes);
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
