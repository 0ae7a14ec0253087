/** One DBQueue Processor and what it promises: order, collapse, deferral, stop, drain (behaviours 78 to 80). */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { silentLogger } from "@lockstep/platform";
import { isLockstepError } from "@lockstep/protocol";
import type pg from "pg";
import { DEFAULT_TUNING } from "../../packages/hub/src/dbqueue/options.ts";
import { giveBackDead, prune } from "../../packages/hub/src/dbqueue/watchdog.ts";
import {
  ask,
  count,
  counts,
  createCounter,
  gate,
  isIdle,
  procedure,
  startQueue,
  until,
} from "../support/dbqueue.ts";
import { systemPrograms, type TestServer, usePostgres } from "../support/postgres.ts";

const system = systemPrograms();

function suite(server: TestServer): void {
  test("a task inserted during processing runs again (behaviour 78)", async (t) => {
    const database = await server.database(t);
    await createCounter(database.pool);
    const door = gate();
    let runs = 0;
    await startQueue(database, [
      procedure("T", async (run) => {
        runs += 1;
        if (runs === 1) await door.pass();
        await count(run);
      }),
    ]);
    await ask(database, "T", ["o"]);
    await door.arrived;
    await ask(database, "T", ["o"]);
    await ask(database, "T", ["o"]);
    const { rows } = await database.pool.query("select task from dbqueue_task");
    assert.equal(rows.length, 1);
    door.open();
    await until(() => isIdle(database.pool));
    assert.deepEqual(await counts(database.pool), new Map([["o", 2]]));
  });

  test("a follower starts only when no predecessor waits or runs (behaviour 79)", async (t) => {
    const database = await server.database(t);
    const door = gate();
    const order: string[] = [];
    const queue = await startQueue(database, [
      procedure("second", async () => void order.push("second"), { predecessors: ["first"] }),
      procedure("first", async () => {
        await door.pass();
        order.push("first");
      }),
    ]);
    await database.pool.query("select dbqueue_insert_single('second'), dbqueue_insert_single('first')");
    await door.arrived;
    queue.wake();
    await until(async () => {
      const { tasks } = await queue.status();
      return tasks.some((task) => task.task === "second" && task.blockedBy === "waits for first");
    });
    assert.deepEqual(order, []);
    door.open();
    await until(() => isIdle(database.pool));
    assert.deepEqual(order, ["first", "second"]);
  });

  test("what fails is put off with its reason, journalled, tried again, and does not hold up others", async (t) => {
    const database = await server.database(t);
    await createCounter(database.pool);
    let healthy = false;
    const queue = await startQueue(database, [
      procedure("bad", async (run) => {
        await count(run);
        if (!healthy) throw new Error("the printer is on fire");
      }),
      procedure("follower", count, { predecessors: ["bad"] }),
      procedure("other", count),
    ]);
    await ask(database, "bad", ["bad"]);
    await ask(database, "follower", ["follower"]);
    await ask(database, "other", ["other"]);
    await until(async () => (await counts(database.pool)).size === 2);
    // While it is being tried once more it has not failed yet; between two tries the reason stands there.
    await until(async () => {
      const { tasks, journal } = await queue.status();
      const bad = tasks.find((task) => task.task === "bad");
      const failures = journal.filter((entry) => entry.task === "bad" && entry.event === "failed");
      return bad?.lastError === "the printer is on fire" && failures.length >= 3;
    });
    healthy = true;
    await until(() => isIdle(database.pool));
    // Nothing of the failed tries remains.
    assert.equal((await counts(database.pool)).get("bad"), 1);
  });

  test("a task that cannot be done now is deferred, journalled, and returns to an empty queue (behaviour 80)", async (t) => {
    const database = await server.database(t);
    await createCounter(database.pool);
    let tries = 0;
    const queue = await startQueue(
      database,
      [
        procedure("T", async (run) => {
          await count(run);
          tries += 1;
          return tries < 4 ? { kind: "deferred", reason: "a synchronization is running" } : undefined;
        }),
      ],
      // So far off that only the empty queue can bring it back.
      { deferMs: 3_600_000 },
    );
    await ask(database, "T", ["o"]);
    await until(() => isIdle(database.pool));
    assert.deepEqual(await counts(database.pool), new Map([["o", 1]]));
    const { journal } = await queue.status();
    assert.deepEqual(
      journal.map(({ event }) => event),
      ["done", "deferred", "deferred", "deferred"],
    );
    assert.equal(journal[1]?.detail, "a synchronization is running");
  });

  test("a new request makes a task due that was put off", async (t) => {
    const database = await server.database(t);
    let tries = 0;
    await startQueue(
      database,
      [
        procedure("T", async () => {
          tries += 1;
          if (tries === 1) throw new Error("no");
        }),
      ],
      { retryBaseMs: 3_600_000, retryMaxMs: 3_600_000 },
    );
    await ask(database, "T");
    await until(async () => {
      const { rowCount } = await database.pool.query("select from dbqueue_task where deferred_reason = 'no'");
      return rowCount === 1;
    });
    await ask(database, "T");
    await until(() => isIdle(database.pool));
    assert.equal(tries, 2);
  });

  test("a bulk task gets all rows at once; one bad row is isolated; vanished objects end silently", async (t) => {
    const database = await server.database(t);
    await createCounter(database.pool);
    const sizes: number[] = [];
    const queue = await startQueue(
      database,
      [
        procedure(
          "T",
          async (run) => {
            sizes.push(run.rows.length);
            await count(run);
            if (run.rows.some(({ object }) => object === "bad")) throw new Error("bad row");
          },
          {
            bulk: true,
            present: async (run) =>
              new Set(run.rows.filter(({ object }) => !object.startsWith("gone")).map(({ id }) => id)),
          },
        ),
      ],
      { blockingAttempts: 1 },
    );
    await queue.setStopped(true, null);
    const good = Array.from({ length: 200 }, (_, n) => `o${n}`);
    await ask(database, "T", [...good, "gone1", "gone2"]);
    await queue.setStopped(false, null);
    await until(() => isIdle(database.pool));
    assert.deepEqual(sizes, [200]);
    await ask(database, "T", ["gone3"]);
    await until(() => isIdle(database.pool));
    assert.deepEqual(sizes, [200]);
    await ask(database, "T", ["p", "bad", "q"]);
    await until(async () => (await counts(database.pool)).size === 202);
    assert.equal(sizes[1], 3);
    const { rows } = await database.pool.query("select object from dbqueue_task");
    assert.deepEqual(rows.length === 0 ? [{ object: "bad" }] : rows, [{ object: "bad" }]);
  });

  test("a bulk task can do some rows and put off the others", async (t) => {
    const database = await server.database(t);
    await createCounter(database.pool);
    const seen: string[] = [];
    const queue = await startQueue(database, [
      procedure(
        "T",
        async (run) => {
          const later = run.rows.filter(({ object, attempts }) => object === "later" && attempts === 0);
          const now = run.rows.filter((row) => !later.includes(row));
          seen.push(...now.map(({ object }) => object));
          await count({ ...run, rows: now });
          return { kind: "done", deferred: later.map(({ id }) => ({ id, reason: "not yet" })) };
        },
        { bulk: true },
      ),
    ]);
    await ask(database, "T", ["a", "later", "b"]);
    await until(() => isIdle(database.pool));
    assert.deepEqual(
      await counts(database.pool),
      new Map([
        ["a", 1],
        ["b", 1],
        ["later", 1],
      ]),
    );
    assert.equal(seen.at(-1), "later");
    assert.ok(
      (await queue.status()).journal.some(
        ({ event, detail }) => event === "deferred" && detail === "not yet",
      ),
    );
  });

  test("the emergency stop loses nothing, and says why nothing runs", async (t) => {
    const database = await server.database(t);
    await createCounter(database.pool);
    const queue = await startQueue(database, [procedure("T", count, { maxInstance: 4 })]);
    await queue.setStopped(true, "night of the long load");
    const objects = Array.from({ length: 30 }, (_, n) => `o${n}`);
    await ask(database, "T", objects);
    queue.wake();
    const status = await queue.status();
    assert.equal(status.stopped, true);
    assert.equal(status.stoppedReason, "night of the long load");
    assert.equal(status.tasks[0]?.waiting, 30);
    assert.equal(status.tasks[0]?.blockedBy, "the emergency stop is set");
    assert.equal((await counts(database.pool)).size, 0);
    // Plain SQL may lift it as well; that wakes the processor.
    await database.pool.query("update setting set value = 'false' where name = 'DBQueue/Stopped'");
    await until(() => isIdle(database.pool));
    assert.deepEqual(
      [...(await counts(database.pool)).values()],
      objects.map(() => 1),
    );
  });

  test("a stop lets what runs finish, and starts nothing new", async (t) => {
    const database = await server.database(t);
    await createCounter(database.pool);
    const door = gate();
    const queue = await startQueue(database, [
      procedure("T", async (run) => {
        await door.pass();
        await count(run);
      }),
    ]);
    await ask(database, "T", ["a", "b"]);
    await door.arrived;
    const stopped = queue.stop();
    door.open();
    await stopped;
    assert.deepEqual([...(await counts(database.pool)).values()], [1]);
    const { rows } = await database.pool.query("select object from dbqueue_task");
    assert.equal(rows.length, 1);
  });

  test("a stop that cannot wait gives back what runs, as if it had never begun", async (t) => {
    const database = await server.database(t);
    await createCounter(database.pool);
    const door = gate();
    const queue = await startQueue(database, [
      procedure("T", async (run) => {
        await count(run);
        void door.pass();
        await run.transaction.client.query("select pg_sleep(3600)");
      }),
    ]);
    await ask(database, "T", ["a"]);
    await door.arrived;
    await queue.stop({ graceMs: 0 });
    assert.equal((await counts(database.pool)).size, 0);
    const { rows } = await database.pool.query("select object, attempts, not_before from dbqueue_task");
    assert.deepEqual(rows, [{ object: "a", attempts: 0, not_before: null }]);
    const left = await database.pool.query("select from dbqueue_current");
    assert.equal(left.rowCount, 0);
    const hubs = await database.pool.query("select from dbqueue_hub");
    assert.equal(hubs.rowCount, 0);
  });

  test("a watchdog that looks while a stop gives back takes nobody for dead", async (t) => {
    const database = await server.database(t);
    const door = gate();
    let looked: Promise<number> | null = null;
    // Somebody looks as soon as the run's session is gone, and is done or waits for the stop when that goes on.
    const look = async () => {
      const isGone = async () =>
        (await database.pool.query("select from pg_stat_activity where query = 'select pg_sleep(3601)'"))
          .rowCount === 0;
      await until(isGone);
      let done = false;
      looked = giveBackDead(database.pool, DEFAULT_TUNING, silentLogger).finally(() => {
        done = true;
      });
      await until(async () => {
        const { rowCount } = await database.pool.query(
          "select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'",
        );
        // The hub's own last look may wait beside.
        return done || (rowCount ?? 0) > 0;
      });
    };
    const queue = await startQueue({ ...database, pool: afterTerminating(database.pool, look) }, [
      procedure("T", async (run) => {
        void door.pass();
        await run.transaction.client.query("select pg_sleep(3601)");
      }),
    ]);
    await ask(database, "T", ["a"]);
    await door.arrived;
    await until(async () => {
      const { rowCount } = await database.pool.query(
        "select from pg_stat_activity where query = 'select pg_sleep(3601)'",
      );
      return rowCount === 1;
    });
    await queue.stop({ graceMs: 0 });
    assert.equal(await looked, 0);
    const { rows } = await database.pool.query("select object, attempts, not_before from dbqueue_task");
    assert.deepEqual(rows, [{ object: "a", attempts: 0, not_before: null }]);
  });

  test("a procedure that never ends and heeds nothing does not keep the hub from stopping", async (t) => {
    const database = await server.database(t);
    const door = gate();
    const queue = await startQueue(database, [
      procedure("T", async () => {
        await door.pass();
        return undefined;
      }),
    ]);
    await ask(database, "T", ["a"]);
    await door.arrived;
    await queue.stop({ graceMs: 0 });
    const { rows } = await database.pool.query("select object, attempts from dbqueue_task");
    assert.deepEqual(rows, [{ object: "a", attempts: 0 }]);
    await database.close();
  });

  test("a procedure that loses against a concurrent writer is simply repeated", async (t) => {
    const database = await server.database(t);
    await createCounter(database.pool);
    await database.pool.query("insert into counter values ('shared', 0)");
    let runs = 0;
    const queue = await startQueue(database, [
      procedure("T", async (run) => {
        runs += 1;
        await run.transaction.client.query("select from counter");
        if (runs < 3) await database.pool.query("update counter set n = n + 10 where object = 'shared'");
        await run.transaction.client.query("update counter set n = n + 1 where object = 'shared'");
      }),
    ]);
    await ask(database, "T");
    await until(() => isIdle(database.pool));
    assert.deepEqual(await counts(database.pool), new Map([["shared", 21]]));
    assert.deepEqual(
      (await queue.status()).journal.map(({ event }) => event),
      ["done"],
    );
  });

  test("tasks that wait for each other are refused", async (t) => {
    const database = await server.database(t);
    const nothing = async () => undefined;
    await assert.rejects(
      startQueue(database, [
        procedure("a", nothing, { predecessors: ["b"] }),
        procedure("b", nothing, { predecessors: ["a"] }),
      ]),
      (error) => isLockstepError(error, "DBQUEUE_DEFINITION_INVALID"),
    );
    const { rowCount } = await database.pool.query("select from dbqueue_definition");
    assert.equal(rowCount, 0);
  });

  test("a hub whose database was changed by a newer one processes nothing any more", async (t) => {
    const database = await server.database(t);
    await createCounter(database.pool);
    const queue = await startQueue(database, [procedure("T", count)]);
    await ask(database, "T", ["old"]);
    await until(() => isIdle(database.pool));
    await database.pool.query(
      "insert into schema_migration (number, name, sha256) values (1000, 'future', 'x')",
    );
    await ask(database, "T", ["new"]);
    queue.wake();
    await queue.stop();
    assert.deepEqual(await counts(database.pool), new Map([["old", 1]]));
  });

  test("a broken database connection costs nothing but a repetition", async (t) => {
    const database = await server.database(t);
    await createCounter(database.pool);
    let runs = 0;
    await startQueue(database, [
      procedure("T", async (run) => {
        runs += 1;
        await count(run);
        if (runs === 1) {
          // Every connection of this database but the one that says so: the task's own and the listener's too.
          await database.pool.query(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()",
          );
        }
      }),
    ]);
    await ask(database, "T", ["o"]);
    // The test's own connections were cut as well.
    await until(() => isIdle(database.pool).catch(() => false));
    assert.equal(runs, 2);
    assert.deepEqual(await counts(database.pool), new Map([["o", 1]]));
    // The listener is back as well.
    await ask(database, "T", ["p"]);
    await until(() => isIdle(database.pool));
  });

  test("the journal is bounded", async (t) => {
    const database = await server.database(t);
    await startQueue(database, [procedure("T", async () => undefined)], {
      journalRowsMax: 5,
      heartbeatMs: 60_000,
    });
    await ask(
      database,
      "T",
      Array.from({ length: 20 }, (_, n) => `o${n}`),
    );
    await until(() => isIdle(database.pool));
    await prune(database.pool, 5);
    const { rowCount } = await database.pool.query("select from dbqueue_journal");
    assert.equal(rowCount, 5);
  });
}

/** The same pool, but that something happens after each statement that ends a session. */
function afterTerminating(pool: pg.Pool, then: () => Promise<void>): pg.Pool {
  const hooked = <T extends pg.Pool | pg.PoolClient>(target: T): T =>
    new Proxy(target, {
      get: (_, name) => {
        const value: unknown = Reflect.get(target, name);
        if (typeof value !== "function") return value;
        if (name === "connect") return async () => hooked(await (target as pg.Pool).connect());
        if (name !== "query") return value.bind(target);
        return async (...args: unknown[]) => {
          const result: unknown = await value.apply(target, args);
          if (String(args[0]).startsWith("select pg_terminate_backend")) await then();
          return result;
        };
      },
    });
  return hooked(pool);
}

describe("DBQueue Processor on the hub's own PostgreSQL", () => suite(usePostgres()));

describe("DBQueue Processor on the machine's PostgreSQL", {
  skip: system === null && "none installed",
}, () => {
  if (system !== null) suite(usePostgres({ programs: system }));
});
