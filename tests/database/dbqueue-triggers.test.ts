/** How tasks get into the queue: by whoever changes the tables, once, and never too early. */
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import test from "node:test";
import { openDatabase, type Transaction, withTransaction } from "../../packages/hub/src/db/connect.ts";
import { claimNext } from "../../packages/hub/src/dbqueue/claim.ts";
import { type TestDatabase, usePostgres } from "../support/postgres.ts";

/** A package of the hub's, not of the tests'. */
const copyStreams: typeof import("pg-copy-streams") = createRequire(
  new URL("../../packages/hub/package.json", import.meta.url),
)("pg-copy-streams");
const server = usePostgres();
const REVISION = "LOCKSTEP-K-SoftwareRevision";
const ARCHIVE = "LOCKSTEP-K-UpdateArchive";

async function waiting(database: TestDatabase): Promise<string[]> {
  const rows = await database.db.selectFrom("dbqueue_task").select("task").orderBy("task").execute();
  return rows.map(({ task }) => task);
}

const empty = (database: TestDatabase) => database.pool.query("delete from dbqueue_task");
const addFile = (path: string) =>
  `insert into file_revision (path, path_key, module_id) values ('${path}', '${path}', 'CCC')`;

test("any change of any table that decides who gets what asks for the software revision, once", async (t) => {
  const database = await server.database(t);
  await database.pool.query(addFile("base"));
  await database.pool.query(
    "insert into deploy_target (kind, name) values ('role', 'Server'), ('package', 'A/One'), ('package', 'A/Two')",
  );
  const changes = [
    [
      "insert into file_has_deploy_target select f.id, d.id from file_revision f, deploy_target d where d.name = 'Server'",
      [REVISION],
    ],
    [
      "update file_has_deploy_target set target_id = (select id from deploy_target where name = 'A/One')",
      [REVISION],
    ],
    [
      "insert into role_has_package (role_id, package_id, module_id) select r.id, p.id, 'CCC' from deploy_target r, deploy_target p where r.name = 'Server' and p.name = 'A/One'",
      [REVISION],
    ],
    ["update role_has_package set subdirectory = 'bin'", [REVISION]],
    [
      "insert into package_requires select a.id, b.id from deploy_target a, deploy_target b where a.name = 'A/One' and b.name = 'A/Two'",
      [REVISION],
    ],
    ["delete from package_requires", [REVISION]],
    ["update deploy_target set description = 'x'", [REVISION]],
    [addFile("new"), [REVISION, ARCHIVE]],
    ["update file_revision set mode = 493", [REVISION, ARCHIVE]],
    ["delete from file_revision where path = 'new'", [REVISION, ARCHIVE]],
    ["truncate file_has_deploy_target", [REVISION, ARCHIVE]],
    ["truncate file_revision cascade", [REVISION, ARCHIVE]],
    [addFile("Update.zip"), [REVISION]],
    [addFile("a.update.mjs"), [REVISION, ARCHIVE]],
    [
      "insert into file_has_deploy_target select f.id, d.id from file_revision f, deploy_target d where f.path = 'a.update.mjs' and d.name = 'Server'",
      [REVISION, ARCHIVE],
    ],
    [
      "update file_has_deploy_target set file_id = (select id from file_revision where path = 'Update.zip')",
      [REVISION, ARCHIVE],
    ],
  ] as const;
  for (const [statement, expected] of changes) {
    await empty(database);
    await database.pool.query(statement);
    assert.deepEqual(await waiting(database), expected, statement);
  }
});

test("many changes in many transactions before a run leave one entry (behaviours 7, 78)", async (t) => {
  const database = await server.database(t);
  for (let n = 0; n < 20; n += 1) await database.pool.query(addFile(`file${n}`));
  await withTransaction(database.pool, async ({ client }) => {
    const copy = client.query(copyStreams.from("copy file_revision (path, path_key, module_id) from stdin"));
    const lines = Array.from({ length: 500 }, (_, n) => `copied${n}\tcopied${n}\tCCC\n`);
    await pipeline(Readable.from(lines), copy);
  });
  assert.deepEqual(await waiting(database), [REVISION, ARCHIVE]);
});

test("a statement that changes no row, and one that is rolled back, ask for nothing", async (t) => {
  const database = await server.database(t);
  await database.pool.query("update file_revision set mode = 420");
  await database.pool.query("delete from deploy_target where name = 'nobody'");
  const client = await database.pool.connect();
  await client.query("begin");
  await client.query(addFile("rolled-back"));
  await client.query("rollback");
  await client.query("begin");
  await client.query("savepoint s");
  await client.query(addFile("rolled-back"));
  await client.query("rollback to s");
  await client.query("commit");
  client.release();
  assert.deepEqual(await waiting(database), []);
  await database.pool.query(`do $$ begin
    begin ${addFile("undone")}; raise 'undo'; exception when others then null; end;
    ${addFile("kept")};
  end $$`);
  assert.deepEqual(await waiting(database), [REVISION, ARCHIVE]);
});

