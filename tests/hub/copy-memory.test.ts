import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { describe, test } from "node:test";
import type pg from "pg";
import { PART_BYTES, PartsCopy } from "../../packages/hub/src/repository/copy-parts.ts";
import { systemPrograms, type TestServer, usePostgres } from "../support/postgres.ts";

/** A content of 64 MiB takes several COPYs; with one the database would hold all of it. */
const PARTS = 64;
const GROWTH_BYTES_MAX = (PARTS * PART_BYTES) / 2;

/** Memory of a process's own, in bytes: what it shares with its neighbours (the database's buffers) does not count. */
function ownMemory(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  return Number(/^RssAnon:\s+(\d+) kB/m.exec(status)?.[1]) * 1024;
}

async function backendOf(client: pg.PoolClient): Promise<number> {
  const { rows } = await client.query<{ pid: number }>("select pg_backend_pid() as pid");
  return rows[0]?.pid ?? 0;
}

async function storedParts(on: pg.Pool | pg.PoolClient): Promise<number> {
  const { rows } = await on.query<{ count: number }>("select count(*) as count from content_part");
  return rows[0]?.count ?? Number.NaN;
}

function suite(server: TestServer): void {
  const skip = existsSync("/proc/self/status") ? false : "the system does not show the memory of processes";

  test("takes a large content in without the database's memory growing with it", { skip }, async (t) => {
    const { pool } = await server.database(t);
    const client = await pool.connect();
    try {
      const pid = await backendOf(client);
      await client.query("begin");
      const before = ownMemory(pid);
      const copy = new PartsCopy(client);
      const part = randomBytes(PART_BYTES);
      let peak = before;
      for (let seq = 0; seq < PARTS; seq++) {
        await copy.row(1, seq, part);
        peak = Math.max(peak, ownMemory(pid));
      }
      await copy.finish();
      assert.equal(copy.bytes, PARTS * PART_BYTES);
      assert.equal(await storedParts(client), PARTS);
      assert.ok(peak - before < GROWTH_BYTES_MAX, `it grew by ${peak - before} bytes`);
      assert.equal(await storedParts(pool), 0, "others see nothing before the commit");
      await client.query("rollback");
      assert.equal(await storedParts(pool), 0);
    } finally {
      client.release(true);
    }
  });

  test("leaves nothing of a content whose connection breaks in the middle", async (t) => {
    const { pool } = await server.database(t);
    const client = await pool.connect();
    try {
      const pid = await backendOf(client);
      await client.query("begin");
      const copy = new PartsCopy(client);
      const part = randomBytes(PART_BYTES);
      for (let seq = 0; seq < PARTS / 2; seq++) await copy.row(1, seq, part);
      await pool.query("select pg_terminate_backend($1, 10000)", [pid]);
      await assert.rejects(async () => {
        for (let seq = PARTS / 2; seq < PARTS; seq++) await copy.row(1, seq, part);
        await copy.finish();
      });
      await copy.abort();
      assert.equal(await storedParts(pool), 0);
    } finally {
      client.release(true);
    }
  });
}

describe("parts of contents on their way into the hub's own PostgreSQL", () => suite(usePostgres()));

const system = systemPrograms();
describe("parts of contents on their way into the machine's PostgreSQL", {
  skip: system === null && "none installed",
}, () => {
  if (system !== null) suite(usePostgres({ programs: system }));
});
