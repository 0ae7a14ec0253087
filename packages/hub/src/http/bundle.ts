import type { Sha256 } from "@lockstep/core";
import { type ContentHeader, encodeContentHeader, encodeEnd, encodeMagic } from "@lockstep/protocol";
import type pg from "pg";
import { findContentHeaders, readStored, readWholeParts } from "../repository/content-read.ts";
import { PART_BYTES } from "../repository/copy-parts.ts";
import { unknownContent } from "./contents.ts";

/**
 * Many contents as one stream, in the order asked for, straight from the database and as they are stored there: the
 * hub neither decodes nor compresses. Small ones are fetched some megabytes at a time; while one lot is on its way to
 * the client the next one is on its way from the database.
 */
const LOT_BYTES = 4 * 2 ** 20;
const LOT_CONTENTS = 2_000;
const HEADERS_AT_ONCE = 20_000;
const CHUNK_BYTES = 256 * 1024;

/** Finds all contents first, so that a missing one is an answer and not a cut stream. Throws NOT_FOUND. */
export async function findAll(pool: pg.Pool, digests: readonly Sha256[]): Promise<ContentHeader[]> {
  const headers: ContentHeader[] = [];
  for (let at = 0; at < digests.length; at += HEADERS_AT_ONCE) {
    const some = digests.slice(at, at + HEADERS_AT_ONCE);
    const found = await findContentHeaders(pool, some);
    for (const sha256 of some) {
      const header = found.get(sha256);
      if (header === undefined) throw unknownContent(sha256);
      headers.push(header);
    }
  }
  return headers;
}

/** The bytes of the content stream. */
export async function* streamBundle(
  pool: pg.Pool,
  headers: readonly ContentHeader[],
): AsyncGenerator<Uint8Array, void, undefined> {
  yield encodeMagic();
  const lots = splitLots(headers);
  let coming = fetchLot(pool, lots[0]);
  for (const [index, lot] of lots.entries()) {
    const bytes = await coming;
    coming = fetchLot(pool, lots[index + 1]);
    // Whoever stops reading in the middle leaves a query behind; its failure then concerns nobody.
    coming.catch(() => {});
    if (bytes === null) for (const header of lot) yield* streamLarge(pool, header);
    else yield* packSmall(lot, bytes);
  }
  yield encodeEnd(headers.length);
}

/** Runs of small contents up to the size of a lot; each large one by itself. */
export function splitLots(headers: readonly ContentHeader[]): ContentHeader[][] {
  const lots: ContentHeader[][] = [];
  let lot: ContentHeader[] = [];
  let bytes = 0;
  const close = () => {
    if (lot.length > 0) lots.push(lot);
    lot = [];
    bytes = 0;
  };
  for (const header of headers) {
    if (header.stored > PART_BYTES) {
      close();
      lots.push([header]);
      continue;
    }
    if (bytes + header.stored > LOT_BYTES || lot.length === LOT_CONTENTS) close();
    lot.push(header);
    bytes += header.stored;
  }
  close();
  return lots;
}

/** The bytes of a lot of small contents, or null for a large one, which is streamed when its turn comes. */
async function fetchLot(
  pool: pg.Pool,
  lot: readonly ContentHeader[] | undefined,
): Promise<Map<Sha256, Buffer> | null> {
  if (lot === undefined || isLarge(lot)) return null;
  const stored = lot.filter((header) => header.stored > 0).map((header) => header.sha256);
  return stored.length === 0 ? new Map() : await readWholeParts(pool, stored);
}

function isLarge(lot: readonly ContentHeader[]): boolean {
  return (lot[0]?.stored ?? 0) > PART_BYTES;
}

function* packSmall(
  lot: readonly ContentHeader[],
  bytes: ReadonlyMap<Sha256, Buffer>,
): Generator<Uint8Array, void, undefined> {
  let pieces: Uint8Array[] = [];
  let length = 0;
  for (const header of lot) {
    const stored = header.stored === 0 ? Buffer.alloc(0) : bytes.get(header.sha256);
    if (stored?.length !== header.stored) throw new RangeError(`the content ${header.sha256} is gone`);
    const head = encodeContentHeader(header);
    pieces.push(head, stored);
    length += head.length + stored.length;
    if (length < CHUNK_BYTES) continue;
    yield Buffer.concat(pieces, length);
    pieces = [];
    length = 0;
  }
  if (length > 0) yield Buffer.concat(pieces, length);
}

async function* streamLarge(
  pool: pg.Pool,
  header: ContentHeader,
): AsyncGenerator<Uint8Array, void, undefined> {
  yield encodeContentHeader(header);
  yield* readStored(pool, header);
}
