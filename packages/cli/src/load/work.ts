import { createHash, hash } from "node:crypto";
import { closeSync, constants, fstatSync, openSync, readSync } from "node:fs";
import { join } from "node:path";
import { constants as zlibConstants, zstdCompressSync } from "node:zlib";
import type { Sha256 } from "@lockstep/core";
import { CONTENT_HEADER_BYTES, encodeContentHeader } from "@lockstep/protocol/wire";
import type { SourceFile } from "./scan.ts";

/**
 * What the loader's threads do with files: digest them, and encode small ones for the journey. Plain synchronous
 * calls: a file of a product is some kilobytes long, and an asynchronous read of it costs more than the read.
 */
export type WorkOrder =
  | { readonly kind: "digest"; readonly base: string; readonly files: readonly SourceFile[] }
  | {
      readonly kind: "encode";
      readonly base: string;
      readonly files: readonly DigestedFile[];
      /** Where to write what comes out: what an earlier answer came in, or nothing yet. */
      readonly room: ArrayBuffer | undefined;
    };

export type DigestedFile = SourceFile & { readonly sha256: Sha256 };

/** A file that is not what it was, or cannot be read any more. */
export interface WorkFault {
  readonly path: string;
  readonly problem: string;
  /** The system does not let it be read, which has nothing to do with a change. */
  readonly unreadable: boolean;
}

export type WorkAnswer =
  | { readonly kind: "digest"; readonly sha256: readonly Sha256[]; readonly faults: readonly WorkFault[] }
  | {
      readonly kind: "encode";
      /** Headers and stored bytes in the form of the content stream, ready to be sent. */
      readonly frames: Uint8Array<ArrayBuffer>;
      readonly contents: number;
      /** Sum of the sizes of the files. */
      readonly decodedBytes: number;
      readonly faults: readonly WorkFault[];
    };

/** Files up to this size are encoded whole, in memory; larger ones travel by large-content.ts. */
export const SMALL_FILE_BYTES_MAX = 2 * 1024 * 1024;
/** An order to encode has at most so many files, and bytes where it has more than one. */
export const ENCODE_FILES_MAX = 128;
export const ENCODE_BYTES_MAX = 1024 * 1024;
/** Nothing travels in more bytes than it has, so this is enough for whatever comes out of an order. */
const ROOM_BYTES = SMALL_FILE_BYTES_MAX + ENCODE_FILES_MAX * CONTENT_HEADER_BYTES;
/**
 * On program files level 1 takes two thirds of the time of level 3, makes a tenth more bytes, and still fewer than git's
 * zlib (docs/benchmarks.md).
 */
export const ZSTD_LEVEL = 1;

const BLOCK_BYTES = 1024 * 1024;
/** Compressed bytes come in pieces of this size at most; a piece that holds them all need not be joined. */
const PIECE_BYTES_MIN = 1024;
const PIECE_BYTES_MAX = 1024 * 1024;
/** Read into again and again: fresh memory for each file costs more than reading it. */
let block = Buffer.alloc(0);

/** Carries out one order. Never throws for a file's sake: what went wrong stands in `faults`. */
export function carryOut(order: WorkOrder): WorkAnswer {
  return order.kind === "digest" ? digest(order.base, order.files) : encode(order);
}

function digest(base: string, files: readonly SourceFile[]): WorkAnswer {
  const faults: WorkFault[] = [];
  const sha256 = files.map((file) => {
    try {
      return withFile(base, file, (fd) => digestOf(fd, file.size));
    } catch (error) {
      faults.push(faultOf(file, error));
      return "";
    }
  });
  return { kind: "digest", sha256, faults };
}

