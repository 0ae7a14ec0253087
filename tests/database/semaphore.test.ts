/**
 * The semaphore and the file revisions (behaviours 3 to 8), with the procedures that ship and writers that know nothing
 * but SQL.
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, describe, test } from "node:test";
import { silentLogger, systemClock } from "@lockstep/platform";
import type { Procedure } from "../../packages/hub/src/dbqueue/procedure.ts";
import { collectContentProcedure } from "../../packages/hub/src/repository/collect-content.ts";
import { softwareRevisionProcedure } from "../../packages/hub/src/repository/software-revision.ts";
import { updateArchiveProcedure } from "../../packages/hub/src/repository/update-archive.ts";
import { TrustPublisher } from "../../packages/hub/src/trust/publisher.ts";
import { isIdle, startQueue, until } from "../support/dbqueue.ts";
import { systemPrograms, type TestDatabase, type TestServer, usePostgres } from "../support/postgres.ts";

const system = systemPrograms();

/** The archive's updater is some program; which one is none of this test's business. */
const publisher = new TrustPublisher({
  dataDirectory: mkdtempSync(join(tmpdir(), "lockstep-keys-")),
  passphrase: null,
  clock: systemClock,
  log: silentLogger,
});
after(() => rmSync(dirname(publisher.keysDirectory), { recursive: true, force: true }));

const procedures = (): readonly Procedure[] => [
  softwareRevisionProcedure(publisher),
  collectContentProcedure({ now: () => Date.now() }),
  updateArchiveProcedure({ version: "0", load: async () => Buffer.from("export {};\n") }),
];

async function semaphore({ pool }: TestDatabase): Promise<number> {
  const { rows } = await pool.query<{ value: number }>(
    "select value from semaphore where name = 'SoftwareRevision'",
  );
  return rows[0]?.value ?? -1;
}

/** Puts one file in as an administrator at a SQL prompt would: content, file revision, machine role. */
async function putFile({ pool }: TestDatabase, path: string, text: string): Promise<void> {
  const content = Buffer.from(text);
  const sha256 = createHash("sha256").update(content).digest();
  await pool.query(
    `with stored as (
       insert into content (sha256, size, encoding, stored) values ($2, $4, 0, $4) on conflict do nothing returning id
     ), part as (
       insert into content_part (content, seq, bytes) select id, 0, $3 from stored
     ), role as (
       insert into deploy_target (kind, name) values ('role', 'Server') on conflict (kind, name) do update set name = excluded.name returning id
     ), file as (
       insert into file_revision (path, path_key, module_id, size, sha256) values ($1, lower($1), 'CCC', $4, $2)
       on conflict (path) do update set size = excluded.size, sha256 = excluded.sha256 returning id
     )
     insert into file_has_deploy_target select file.id, role.id from file, role on conflict do nothing`,
    [path, sha256, content, content.length],
  );
}

async function runs({ pool }: TestDatabase): Promise<number> {
  const { rows } = await pool.query<{ n: number }>(
    "select count(*) as n from dbqueue_journal where task = 'LOCKSTEP-K-SoftwareRevision' and event = 'done'",
  );
  return rows[0]?.n ?? 0;
}

function suite(server: TestServer): void {
  test("adding, changing and deleting a file moves the semaphore; the same content again does not (3, 4, 5, 8)", async (t) => {
    const database = await server.database(t);
    await publisher.begin(database.pool);
    await startQueue(database, procedures());
    const settled = async (): Promise<number> => {
      await until(() => isIdle(database.pool));
      return await semaphore(database);
    };
    await putFile(database, "bin/a", "one");
    const added = await settled();
    assert.ok(added > 0);
    await putFile(database, "bin/a", "two");
    const changed = await settled();
    assert.equal(changed, added + 1);
    await putFile(database, "bin/a", "two");
    assert.equal(await settled(), changed);
    await database.pool.query("delete from file_revision where path = 'bin/a'");
    assert.equal(await settled(), changed + 1);
    // A file that belongs to nothing is in nobody's set.
    await database.pool.query(
      "insert into file_revision (path, path_key, module_id) values ('x', 'x', 'CCC')",
    );
    assert.equal(await settled(), changed + 1);
  });

  test("many changes before the processor runs are one recalculation, and until then the old value stands (6, 7)", async (t) => {
    const database = await server.database(t);
    await publisher.begin(database.pool);
    const queue = await startQueue(database, procedures());
    await putFile(database, "bin/first", "0");
    await until(() => isIdle(database.pool));
    const before = await semaphore(database);
    const runsBefore = await runs(database);
    await queue.setStopped(true, "to look at what clients see meanwhile");
    for (let n = 0; n < 20; n += 1) await putFile(database, `bin/file${n}`, `text ${n}`);
    assert.equal(await semaphore(database), before);
    const { tasks } = await queue.status();
    const waiting = tasks.filter((task) => task.waiting > 0).map((task) => [task.task, task.waiting]);
    assert.deepEqual(waiting, [
      ["LOCKSTEP-K-UpdateArchive", 1],
      ["LOCKSTEP-K-SoftwareRevision", 1],
    ]);
    await queue.setStopped(false, null);
    await until(() => isIdle(database.pool));
    assert.equal(await semaphore(database), before + 1);
    assert.equal(await runs(database), runsBefore + 1);
    const { rows } = await database.pool.query<{ added: number }>(
      "select added from software_revision where number = $1",
      [before + 1],
    );
    assert.equal(rows[0]?.added, 20);
  });

  test("the archive is built before the software revision that needs it, and its own change asks for no third run", async (t) => {
    const database = await server.database(t);
    await publisher.begin(database.pool);
    const queue = await startQueue(database, procedures());
    await putFile(database, "bin/a", "one");
    await until(() => isIdle(database.pool));
    assert.equal(await semaphore(database), 1);
    const { rows } = await database.pool.query(
      "select update_archive is not null as has_archive from software_revision where number = 1",
    );
    assert.deepEqual(rows, [{ has_archive: true }]);
    const journal = (await queue.status()).journal
      .filter(({ event }) => event === "done")
      .map(({ task }) => task);
    assert.equal(journal.at(-1), "LOCKSTEP-K-UpdateArchive");
    assert.ok(journal.filter((task) => task === "LOCKSTEP-K-UpdateArchive").length <= 2);
  });
}

describe("semaphore on the hub's own PostgreSQL", () => suite(usePostgres()));

describe("semaphore on the machine's PostgreSQL", { skip: system === null && "none installed" }, () => {
  if (system !== null) suite(usePostgres({ programs: system }));
});
