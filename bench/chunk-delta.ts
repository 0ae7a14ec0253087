/**
 * The other way to make deltas, which the product does not take: chunks cut by content. `FROM TO`, two directories.
 *
 * Old and new are cut by FastCDC; runs of chunks that the old file has become copies, and what lies between two copies is
 * compressed with what lies between them in the old file as dictionary. Every patch is applied again and compared, outside
 * of the time that is told. Files that are new are compressed by themselves, as for the other tools.
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { constants, zstdCompressSync, zstdDecompressSync } from "node:zlib";
import { filesBelow } from "./inputs.ts";

/** The finest that is worth it: smaller chunks cost more in their addresses. */
const CHUNK_BYTES = 2048;
const CHUNK_BYTES_MIN = CHUNK_BYTES / 4;
const CHUNK_BYTES_MAX = CHUNK_BYTES * 8;
/** Two bits more before the wanted length and two less behind it. */
const MASK_BEFORE = ((CHUNK_BYTES << 2) - 1) << 8;
const MASK_BEHIND = ((CHUNK_BYTES >> 2) - 1) << 8;
const DICTIONARY_BYTES_MAX = 8 * 1024 * 1024;
const LEVEL = 19;

const GEAR = Int32Array.from({ length: 256 }, (_, byte) =>
  createHash("sha256").update(`gear ${byte}`).digest().readInt32LE(0),
);

interface Chunk {
  readonly at: number;
  readonly length: number;
}

function chunksOf(bytes: Buffer): Chunk[] {
  const chunks: Chunk[] = [];
  for (let at = 0; at < bytes.length; ) {
    const end = Math.min(bytes.length, at + CHUNK_BYTES_MAX);
    let position = Math.min(end, at + CHUNK_BYTES_MIN);
    for (let hash = 0; position < end; position++) {
      hash = ((hash << 1) + (GEAR[bytes[position] ?? 0] ?? 0)) | 0;
      if ((hash & (position - at < CHUNK_BYTES ? MASK_BEFORE : MASK_BEHIND)) === 0) break;
    }
    chunks.push({ at, length: position - at });
    at = position;
  }
  return chunks;
}

const keyOf = (bytes: Buffer, { at, length }: Chunk) =>
  createHash("sha256")
    .update(bytes.subarray(at, at + length))
    .digest("latin1");

/** A stretch of the new file: as it is in the old one from `from` on, or new. */
interface Stretch extends Chunk {
  readonly from: number | null;
}

function stretchesOf(old: Buffer, now: Buffer): Stretch[] {
  const known = new Map(chunksOf(old).map((chunk) => [keyOf(old, chunk), chunk.at]));
  const stretches: Stretch[] = [];
  for (const chunk of chunksOf(now)) {
    const from = known.get(keyOf(now, chunk)) ?? null;
    const last = stretches.at(-1);
    const goesOn =
      last !== undefined && (from === null ? last.from === null : last.from === from - last.length);
    if (goesOn) stretches[stretches.length - 1] = { ...last, length: last.length + chunk.length };
    else stretches.push({ ...chunk, from });
  }
  return stretches;
}

/** What lies between the copies before and after a stretch in the old file. */
function dictionaryOf(old: Buffer, before: Stretch | undefined, after: Stretch | undefined): Buffer {
  const start = before?.from == null ? 0 : before.from + before.length;
  const end = after?.from == null ? old.length : after.from;
  const isGap = end > start;
  const from = isGap ? start : Math.max(0, start - CHUNK_BYTES_MAX);
  return old.subarray(from, Math.min(isGap ? end : start + CHUNK_BYTES_MAX, from + DICTIONARY_BYTES_MAX));
}

function compress(bytes: Buffer, dictionary: Buffer): Buffer {
  const windowLog = Math.min(27, Math.max(10, Math.ceil(Math.log2(bytes.length + dictionary.length + 1))));
  const params = {
    [constants.ZSTD_c_compressionLevel]: LEVEL,
    [constants.ZSTD_c_windowLog]: windowLog,
    [constants.ZSTD_c_checksumFlag]: 0,
  };
  return zstdCompressSync(bytes, { params, ...(dictionary.length === 0 ? {} : { dictionary }) });
}

/** Bytes of a patch, and the new file made of it. */
function patch(old: Buffer, now: Buffer): { bytes: number; again: () => Buffer } {
  const stretches = stretchesOf(old, now);
  const pieces: (() => Buffer)[] = [];
  const addresses: string[] = [];
  let bytes = 0;
  for (const [number, { at, length, from }] of stretches.entries()) {
    addresses.push(`${length} ${from ?? ""}`);
    if (from !== null) {
      pieces.push(() => old.subarray(from, from + length));
      continue;
    }
    const dictionary = dictionaryOf(old, stretches[number - 1], stretches[number + 1]);
    const frame = compress(now.subarray(at, at + length), dictionary);
    bytes += frame.length;
    pieces.push(() => zstdDecompressSync(frame, dictionary.length === 0 ? {} : { dictionary }));
  }
  bytes += compress(Buffer.from(addresses.join("\n")), Buffer.alloc(0)).length;
  return { bytes, again: () => Buffer.concat(pieces.map((piece) => piece())) };
}

const [from = "", to = ""] = process.argv.slice(2);
let bytes = 0;
let cpuMs = 0;
for (const path of filesBelow(to)) {
  const now = readFileSync(join(to, path));
  const place = join(from, path);
  const old = existsSync(place) ? readFileSync(place) : null;
  if (old?.equals(now) === true) continue;
  const began = process.cpuUsage();
  const made = old === null ? null : patch(old, now);
  bytes += made === null ? compress(now, Buffer.alloc(0)).length : made.bytes;
  const { user, system } = process.cpuUsage(began);
  cpuMs += (user + system) / 1000;
  assert.ok(made === null || made.again().equals(now), path);
}
process.stdout.write(`${JSON.stringify({ bytes, cpuMs })}\n`);
