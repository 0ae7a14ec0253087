import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { createZstdDecompress } from "node:zlib";
import type { Sha256 } from "@lockstep/core";
import type { ContentEncoding, ContentHeader } from "@lockstep/protocol";
import type pg from "pg";
import { ENCODING_ZSTD } from "./content-write.ts";
import { PART_BYTES } from "./copy-parts.ts";

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
 * The stored bytes of a content from `start` on, part by part: one query a part, so that never more than a part is in
 * memory. As text, although that is twice as long: pg reads the values of every row as UTF-8, the binary ones as well,
 * and so destroys them.
 */
export async function* readStored(
  client: Queryable,
  header: ContentHeader,
  start = 0,
): AsyncGenerator<Buffer, void, undefined> {
  const digest = Buffer.from(header.sha256, "hex");
  for (let seq = Math.floor(start / PART_BYTES); seq * PART_BYTES < header.stored; seq++) {
    const bytes = await readPart(client, digest, seq);
    const skip = Math.max(0, start - seq * PART_BYTES);
    yield skip === 0 ? bytes : bytes.subarray(skip);
  }
}

async function readPart(client: Queryable, digest: Buffer, seq: number): Promise<Buffer> {
  const { rows } = await client.query<{ bytes: Buffer }>({
    name: "content-part",
    text: "select bytes from content_part where sha256 = $1 and seq = $2",
    values: [digest, seq],
  });
  const bytes = rows[0]?.bytes;
  // Collected between two parts: the reader is cut off and asks again.
  if (bytes === undefined)
    throw new RangeError(`part ${seq} of the content ${digest.toString("hex")} is gone`);
  return bytes;
}

/** The stored bytes of many contents of one part each, in one query. */
export async function readWholeParts(
  client: Queryable,
  digests: readonly Sha256[],
): Promise<Map<Sha256, Buffer>> {
  const { rows } = await client.query<{ sha256: Buffer; bytes: Buffer }>({
    name: "content-whole-parts",
    text: "select sha256, bytes from content_part where sha256 = any($1::bytea[]) and seq = 0",
    values: [digests.map((digest) => Buffer.from(digest, "hex"))],
  });
  return new Map(rows.map(({ sha256, bytes }) => [sha256.toString("hex"), bytes]));
}

const DECODED_CHUNK_BYTES = 256 * 1024;

/** Decodes stored parts on their way. */
export function createDecoder(parts: AsyncIterable<Uint8Array>): AsyncIterable<Buffer> {
  const decoder = createZstdDecompress({ chunkSize: DECODED_CHUNK_BYTES });
  // The pipeline hands every failure to the decoder, where the reader meets it.
  pipeline(Readable.from(parts, { objectMode: false }), decoder).catch(() => {});
  return decoder;
}
