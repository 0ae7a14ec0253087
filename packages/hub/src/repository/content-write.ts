import { createHash, hash } from "node:crypto";
import { constants, zstdCompressSync } from "node:zlib";
import type { Sha256 } from "@lockstep/core";
import type pg from "pg";
import { batches } from "./batches.ts";
import { PART_BYTES } from "./copy-parts.ts";

export const ENCODING_IDENTITY = 0;
export const ENCODING_ZSTD = 1;

/** A content as its row says it. */
export interface ContentRow {
  /** What its parts refer to; see `drawContentIds`. */
  readonly id: number;
  readonly sha256: Sha256;
  readonly size: number;
  readonly encoding: typeof ENCODING_IDENTITY | typeof ENCODING_ZSTD;
  readonly stored: number;
}

/** Ids for contents that are going to be stored: nobody else ever gets them, whether they are used or not. */
export async function drawContentIds(client: pg.PoolClient, count: number): Promise<number[]> {
  if (count === 0) return [];
  const { rows } = await client.query<{ id: number }>(
    "select nextval(pg_get_serial_sequence('content', 'id')) as id from generate_series(1, $1)",
    [count],
  );
  return rows.map(({ id }) => id);
}

/**
 * Inserts the rows of contents whose parts were written before. Of a content that somebody else has stored meanwhile the
 * parts are removed again. Returns the others.
 */
export async function insertContents(
  client: pg.PoolClient,
  contents: readonly ContentRow[],
): Promise<ContentRow[]> {
  const inserted: ContentRow[] = [];
  for (const batch of batches(contents)) inserted.push(...(await insertBatch(client, batch)));
  return inserted;
}

async function insertBatch(
  client: pg.PoolClient,
  contents: readonly ContentRow[],
): Promise<readonly ContentRow[]> {
  const { rows } = await client.query<{ id: number }>(
    `insert into content (id, sha256, size, encoding, stored)
     select id, decode(sha256, 'hex'), size, encoding, stored
     from unnest($1::bigint[], $2::text[], $3::bigint[], $4::smallint[], $5::bigint[])
       as c(id, sha256, size, encoding, stored)
     on conflict (sha256) do nothing returning id`,
    [
      contents.map((content) => content.id),
      contents.map((content) => content.sha256),
      contents.map((content) => content.size),
      contents.map((content) => content.encoding),
      contents.map((content) => content.stored),
    ],
  );
  if (rows.length === contents.length) return contents;
  const inserted = new Set(rows.map(({ id }) => id));
  const superfluous = contents.map(({ id }) => id).filter((id) => !inserted.has(id));
  await client.query("delete from content_part where content = any($1)", [superfluous]);
  return contents.filter(({ id }) => inserted.has(id));
}

/** Which of these digests the repository has, with the sizes of the contents. */
export async function findContents(
  client: pg.Pool | pg.PoolClient,
  digests: readonly Sha256[],
): Promise<Map<Sha256, number>> {
  const found = new Map<Sha256, number>();
  for (const batch of batches(digests)) {
    const { rows } = await client.query<[string, number]>({
      rowMode: "array",
      text: `select d.hex, c.size from unnest($1::text[]) as d(hex)
        join content c on c.sha256 = decode(d.hex, 'hex')`,
      values: [batch],
    });
    for (const [sha256, size] of rows) found.set(sha256, size);
  }
  return found;
}

/**
 * Stores a content that the hub itself made and holds in memory (a manifest, Update.zip), if it is not there already.
 * Compressed when that is smaller; the same bytes give the same row on every hub of this version.
 */
export async function storeContent(client: pg.PoolClient, bytes: Uint8Array): Promise<Sha256> {
  const sha256 = hash("sha256", bytes, "hex");
  const { rowCount } = await client.query("select from content where sha256 = decode($1, 'hex')", [sha256]);
  if (rowCount !== 0) return sha256;
  const packed = zstdCompressSync(bytes, { params: { [constants.ZSTD_c_compressionLevel]: 6 } });
  const stored = packed.length < bytes.length ? packed : bytes;
  const [id = 0] = await drawContentIds(client, 1);
  for (let seq = 0, at = 0; at < stored.length; seq++, at += PART_BYTES)
    await client.query("insert into content_part (content, seq, bytes) values ($1, $2, $3)", [
      id,
      seq,
      stored.subarray(at, at + PART_BYTES),
    ]);
  await insertContents(client, [
    {
      id,
      sha256,
      size: bytes.length,
      encoding: stored === bytes ? ENCODING_IDENTITY : ENCODING_ZSTD,
      stored: stored.length,
    },
  ]);
  return sha256;
}

/** SHA-256 over pieces of text, in hex. */
export function digestText(pieces: Iterable<string>): Sha256 {
  const digest = createHash("sha256");
  for (const piece of pieces) digest.update(piece);
  return digest.digest("hex");
}
