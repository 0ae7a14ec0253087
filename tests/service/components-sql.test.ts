import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { suite, type TestContext, test } from "node:test";
import { LockstepError } from "@lockstep/protocol";
import { StopOrder } from "../../packages/service/src/components/stop-order.ts";
import { usePostgres } from "../support/postgres.ts";
import { aStep, type RanStep, run, temporaryDirectory } from "./one-step.ts";

suite("Sql.Execute", () => {
  const server = usePostgres();

  async function place(t: TestContext) {
    const database = await server.database(t, { empty: true });
    const { address, pool } = database;
    if ("connectionString" in address) throw new Error("the database of a test has no URL");
    const url = `postgresql://${encodeURIComponent(address.user)}:${encodeURIComponent(address.password)}@localhost:${address.port}/${address.database}?host=${encodeURIComponent(address.host)}`;
    await pool.query("create table item (id int primary key, name text not null)");
    const environment = { DATABASE: url };
    const go = (parameters: object, more: object = {}, options: object = {}): Promise<RanStep> =>
      run(t, aStep("Sql.Execute", { connectionEnvironment: "DATABASE", ...parameters }, more), {
        environment,
        ...options,
      });
    const names = async () =>
      (await pool.query<{ name: string }>("select name from item order by id")).rows.map(({ name }) => name);
    return { pool, url, go, names, password: address.password };
  }

  test("values are bound, rows come as they are, at most so many", async (t) => {
    const { go, names } = await place(t);
    const evil = "'); drop table item; --";
    const one = await go({ statement: "insert into item values ($1, $2)", parameters: [1, evil] });
    assert.deepEqual([one.outcome, one.output], ["success", { rowCount: 1 }], one.message);
    assert.deepEqual(await names(), [evil]);
    const rows = await go({
      statement: `select n, n > 1 as b, 2::int8 as big, 9007199254740993 as huge, 1.50::numeric as num, '{"a":1}'::jsonb as j,
        date '2026-01-02' as d, timestamptz '2026-01-02 03:04:05+00' at time zone 'UTC' as ts, null as nothing, '\\x00ff'::bytea as bin
        from generate_series(1, $1::int) n`,
      parameters: [3],
      rows: 2,
    });
    assert.deepEqual(
      rows.output.rows,
      [1, 2].map((n) => ({
        n,
        b: n > 1,
        big: 2,
        huge: "9007199254740993",
        num: "1.50",
        j: { a: 1 },
        d: "2026-01-02",
        ts: "2026-01-02 03:04:05",
        nothing: null,
        bin: "AP8=",
      })),
    );
    assert.deepEqual([rows.output.rowCount, rows.output.more], [3, true]);
    const json = await go({
      statement: "select $1::jsonb -> 'a' as a, $2::int[] as l",
      parameters: [{ a: [1] }, [1, 2]],
    });
    assert.deepEqual(json.output.rows, [{ a: [1], l: "{1,2}" }]);
  });

  test("a million rows take no memory of the service, and a result never grows too large", async (t) => {
    const { go } = await place(t);
    const ended = await go({
      statement: "select repeat('x', 1000) as x from generate_series(1, 300000)",
      rows: 10_000,
    });
    assert.equal(ended.outcome, "success", ended.message);
    assert.deepEqual([ended.output.rowCount, ended.output.more], [300_000, true]);
    assert.ok((ended.output.rows as unknown[]).length < 250);
    assert.ok(process.memoryUsage().rss < 400_000_000);
  });

  test("several statements are one transaction", async (t) => {
    const { go, names } = await place(t);
    const failed = await go({
      statements: [
        { statement: "insert into item values (1, 'a')" },
        { statement: "insert into item values ($1, $2)", parameters: [1, "b"] },
      ],
    });
    assert.deepEqual([failed.outcome, failed.permanent], ["error", true]);
    assert.match(failed.message, /^23505: duplicate key/);
    assert.deepEqual(await names(), []);
    const few = await go({ statement: "insert into item values (1, 'a')", expectedRows: 2 });
    assert.match(few.message, /1 row was affected, expected 2/);
    assert.deepEqual(await names(), []);
    for (const statement of ["commit", " /* x */ -- y\n Rollback", "begin", ";end", "/* /* */ */ commit"]) {
      const ended = await go({ statement });
      assert.deepEqual([ended.outcome, ended.permanent], ["error", true], statement);
    }
    const two = await go({ statement: "insert into item values (1, 'a'); commit" });
    assert.match(two.message, /42601/);
    assert.deepEqual(await names(), []);
    const readOnly = await go({ statement: "insert into item values (1, 'a')", readOnly: true });
    assert.match(readOnly.message, /25006/);
  });

  test("with an idempotency table the same step has its effect once, however often and at once it runs", async (t) => {
    const { go, names, pool } = await place(t);
    const parameters = {
      statement: "insert into item select count(*) + 1, 'x' from item returning id",
      idempotencyTable: "lockstep_step",
    };
    const ended = await Promise.all([1, 2, 3, 4].map(() => go(parameters)));
    assert.deepEqual(
      ended.map(({ outcome }) => outcome),
      Array(4).fill("success"),
      ended.map(({ message }) => message).join(),
    );
    assert.deepEqual(await names(), ["x"]);
    assert.equal(ended.filter(({ output }) => output.repeated === true).length, 3);
    for (const { output } of ended) assert.deepEqual(output.rows, [{ id: 1 }]);
    const other = await go(parameters, { idempotencyKey: "another" });
    assert.equal(other.output.repeated, undefined);
    assert.deepEqual(await names(), ["x", "x"]);
    // What failed left no key behind.
    await go({ ...parameters, statement: "select 1 / 0" }, { idempotencyKey: "third" });
    const keys = await pool.query<{ k: string }>("select idempotency_key k from lockstep_step order by 1");
    assert.deepEqual(
      keys.rows.map(({ k }) => k),
      ["another", "key-of-step-7"],
    );
    const evil = await go({ ...parameters, idempotencyTable: `x"; drop table item` });
    assert.equal(evil.permanent, true);
  });

  test("an abort cancels the statement on the server, and the time limit is the server's too", async (t) => {
    const { go, pool } = await place(t);
    const running = async () =>
      (
        await pool.query(
          "select from pg_stat_activity where query like 'select pg_sleep%' and state = 'active' and pid <> pg_backend_pid()",
        )
      ).rowCount;
    const order = new StopOrder();
    const step = go({ statement: "select pg_sleep(1000)" }, {}, { stop: order });
    while ((await running()) === 0) await new Promise((resolve) => setTimeout(resolve, 10));
    order.give(new LockstepError("INTERRUPTED", "the service stops"));
    const ended = await step;
    assert.equal(ended.outcome, "given-back", ended.message);
    while ((await running()) !== 0) await new Promise((resolve) => setTimeout(resolve, 10));
    const limited = await go({ statement: "select pg_sleep(1000)" }, { timeLimitMs: 300 });
    assert.deepEqual([limited.outcome, limited.permanent], ["error", false], limited.message);
    while ((await running()) !== 0) await new Promise((resolve) => setTimeout(resolve, 10));
  });

  test("the connection comes from a variable or a file, and its password shows nowhere", async (t) => {
    const { go, url, password } = await place(t);
    const file = join(await temporaryDirectory(t), "url");
    await writeFile(file, `${url}\n`, { mode: 0o600 });
    const leak = {
      statement: "select $1::text as said",
      parameters: [`${url} ${encodeURIComponent(password)} ${password}`],
    };
    for (const [given, hidden] of [
      [{ connectionEnvironment: "DATABASE" }, []],
      [{ connectionEnvironment: undefined, connectionFile: file }, []],
      [{ connectionEnvironment: undefined, connection: url }, ["connection"]],
    ] as const) {
      const ended = await go({ ...leak, ...given }, { hidden });
      assert.equal(ended.outcome, "success", ended.message);
      assert.ok(!JSON.stringify(ended).includes(password), JSON.stringify(ended));
    }
    const open = await go({ ...leak, connectionEnvironment: undefined, connection: url });
    assert.match(open.message, /does not declare it hidden/);
    const wrong = await go(
      {
        statement: "select 1",
        connectionEnvironment: undefined,
        connection: url.replace(password, "wrong-password-1"),
      },
      { hidden: ["connection"] },
    );
    assert.deepEqual([wrong.outcome, wrong.permanent], ["error", true], wrong.message);
    assert.doesNotMatch(JSON.stringify(wrong), /wrong-password-1/);
    for (const given of [
      { connectionEnvironment: "ABSENT" },
      { connectionEnvironment: "LOCKSTEP_DATABASE" },
      { connectionFile: file },
      { connectionEnvironment: undefined },
    ]) {
      const ended = await go({ statement: "select 1", ...given });
      assert.deepEqual([ended.outcome, ended.permanent], ["error", true], ended.message);
    }
    const gone = await go(
      { statement: "select 1" },
      {},
      { environment: { DATABASE: "postgresql://u:p4ssw0rd@127.0.0.1:1/d" } },
    );
    assert.deepEqual([gone.outcome, gone.permanent], ["error", false], gone.message);
  });
});
