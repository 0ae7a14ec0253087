import { EMPTY_LOG, type KeyRole, type LogHead } from "@lockstep/trust";
import type pg from "pg";

/** The rows of signed metadata. Whoever writes holds the trust lock; bytes are never altered. */
export interface StoredDocument {
  readonly version: number;
  readonly bytes: Buffer;
  readonly expiresMs: number;
}

type Connection = pg.Pool | pg.PoolClient;

/** Metadata is written by one at a time, over all hubs of a database. */
const TRUST_LOCK = 0x4c4f434b_00000007n;

export async function lockTrust(client: pg.PoolClient): Promise<void> {
  await client.query("select pg_advisory_xact_lock($1)", [TRUST_LOCK]);
}

/** The newest document of a role, or null. */
export async function newestDocument(client: Connection, role: KeyRole): Promise<StoredDocument | null> {
  return await queryOne(client, "where role = $1 order by version desc limit 1", [role]);
}

export async function documentOf(
  client: Connection,
  role: KeyRole,
  version: number,
): Promise<StoredDocument | null> {
  return await queryOne(client, "where role = $1 and version = $2", [role, version]);
}

async function queryOne(
  client: Connection,
  where: string,
  values: unknown[],
): Promise<StoredDocument | null> {
  const { rows } = await client.query<{ version: number; bytes: Buffer; expiresAt: Date }>(
    `select version, bytes, expires_at as "expiresAt" from trust_document ${where}`,
    values,
  );
  const row = rows[0];
  return row === undefined
    ? null
    : { version: row.version, bytes: row.bytes, expiresMs: row.expiresAt.getTime() };
}

export async function storeDocument(
  client: pg.PoolClient,
  role: KeyRole,
  version: number,
  bytes: Uint8Array,
  expiresMs: number,
): Promise<void> {
  await client.query(
    "insert into trust_document (role, version, bytes, expires_at) values ($1, $2, $3, $4)",
    [role, version, Buffer.from(bytes), new Date(expiresMs)],
  );
  if (role === "timestamp")
    await client.query("delete from trust_document where role = 'timestamp' and version < $1", [version]);
}

/** Installations that are ordered to a revision, in the order of their ids. */
export async function orderedInstallations(client: Connection): Promise<string[]> {
  const { rows } = await client.query<{ installation: string }>(
    "select installation from installation_order where revision is not null order by installation",
  );
  return rows.map(({ installation }) => installation);
}

/** The head of the log of releases of an epoch. */
export async function logHead(client: Connection, epoch: number): Promise<LogHead> {
  const { rows } = await client.query<{ size: number; head: string }>(
    `select index as size, encode(head, 'hex') as head from trust_release
     where epoch = $1 order by index desc limit 1`,
    [epoch],
  );
  return rows[0] ?? EMPTY_LOG;
}

/** Roots that are told at once; more come one by one. */
const ROOTS_MAX = 16;

/** Documents that are newer than what somebody has, by one look at the database, roots first and in their order. */
export async function newerDocuments(
  pool: pg.Pool,
  known: { readonly root: number; readonly snapshot: number; readonly targets: number },
): Promise<{ readonly role: KeyRole; readonly version: number; readonly bytes: Buffer }[]> {
  const { rows } = await pool.query<{ role: KeyRole; version: number; bytes: Buffer }>(
    `select role, version, bytes from trust_document d
     where (role = 'root' and version > $1 and version <= $1::bigint + ${ROOTS_MAX})
        or (version = (select max(version) from trust_document n where n.role = d.role)
            and (role = 'timestamp' or (role = 'snapshot' and version > $2) or (role = 'targets' and version > $3)))
     order by array_position(array['root', 'timestamp', 'snapshot', 'targets'], role), version`,
    [known.root, known.snapshot, known.targets],
  );
  return rows;
}
