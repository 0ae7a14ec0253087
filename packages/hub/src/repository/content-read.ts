import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { createZstdDecompress } from "node:zlib";
import { isSha256, type Sha256 } from "@lockstep/core";
import { CONTENT_HEADER_BYTES, type ContentEncoding, type ContentHeader } from "@lockstep/protocol";
import type pg from "pg";
import { ENCODING_ZSTD } from "./content-write.ts";
import { PART_BYTES } from "./copy-parts.ts";
import { copyValue, digestArray } from "./copy-value.ts";

type Queryable = pg.Pool | pg.PoolClient;

/** Reads what is known of a content, or null when the repository has none. */
export async function findContent(client: Queryable, sha256: Sha256): Promise<ContentHeader | null> {
  const found = await findContentHeaders(client, [sha256]);
  return found.get(sha256) ?? null;
}

/** The same for many at once; absent ones are absent in the answer. */
export async function findContentHeaders(
  client: Queryable,
  digests: readonly Sha256[],
): Promise<Map<Sha256, ContentHeader>> {
  const { rows } = await client.query<[string, number, number, number]>({
    rowMode: "array",
    text: `select d.hex, c.size, c.encoding, c.stored from unnest($1::text[]) as d(hex)
      join content c on c.sha256 = decode(d.hex, 'hex')`,
    values: [digests],
  });
  return new Map(
    rows.map(([sha256, size, encoding, stored]) => [
      sha256,
      { sha256, size, encoding: toEncoding(encoding), stored },
    ]),
  );
}

function toEncoding(encoding: number): ContentEncoding {
  return encoding === ENCODING_ZSTD ? "zstd" : "identity";
}

/**
 * The stored bytes of a content from `start` on, in pieces: one query a part, so that never more than a part is in
 * memory.
 */
export async function* readStored(
  client: Queryable,
  header: ContentHeader,
  start = 0,
): AsyncGenerator<Buffer, void, undefined> {
  for (let seq = Math.floor(start / PART_BYTES); seq * PART_BYTES < header.stored; seq++) {
    let skip = Math.max(0, start - seq * PART_BYTES);
    for (const piece of await readPart(client, header.sha256, seq)) {
      const rest = piece.subarray(Math.min(skip, piece.length));
      skip -= piece.length - rest.length;
      if (rest.length > 0) yield rest;
    }
  }
}

async function readPart(client: Queryable, sha256: Sha256, seq: number): Promise<Buffer[]> {
  checkDigests([sha256]);
  const pieces = await copyValue(
    client,
    `select p.bytes from content c join content_part p on p.content = c.id
     where c.sha256 = '\\x${sha256}' and p.seq = ${Math.trunc(seq)}`,
  );
  // Collected between two parts: the reader is cut off and asks again.
  if (pieces === null) throw new RangeError(`part ${seq} of the content ${sha256} is gone`);
  return pieces;
}

/**
 * The frames of many contents of at most one part each, as they stand in a content stream, in the order asked for. The
 * database puts them together. Each content is looked up by its key: OFFSET 0 keeps the planner from reading the whole
 * table instead, which it would otherwise think cheaper.
 */
export async function readFrames(client: Queryable, headers: readonly ContentHeader[]): Promise<Buffer[]> {
  const digests = headers.map((header) => header.sha256);
  checkDigests(digests);
  const pieces = await copyValue(
    client,
    `select string_agg('\\x01'::bytea || sha256
         || case encoding when ${ENCODING_ZSTD} then '\\x01'::bytea else '\\x00'::bytea end
         || int8send(size) || int8send(stored) || coalesce(bytes, ''), ''::bytea)
     from (
       select c.*, p.bytes from unnest(${digestArray(digests)}) with ordinality as d(sha256, place)
       cross join lateral (select * from content c where c.sha256 = d.sha256 offset 0) as c
       left join lateral (select bytes from content_part p where p.content = c.id and p.seq = 0 offset 0) as p on true
       order by d.place
     ) as frame`,
  );
  const expected = headers.reduce((sum, header) => sum + CONTENT_HEADER_BYTES + header.stored, 0);
  const found = (pieces ?? []).reduce((sum, piece) => sum + piece.length, 0);
  if (pieces === null || found !== expected) throw new RangeError("a content is gone that was there before");
  return pieces;
}

/** They become part of a statement's text. */
function checkDigests(digests: readonly string[]): void {
  const wrong = digests.find((digest) => !isSha256(digest));
  if (wrong !== undefined) throw new RangeError(`${wrong} is no digest`);
}

const DECODED_CHUNK_BYTES = 256 * 1024;

/** Decodes stored parts on their way. */
export function createDecoder(parts: AsyncIterable<Uint8Array>): AsyncIterable<Buffer> {
  const decoder = createZstdDecompress({ chunkSize: DECODED_CHUNK_BYTES });
  // The pipeline hands every failure to the decoder, where the reader meets it.
  pipeline(Readable.from(parts, { objectMode: false }), decoder).catch(() => {});
  return decoder;
}
