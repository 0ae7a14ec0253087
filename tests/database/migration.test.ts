import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { isLockstepError } from "@lockstep/protocol";
import { withTransaction } from "../../packages/hub/src/db/connect.ts";
import { type Migration, migrate, readMigrations, schemaState } from "../../packages/hub/src/db/migrate.ts";
import { systemPrograms, usePostgres } from "../support/postgres.ts";

const system = systemPrograms();

function suite(server: ReturnType<typeof usePostgres>): void {
  test("an empty database is brought to the newest schema, once", async (t) => {
    const { pool } = await server.database(t, { empty: true });
    const known = await readMigrations();
    const before = await schemaState(pool);
    assert.equal(before.applied, 0);
    assert.equal(before.pending.length, known.length);
    assert.deepEqual(
      (await migrate(pool)).map(({ number }) => number),
      known.map(({ number }) => number),
    );
    assert.deepEqual(await migrate(pool), []);
    assert.deepEqual(await schemaState(pool), { applied: known.length, known: known.length, pending: [] });
  });

  test("of ten hubs that migrate at once exactly one does", async (t) => {
    const { pool } = await server.database(t, { empty: true });
    const applied = await Promise.all(Array.from({ length: 10 }, () => migrate(pool)));
    assert.equal(applied.filter((migrations) => migrations.length > 0).length, 1);
    const { rows } = await pool.query<{ count: number }>("select count(*) from schema_migration");
    assert.equal(rows[0]?.count, (await readMigrations()).length);
  });

  test("a newer schema is refused, and named", async (t) => {
    const { pool } = await server.database(t);
    const newer = (await readMigrations()).length + 1;
    await pool.query("insert into schema_migration (number, name, sha256) values ($1, 'future', 'x')", [
      newer,
    ]);
    const refused = (error: unknown) =>
      isLockstepError(error, "DATABASE_SCHEMA_NEWER") && error.found === `schema ${newer}`;
    await assert.rejects(migrate(pool), refused);
    await assert.rejects(schemaState(pool), refused);
  });

  test("a migration that was applied in another wording is refused", async (t) => {
    const { pool } = await server.database(t);
    await pool.query("update schema_migration set sha256 = 'other' where number = 1");
    await assert.rejects(migrate(pool), (error) => isLockstepError(error, "DATABASE_SCHEMA_DIFFERS"));
  });

  test("a migration that fails leaves the schema as it was", async (t) => {
    const { pool } = await server.database(t);
    const known = await readMigrations();
    const next = (number: number, sql: string): Migration => ({ number, name: "next", sha256: sql, sql });
    const failing = [
      ...known,
      next(known.length + 1, "create table half (id int)"),
      next(known.length + 2, "create table file_revision (id int)"),
    ];
    await assert.rejects(migrate(pool, { migrations: failing }), /already exists/);
    const { rows } = await pool.query(
      "select to_regclass('half') as half, max(number) as number from schema_migration",
    );
    assert.deepEqual(rows, [{ half: null, number: known.length }]);
  });

  test("a large bigint fails rather than being rounded", async (t) => {
    const { pool } = await server.database(t);
    const { rows } = await pool.query<{ n: number; a: number[] }>(
      "select 9007199254740991::bigint as n, array[1, null]::bigint[] as a",
    );
    assert.deepEqual(rows, [{ n: Number.MAX_SAFE_INTEGER, a: [1, null] }]);
    await assert.rejects(pool.query("select 9007199254740992::bigint"), RangeError);
  });

  test("a transaction whose failed statement was swallowed does not look committed", async (t) => {
    const { pool } = await server.database(t);
    await assert.rejects(
      withTransaction(pool, async ({ client }) => {
        await client.query("insert into setting (name, value) values ('a', '1')");
        await client.query("select 1 / 0").catch(() => {});
      }),
      (error) => isLockstepError(error, "INTERNAL"),
    );
    const { rowCount } = await pool.query("select from setting where name = 'a'");
    assert.equal(rowCount, 0);
  });

  test("Kysely and the plain client share one transaction", async (t) => {
    const { pool } = await server.database(t);
    await assert.rejects(
      withTransaction(pool, async ({ client, db }) => {
        await db
          .insertInto("module")
          .values({ id: "ABC", name: null, version: "1", loaded_at: null })
          .execute();
        const { rowCount } = await client.query("select from module where id = 'ABC'");
        assert.equal(rowCount, 1);
        throw new Error("no");
      }),
      /no/,
    );
    const { rowCount } = await pool.query("select from module where id = 'ABC'");
    assert.equal(rowCount, 0);
  });
}

describe("migration on the hub's own PostgreSQL", () => suite(usePostgres()));

describe("migration on the machine's PostgreSQL", { skip: system === null && "none installed" }, () => {
  if (system !== null) suite(usePostgres({ programs: system }));
});
