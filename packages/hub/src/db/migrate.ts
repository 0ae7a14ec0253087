/**
 * Numbered migrations. Each sql/NNNN-name.sql is applied once, in order; what was applied is recorded with its digest.
 *
 * Several hubs may start on one database at the same time: an advisory lock lets one of them migrate and the others
 * find it done. All missing migrations run in ONE transaction, so the schema is at one number before and after, also
 * when the power fails in the middle. A hub that meets a schema newer than its own refuses to work with it; so does one
 * that finds a migration applied whose text is not the one it knows.
 */
import { createHash } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { LockstepError } from "@lockstep/protocol";
import type pg from "pg";
import { toDatabaseError, withTransaction } from "./connect.ts";

export interface Migration {
  readonly number: number;
  readonly name: string;
  readonly sha256: string;
  readonly sql: string;
}

export interface SchemaState {
  /** Number of the newest migration in the database; 0 for an empty one. */
  readonly applied: number;
  /** Number of the newest migration that this hub knows. */
  readonly known: number;
  /** What `migrate` would apply. */
  readonly pending: readonly Pick<Migration, "number" | "name">[];
}

const SHIPPED = new URL("./sql/", import.meta.url);
const FILE_NAME = /^(\d{4})-([a-z0-9-]+)\.sql$/;
/** Key of the advisory lock: the bytes of "LOCKSTEP". Any constant does; it must only stay the same. */
export const MIGRATION_LOCK = 0x4c4f434b_53544550n;

/** The migrations of a directory (default: those that ship), in order. Throws INTERNAL when a number is missing or twice. */
export async function readMigrations(directory: URL = SHIPPED): Promise<readonly Migration[]> {
  const names = (await readdir(directory)).filter((name) => FILE_NAME.test(name)).sort();
  const migrations = await Promise.all(
    names.map(async (file) => {
      const [, number = "", name = ""] = FILE_NAME.exec(file) ?? [];
      const sql = await readFile(new URL(file, directory), "utf8");
      return { number: Number(number), name, sql, sha256: createHash("sha256").update(sql).digest("hex") };
    }),
  );
  migrations.forEach((migration, index) => {
    if (migration.number !== index + 1) {
      throw new LockstepError("INTERNAL", "the migrations are not numbered without gaps", {
        expected: index + 1,
        found: migration.number,
      });
    }
  });
  return migrations;
}

/**
 * Brings the database to the newest schema. Any number of hubs may call it at once.
 * Returns the migrations that this call applied. Throws DATABASE_SCHEMA_NEWER, DATABASE_SCHEMA_DIFFERS,
 * DATABASE_UNREACHABLE.
 */
export async function migrate(
  pool: pg.Pool,
  options: { readonly migrations?: readonly Migration[] } = {},
): Promise<readonly Migration[]> {
  const migrations = options.migrations ?? (await readMigrations());
  try {
    return await withTransaction(pool, async ({ client }) => {
      await client.query("select pg_advisory_xact_lock($1)", [MIGRATION_LOCK]);
      await fixSearchPath(client);
      await client.query(`create table if not exists schema_migration (
        number integer primary key, name text not null, sha256 text not null,
        applied_at timestamptz not null default now())`);
      const pending = pendingOf(await appliedMigrations(client), migrations);
      for (const migration of pending) {
        await client.query(migration.sql);
        await client.query("insert into schema_migration (number, name, sha256) values ($1, $2, $3)", [
          migration.number,
          migration.name,
          migration.sha256,
        ]);
      }
      return pending;
    });
  } catch (error) {
    throw toDatabaseError(error);
  }
}

/** What the schema is and what it would become. Changes nothing. Throws as `migrate` does. */
export async function schemaState(
  pool: pg.Pool,
  options: { readonly migrations?: readonly Migration[] } = {},
): Promise<SchemaState> {
  const migrations = options.migrations ?? (await readMigrations());
  const { rows } = await pool.query<{ present: boolean }>(
    "select to_regclass('schema_migration') is not null as present",
  );
  const applied = rows[0]?.present === true ? await appliedMigrations(pool) : [];
  return {
    applied: applied.at(-1)?.number ?? 0,
    known: migrations.length,
    pending: pendingOf(applied, migrations).map(({ number, name }) => ({ number, name })),
  };
}

let shippedNumber: Promise<number> | null = null;

/**
 * Throws DATABASE_SCHEMA_NEWER when another hub has brought the database beyond the schema of this one, which may happen
 * at any time while this one runs. For whoever is about to change something: one small query.
 */
export async function demandKnownSchema(client: pg.Pool | pg.PoolClient): Promise<void> {
  shippedNumber ??= readMigrations().then((migrations) => migrations.length);
  const known = await shippedNumber;
  const { rows } = await client.query<{ newest: number | null }>(
    "select max(number) as newest from schema_migration",
  );
  const newest = rows[0]?.newest ?? 0;
  if (newest > known) throw schemaNewer(known, newest);
}

function schemaNewer(known: number, found: number): LockstepError {
  return new LockstepError("DATABASE_SCHEMA_NEWER", "the database belongs to a newer hub", {
    expected: `schema ${known} or older`,
    found: `schema ${found}`,
    hint: "start the newer hub, or restore the backup that was made before the update",
  });
}

type Applied = Pick<Migration, "number" | "name" | "sha256">;

async function appliedMigrations(client: pg.Pool | pg.PoolClient): Promise<readonly Applied[]> {
  const { rows } = await client.query<Applied>(
    "select number, name, sha256 from schema_migration order by number",
  );
  return rows;
}

/** The functions of the schema keep the search path of now; a schema of the writer's own must not come before ours. */
async function fixSearchPath(client: pg.PoolClient): Promise<void> {
  const { rows } = await client.query<{ schema: string | null }>("select current_schema() as schema");
  const schema = rows[0]?.schema ?? null;
  if (schema === null) {
    throw new LockstepError("DATABASE_UNREACHABLE", "the database user has no schema to work in", {
      hint: "create the schema that the user's search_path names, and grant usage and create on it",
    });
  }
  await client.query(`set local search_path to ${client.escapeIdentifier(schema)}, pg_temp`);
}

function pendingOf(applied: readonly Applied[], known: readonly Migration[]): readonly Migration[] {
  const newest = applied.at(-1)?.number ?? 0;
  if (newest > known.length) throw schemaNewer(known.length, newest);
  for (const [index, migration] of applied.entries()) {
    const ours = known[index];
    if (ours === undefined || ours.number !== migration.number || ours.sha256 !== migration.sha256) {
      throw new LockstepError(
        "DATABASE_SCHEMA_DIFFERS",
        `migration ${migration.number} (${migration.name}) was applied in another wording`,
        {
          expected: ours?.sha256 ?? "none",
          found: migration.sha256,
          hint: "this database was made by a development version of the hub; start with an empty one",
        },
      );
    }
  }
  return known.slice(applied.length);
}
