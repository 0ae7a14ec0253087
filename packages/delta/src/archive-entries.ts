import type { ByteSource } from "./delta-format.ts";

/** A stretch of an archive that is compressed by deflate: one entry of a zip, or what a gzip file holds. */
export interface DeflatedEntry {
  /** What the directory calls it, which may be anything; nothing in a gzip file. */
  readonly name: string;
  /** Where its compressed bytes begin, and how many there are. */
  readonly at: number;
  readonly length: number;
  /** How many bytes it says that it holds. */
  readonly inflatedLength: number;
}

/**
 * Compressed stretches of zip archives (zip, jar, nupkg, whl, docx) and gzip files, in the order of the file, without
 * overlaps; none for anything else. Only the directories are read, not the entries, so both sides of a delta find the same
 * from the same bytes: whoever changes what is found here makes a new format (archive-delta.ts). Zip64, encrypted entries
 * and entries beyond the limits are left as they are.
 *
 * Source: PKWARE APPNOTE 6.3.10, sections 4.3.6 to 4.3.16; RFC 1952, section 2.3.
 */
export function findDeflated(source: ByteSource): DeflatedEntry[] {
  const head = Buffer.from(source.read(0, Math.min(source.size, 4)));
  if (head.length < 4) return [];
  if (head.readUInt16BE(0) === GZIP_MAGIC) return findGzip(source);
  return findZip(source);
}

/** An entry is inflated as a whole, so it must fit into memory a few times. */
const ENTRY_BYTES_MAX = 32 * 1024 * 1024;
/** What deflate can make of a byte at most: whoever says more is broken, and would cost memory for nothing. */
const RATIO_MAX = 1032;
const INFLATED_BYTES_MAX = 1024 * 1024 * 1024;
const DIRECTORY_BYTES_MAX = 16 * 1024 * 1024;

const GZIP_MAGIC = 0x1f8b;
const GZIP_TRAILER_BYTES = 8;
const GZIP_HEADER_MAX = 64 * 1024;
const METHOD_DEFLATE = 8;

function findGzip(source: ByteSource): DeflatedEntry[] {
  const head = Buffer.from(source.read(0, Math.min(source.size, GZIP_HEADER_MAX)));
  if (head[2] !== METHOD_DEFLATE) return [];
  const flags = head[3] ?? 0;
  let at = 10;
  if ((flags & 4) !== 0) at += at + 2 > head.length ? GZIP_HEADER_MAX : 2 + head.readUInt16LE(at);
  for (const flag of [8, 16]) {
    if ((flags & flag) === 0) continue;
    const end = head.indexOf(0, at);
    at = end < 0 ? GZIP_HEADER_MAX : end + 1;
  }
  if ((flags & 2) !== 0) at += 2;
  const length = source.size - GZIP_TRAILER_BYTES - at;
  if (length < 1) return [];
  const trailer = Buffer.from(source.read(source.size - 4, 4));
  return withinLimits([{ name: "", at, length, inflatedLength: trailer.readUInt32LE(0) }]);
}

const END_SIGNATURE = 0x06054b50;
const END_BYTES = 22;
const END_SEARCH_BYTES = END_BYTES + 0xffff;
const CENTRAL_SIGNATURE = 0x02014b50;
const CENTRAL_BYTES = 46;
const LOCAL_SIGNATURE = 0x04034b50;
const LOCAL_BYTES = 30;
const FLAG_ENCRYPTED = 1;
const ZIP64 = 0xffffffff;

function findZip(source: ByteSource): DeflatedEntry[] {
  const directory = readDirectory(source);
  if (directory === null) return [];
  const entries: DeflatedEntry[] = [];
  for (let at = 0; at + CENTRAL_BYTES <= directory.length; ) {
    if (directory.readUInt32LE(at) !== CENTRAL_SIGNATURE) break;
    const entry = readEntry(source, directory, at);
    if (entry !== null) entries.push(entry);
    at += CENTRAL_BYTES;
    at += [18, 16, 14].reduce((sum, back) => sum + directory.readUInt16LE(at - back), 0);
  }
  return withinLimits(entries);
}

function readDirectory(source: ByteSource): Buffer | null {
  const tail = Buffer.from(
    source.read(Math.max(0, source.size - END_SEARCH_BYTES), Math.min(source.size, END_SEARCH_BYTES)),
  );
  for (let at = tail.length - END_BYTES; at >= 0; at--) {
    if (tail.readUInt32LE(at) !== END_SIGNATURE) continue;
    const size = tail.readUInt32LE(at + 12);
    const start = tail.readUInt32LE(at + 16);
    if (size > DIRECTORY_BYTES_MAX || start + size > source.size) return null;
    return Buffer.from(source.read(start, size));
  }
  return null;
}

function readEntry(source: ByteSource, directory: Buffer, at: number): DeflatedEntry | null {
  const flags = directory.readUInt16LE(at + 8);
  const method = directory.readUInt16LE(at + 10);
  const length = directory.readUInt32LE(at + 20);
  const inflatedLength = directory.readUInt32LE(at + 24);
  const header = directory.readUInt32LE(at + 42);
  if (method !== METHOD_DEFLATE || (flags & FLAG_ENCRYPTED) !== 0 || header === ZIP64) return null;
  if (header + LOCAL_BYTES > source.size) return null;
  const local = Buffer.from(source.read(header, LOCAL_BYTES));
  if (local.readUInt32LE(0) !== LOCAL_SIGNATURE) return null;
  const nameAt = at + CENTRAL_BYTES;
  return {
    name: directory.toString("utf8", nameAt, nameAt + directory.readUInt16LE(at + 28)),
    at: header + LOCAL_BYTES + local.readUInt16LE(26) + local.readUInt16LE(28),
    length,
    inflatedLength,
  };
}

function withinLimits(entries: DeflatedEntry[]): DeflatedEntry[] {
  const found: DeflatedEntry[] = [];
  let end = 0;
  let total = 0;
  for (const entry of entries.sort((a, b) => a.at - b.at)) {
    const isSane = entry.at >= end && entry.length > 0 && entry.inflatedLength > 0;
    if (!isSane || entry.inflatedLength > RATIO_MAX * entry.length) continue;
    if (Math.max(entry.length, entry.inflatedLength) > ENTRY_BYTES_MAX) continue;
    if (total + entry.inflatedLength > INFLATED_BYTES_MAX) break;
    total += entry.inflatedLength;
    end = entry.at + entry.length;
    found.push(entry);
  }
  return found;
}
