/**
 * Reads where a zstd frame ends, and what it demands, from its headers alone (RFC 8878, 3.1.1): nothing is decoded.
 *
 * With it the hub knows before decoding that stored bytes are exactly one frame, and how much memory every reader will
 * need for it. It also makes it possible to decode many small frames in one call, each known to end where it should.
 */
export interface FrameMeasure {
  /** Length of the whole frame in bytes, checksum included. */
  readonly length: number;
  readonly windowBytes: number;
  /** Decoded length as the frame says it, or null where it does not. */
  readonly contentBytes: number | null;
}

const MAGIC = 0xfd2fb528;
const CHECKSUM_BYTES = 4;
const BLOCK_HEADER_BYTES = 3;
const BLOCK_RLE = 1;
const BLOCK_RESERVED = 3;
const DICTIONARY_ID_BYTES = [0, 1, 2, 4] as const;

/** Measures the frame at the beginning of `bytes`; null when there is none, or it is cut off. Dictionaries count as none. */
export function measureFrame(bytes: Buffer): FrameMeasure | null {
  if (bytes.length < 6 || bytes.readUInt32LE(0) !== MAGIC) return null;
  const descriptor = bytes[4] ?? 0;
  const single = (descriptor & 0x20) !== 0;
  const sizeFlag = descriptor >> 6;
  // Bit 3 is reserved; a frame that needs a dictionary cannot be read by anyone of us.
  if ((descriptor & 0x08) !== 0 || DICTIONARY_ID_BYTES[descriptor & 0x03] !== 0) return null;
  const windowBytesAt = 5;
  const sizeAt = windowBytesAt + (single ? 0 : 1);
  const sizeBytes = sizeFlag === 0 ? (single ? 1 : 0) : 2 ** sizeFlag;
  const blocksAt = sizeAt + sizeBytes;
  if (bytes.length < blocksAt) return null;
  const contentBytes = readSize(bytes, sizeAt, sizeBytes);
  const windowBytes = single ? (contentBytes ?? 0) : readWindow(bytes[windowBytesAt] ?? 0);
  let at = blocksAt;
  while (true) {
    if (at + BLOCK_HEADER_BYTES > bytes.length) return null;
    const header = bytes.readUIntLE(at, BLOCK_HEADER_BYTES);
    const kind = (header >> 1) & 0x03;
    if (kind === BLOCK_RESERVED) return null;
    at += BLOCK_HEADER_BYTES + (kind === BLOCK_RLE ? 1 : header >> 3);
    if ((header & 1) !== 0) break;
  }
  if ((descriptor & 0x04) !== 0) at += CHECKSUM_BYTES;
  return at > bytes.length ? null : { length: at, windowBytes, contentBytes };
}

function readSize(bytes: Buffer, at: number, length: number): number | null {
  if (length === 0) return null;
  if (length === 8) return Number(bytes.readBigUInt64LE(at));
  // The two-byte form counts from 256, as smaller sizes fit into one byte.
  return bytes.readUIntLE(at, length) + (length === 2 ? 256 : 0);
}

function readWindow(byte: number): number {
  const base = 2 ** (10 + (byte >> 3));
  return base + (base / 8) * (byte & 0x07);
}
