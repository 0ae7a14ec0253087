import type { Sha256 } from "@lockstep/core";
import {
  CONTENT_HEADER_BYTES,
  type ContentHeader,
  encodeContentHeader,
  encodeEnd,
  encodeMagic,
} from "@lockstep/protocol";
import type pg from "pg";
import { findContentHeaders, readFrames, readStored } from "../repository/content-read.ts";
import { PART_BYTES } from "../repository/copy-parts.ts";
import { unknownContent } from "./contents.ts";

/**
 * Many contents as one stream, in the order asked for, straight from the database and as they are stored there: the
 * hub neither decodes nor compresses nor copies. Small ones are fetched a lot at a time; while one lot is on its way to
 * the client the next one is on its way from the database. No connection is held while a slow client reads.
 */
const LOT_BYTES = 512 * 1024;
const LOT_CONTENTS = 1_000;
const HEADERS_AT_ONCE = 20_000;

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

/** Length of the whole stream in bytes. */
export function bundleLength(headers: readonly ContentHeader[]): number {
  const frames = headers.reduce((sum, header) => sum + CONTENT_HEADER_BYTES + header.stored, 0);
  return encodeMagic().length + frames + encodeEnd(0).length;
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
    const frames = await coming;
    coming = fetchLot(pool, lots[index + 1]);
    // Whoever stops reading in the middle leaves a query behind; its failure then concerns nobody.
    coming.catch(() => {});
    if (frames === null) for (const header of lot) yield* streamLarge(pool, header);
    else yield* frames;
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

/** The frames of a lot of small contents, or null for a large one, which is streamed when its turn comes. */
async function fetchLot(pool: pg.Pool, lot: readonly ContentHeader[] | undefined): Promise<Buffer[] | null> {
  return lot === undefined || (lot[0]?.stored ?? 0) > PART_BYTES ? null : await readFrames(pool, lot);
}

async function* streamLarge(
  pool: pg.Pool,
  header: ContentHeader,
): AsyncGenerator<Uint8Array, void, undefined> {
  yield encodeContentHeader(header);
  yield* readStored(pool, header);
}