test("a writer who may write only the file table asks as well, under whatever search path", async (t) => {
  const database = await server.database(t);
  const clerk = `clerk_${database.address.database}`;
  await withSuperuser(database, async (superuser) => {
    await superuser.query(`create role ${clerk}`);
    try {
      await superuser.query(`grant insert on file_revision to ${clerk}`);
      await superuser.query(`create schema elsewhere; create table elsewhere.dbqueue_request (trap int)`);
      await superuser.query(`set role ${clerk}; set search_path to elsewhere, public`);
      await superuser.query(
        `insert into public.file_revision (path, path_key, module_id) values ('c', 'c', 'CCC')`,
      );
      assert.deepEqual(await waiting(database), [REVISION, ARCHIVE]);
    } finally {
      await superuser.query(`reset role; drop owned by ${clerk}; drop role ${clerk}`);
    }
  });
});

test("a long transaction does not make other writers wait, and they do not make it fail", async (t) => {
  const database = await server.database(t);
  const long = await database.pool.connect();
  await long.query("begin");
  await long.query(addFile("a"));
  await withTransaction(database.pool, async ({ client }) => {
    await client.query("set local lock_timeout = '5s'");
    await client.query(addFile("b"));
  });
  await long.query(addFile("c"));
  await long.query("commit");
  long.release();
  assert.deepEqual(await waiting(database), [REVISION, ARCHIVE]);
});

test("a task is not claimed while a transaction that asked for it has not committed", async (t) => {
  const database = await server.database(t);
  await database.pool.query(
    "insert into dbqueue_definition (task, bulk, max_instance) values ($1, false, 1)",
    [REVISION],
  );
  await database.pool.query("select dbqueue_insert_single($1)", [REVISION]);
  const claim = async () => {
    const client = await database.pool.connect();
    try {
      const result = await claimNext(client, {
        claim: crypto.randomUUID(),
        hubId: "h",
        slot: 1,
        schema: 99,
        capable: new Set([REVISION]),
        blockingAttempts: 3,
        bulkRowsMax: 10,
      });
      return result.claim;
    } finally {
      client.release();
    }
  };
  // The request is made now, as it would be inside the commit, and the commit itself is still to come.
  const writer = await database.pool.connect();
  await writer.query("begin");
  await writer.query("select dbqueue_insert_single($1)", [REVISION]);
  await writer.query("set constraints all immediate");
  assert.equal(await claim(), null);
  await writer.query("commit");
  writer.release();
  assert.equal((await claim())?.task, REVISION);
  // It is being processed now; the next request waits for its own run.
  await database.pool.query("select dbqueue_insert_single($1)", [REVISION]);
  assert.deepEqual(await waiting(database), [REVISION]);
  assert.equal(await claim(), null);
});

test("many writers at once neither deadlock nor lose a request", async (t) => {
  const database = await server.database(t, { max: 16 });
  await Promise.all(
    Array.from({ length: 16 }, async (_, writer) => {
      for (let n = 0; n < 15; n += 1) {
        await withTransaction(database.pool, async ({ client }) => {
          // In another order each time.
          const tasks = ["A", "B", "C", "D"].sort(() => ((writer + n) % 2 === 0 ? 1 : -1));
          for (const task of tasks)
            await client.query("select dbqueue_insert_single($1, $2)", [task, `o${n}`]);
        });
      }
    }),
  );
  assert.equal((await waiting(database)).length, 60);
  const left = await database.pool.query("select from dbqueue_request");
  assert.equal(left.rowCount, 0);
});

test("moving the semaphore is told, also when plain SQL moves it", async (t) => {
  const database = await server.database(t);
  const listener = await database.pool.connect();
  const heard = new Promise<string | undefined>((resolve) =>
    listener.once("notification", ({ payload }) => resolve(payload)),
  );
  await listener.query("listen lockstep_revision");
  await database.pool.query("update semaphore set value = value where name = 'SoftwareRevision'");
  await database.pool.query("update semaphore set value = 7 where name = 'SoftwareRevision'");
  assert.equal(await heard, "7");
  listener.release(true);
});

async function withSuperuser(
  database: TestDatabase,
  fn: (client: Transaction["client"]) => Promise<void>,
): Promise<void> {
  const admin = await openDatabase(
    { ...server.adminAddress(), database: database.address.database },
    { max: 1 },
  );
  const client = await admin.pool.connect();
  try {
    await fn(client);
  } finally {
    client.release();
    await admin.close();
  }
}