function encode({ base, files, room }: WorkOrder & { readonly kind: "encode" }): WorkAnswer {
  const faults: WorkFault[] = [];
  const decodedBytes = files.reduce((sum, file) => sum + file.size, 0);
  // It changes threads uncopied and is used again: fresh memory for each order is given back much later than it is taken.
  const frames = new Uint8Array(room ?? Buffer.allocUnsafeSlow(ROOM_BYTES).buffer);
  let at = 0;
  for (const file of files) {
    try {
      const raw = withFile(base, file, (fd) => readInto(fd, file.size));
      if (hash("sha256", raw, "hex") !== file.sha256) throw new SourceChanged();
      const packed = compress(raw);
      const smaller = packed.length < raw.length;
      const stored = smaller ? packed : raw;
      const header = encodeContentHeader({
        sha256: file.sha256,
        encoding: smaller ? "zstd" : "identity",
        size: raw.length,
        stored: stored.length,
      });
      frames.set(header, at);
      frames.set(stored, at + header.length);
      at += header.length + stored.length;
      giveBack(packed, pieceBytes(raw.length));
    } catch (error) {
      faults.push(faultOf(file, error));
    }
  }
  return { kind: "encode", frames: frames.subarray(0, at), contents: files.length, decodedBytes, faults };
}

function pieceBytes(rawBytes: number): number {
  return Math.min(PIECE_BYTES_MAX, Math.max(PIECE_BYTES_MIN, rawBytes));
}

/** Compresses a content into one zstd frame that says how long it is. */
export function compress(raw: Uint8Array): Buffer {
  return zstdCompressSync(raw, {
    chunkSize: pieceBytes(raw.length),
    pledgedSrcSize: raw.length,
    params: {
      [zlibConstants.ZSTD_c_compressionLevel]: ZSTD_LEVEL,
      [zlibConstants.ZSTD_c_contentSizeFlag]: 1,
    },
  });
}

/**
 * Gives memory back at once: left to the collector, some fifty megabytes of it pile up in each thread before it looks at
 * them. Nobody may use the bytes any more. `asked`: how much was asked for; what is small comes out of Node's pool, which
 * others use, and stays.
 */
export function giveBack(bytes: Buffer, asked: number): void {
  if (asked >= Buffer.poolSize && bytes.buffer instanceof ArrayBuffer) bytes.buffer.transfer(0);
}

/** The file is not the one that the directory was read with. */
export class SourceChanged extends Error {
  constructor() {
    super("it changed while it was being read");
  }
}

/** Whether an open file is still the one that was found when the directory was read. */
export function isSameSource(fd: number, file: SourceFile): boolean {
  const stat = fstatSync(fd);
  return (
    stat.size === file.size &&
    stat.mtimeMs === file.mtimeMs &&
    stat.ctimeMs === file.ctimeMs &&
    stat.ino === file.ino &&
    stat.isFile()
  );
}

/** Opens a file of the source; never through a link that has taken its place, never waiting for a FIFO's writer. */
export function openSource(base: string, file: SourceFile): number {
  return openSync(join(base, file.path), constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
}

function withFile<T>(base: string, file: SourceFile, use: (fd: number) => T): T {
  const fd = openSource(base, file);
  try {
    if (!isSameSource(fd, file)) throw new SourceChanged();
    const result = use(fd);
    if (!isSameSource(fd, file)) throw new SourceChanged();
    return result;
  } finally {
    closeSync(fd);
  }
}

function digestOf(fd: number, size: number): Sha256 {
  if (size <= BLOCK_BYTES) return hash("sha256", readInto(fd, size), "hex");
  const hasher = createHash("sha256");
  const buffer = blockOf(BLOCK_BYTES);
  for (let left = size; left > 0; ) {
    const got = readSync(fd, buffer, 0, Math.min(buffer.length, left), null);
    if (got === 0) throw new SourceChanged();
    hasher.update(buffer.subarray(0, got));
    left -= got;
  }
  return hasher.digest("hex");
}

/** Reads a whole file into the block; the next call overwrites it. */
function readInto(fd: number, size: number): Buffer {
  const buffer = blockOf(size);
  for (let at = 0; at < size; ) {
    const got = readSync(fd, buffer, at, size - at, null);
    if (got === 0) throw new SourceChanged();
    at += got;
  }
  return buffer.subarray(0, size);
}

function blockOf(size: number): Buffer {
  if (block.length < size) block = Buffer.allocUnsafeSlow(Math.max(size, BLOCK_BYTES));
  return block;
}

function faultOf({ path }: SourceFile, error: unknown): WorkFault {
  const problem = error instanceof Error ? error.message : String(error);
  const unreadable = error instanceof Error && "code" in error && UNREADABLE.has(error.code);
  return { path, problem, unreadable };
}

const UNREADABLE: ReadonlySet<unknown> = new Set(["EACCES", "EPERM", "EIO"]);
