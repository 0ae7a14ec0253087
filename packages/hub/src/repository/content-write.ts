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
  readonly sha256: Sha256;
  readonly size: number;
  readonly encoding: typeof ENCODING_IDENTITY | typeof ENCODING_ZSTD;
  readonly stored: number;
}

/** Inserts the rows of contents whose parts were copied in before. */
export async function insertContents(client: pg.PoolClient, contents: readonly ContentRow[]): Promise<void> {
  for (const batch of batches(contents)) await insertBatch(client, batch);
}

async function insertBatch(client: pg.PoolClient, contents: readonly ContentRow[]): Promise<void> {
  await client.query(
    `insert into content (sha256, size, encoding, stored)
     select decode(sha256, 'hex'), size, encoding, stored
     from unnest($1::text[], $2::bigint[], $3::smallint[], $4::bigint[]) as c(sha256, size, encoding, stored)`,
    [
      contents.map((content) => content.sha256),
      contents.map((content) => content.size),
      contents.map((content) => content.encoding),
      contents.map((content) => content.stored),
    ],
  );
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
  const digest = Buffer.from(sha256, "hex");
  for (let seq = 0, at = 0; at < stored.length; seq++, at += PART_BYTES)
    await client.query("insert into content_part (sha256, seq, bytes) values ($1, $2, $3)", [
      digest,
      seq,
      stored.subarray(at, at + PART_BYTES),
    ]);
  await insertContents(client, [
    {
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
