import type pg from "pg";
import { to as copyTo } from "pg-copy-streams";

/**
 * Reads one bytea out of the database by COPY, in pieces as they come from the connection.
 *
 * As a row of a result it would be put together in a buffer that grows by doubling, so that each byte is copied three
 * times and each buffer brings the next garbage collection nearer. This way nothing is copied: serving 100 MB takes an
 * eighth of the processor time (measured with 35,000 files).
 */
const SIGNATURE_BYTES = 19;
const TUPLE_HEAD_BYTES = 2 + 4;
const TRAILER_BYTES = 2;

/**
 * Runs a query that gives one row with one bytea, written without parameters. Returns its pieces; null when there is
 * no row or the value is null.
 */
export async function copyValue(client: pg.Pool | pg.PoolClient, query: string): Promise<Buffer[] | null> {
  // A pool knows how many connections it has.
  if (!("totalCount" in client)) return toValue(await readAll(client, query));
  const connection = await client.connect();
  let broken = true;
  try {
    const pieces = await readAll(connection, query);
    broken = false;
    return toValue(pieces);
  } finally {
    connection.release(broken);
  }
}

async function readAll(client: pg.PoolClient, query: string): Promise<Buffer[]> {
  const pieces: Buffer[] = [];
  const stream = client.query(copyTo(`copy (${query}) to stdout (format binary)`));
  for await (const piece of stream) pieces.push(piece as Buffer);
  return pieces;
}

/** Takes the framing of COPY's binary format off: signature, one tuple with one value, trailer. */
function toValue(pieces: readonly Buffer[]): Buffer[] | null {
  const total = pieces.reduce((sum, piece) => sum + piece.length, 0);
  const head = Buffer.concat(pieces.slice(0, 2)).subarray(0, SIGNATURE_BYTES + TUPLE_HEAD_BYTES);
  // Without a row the trailer follows at once.
  if (head.length < SIGNATURE_BYTES + TUPLE_HEAD_BYTES) return null;
  if (head.readInt16BE(SIGNATURE_BYTES) !== 1)
    throw new RangeError("COPY gave another number of values than one");
  const length = head.readInt32BE(SIGNATURE_BYTES + 2);
  if (length < 0) return null;
  if (total !== head.length + length + TRAILER_BYTES) throw new RangeError("COPY gave more than one row");
  const value: Buffer[] = [];
  let skip = head.length;
  let left = length;
  for (const piece of pieces) {
    const rest = piece.subarray(Math.min(skip, piece.length));
    skip -= piece.length - rest.length;
    const taken = rest.subarray(0, left);
    left -= taken.length;
    if (taken.length > 0) value.push(taken);
  }
  return value;
}

/** Digests as a literal array. They must have been checked to be such. */
export function digestArray(digests: readonly string[]): string {
  return `'{${digests.map((digest) => `"\\\\x${digest}"`).join(",")}}'::bytea[]`;
}
