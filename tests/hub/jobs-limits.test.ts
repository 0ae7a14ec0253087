import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { usePostgres } from "../support/postgres.ts";
import { jobServer, putProcess } from "./support/job-server.ts";
import { startTestHub } from "./support/test-hub.ts";

suite("limits and fairness", () => {
  const server = usePostgres();

  test("MaxInstance of tasks and components, and exclusive objects, over the whole hub", async (t) => {
    const hub = await startTestHub(t, server);
    const limits = [
      ["N", "", 2],
      ["N", "own", 1],
      ["Serial", "", -1],
      ["Mixed", "alone", -1],
      ["Free", "", 0],
    ];
    for (const limit of limits)
      await hub.pool.query("insert into job_component_limit values ($1, $2, $3)", limit);
    const many = (component: string, task: string, count: number, queue: string) =>
      Array.from({ length: count }, () => putProcess(hub.pool, [{ component, task, queue }]));
    for (const queue of ["A", "B"]) {
      await Promise.all([
        ...many("N", "any", 3, queue),
        ...many("N", "own", 2, queue),
        ...many("Serial", "x", 2, queue),
        ...many("Serial", "y", 2, queue),
        ...many("Mixed", "alone", 2, queue),
        ...many("Mixed", "other", 3, queue),
        ...many("Free", "x", 3, queue),
        ...many("Unlimited", "x", 3, queue),
      ]);
      await putProcess(hub.pool, [{ component: "Other", exclusive_object: "object", queue }]);
      await putProcess(hub.pool, [{ component: "Unlimited", exclusive_object: "object", queue }]);
    }
    const services = ["A", "B"].map((queue) => jobServer(hub, queue));
    let total = 0;
    for (;;) {
      const given = await Promise.all(services.map((service) => service.take(100)));
      total += given.flat().length;
      if (services.every(({ claims }) => claims.size === 0)) break;
      const { rows } = await hub.pool.query<{ component: string; task: string; count: number }>(
        `select component, task, count(*)::int from job_step where state in ('loaded', 'processing')
         and exclusive_object is null group by 1, 2`,
      );
      const running = (component: string, task?: string) =>
        rows
          .filter((row) => row.component === component && (task === undefined || row.task === task))
          .reduce((sum, { count }) => sum + count, 0);
      assert.ok(running("N", "any") <= 2);
      assert.ok(running("N", "own") <= 1);
      assert.ok(running("Serial") <= 1);
      assert.ok(running("Mixed", "alone") <= 1);
      if (running("Mixed", "alone") === 1) assert.equal(running("Mixed", "other"), 0);
      const objects = await hub.pool.query(
        "select from job_step where state in ('loaded', 'processing') and exclusive_object = 'object'",
      );
      assert.ok((objects.rowCount ?? 0) <= 1);
      for (const [index, service] of services.entries()) {
        // One of them reports everything, the other one step, so that different things are full in each round.
        const steps = [...service.claims].slice(0, index === 0 ? undefined : 1);
        await service.exchange({
          results: steps.map(([step, claim]) => ({ step, claim, outcome: "success" })),
        });
      }
    }
    assert.equal(total, 2 * 22);
  });

  test("a limit that is set while steps wait counts for them, and one that is lifted does not", async (t) => {
    const hub = await startTestHub(t, server);
    for (let index = 0; index < 4; index++) await putProcess(hub.pool, [{ component: "Late" }]);
    await hub.pool.query("insert into job_component_limit values ('Late', '', 1)");
    const service = jobServer(hub, "Q");
    assert.equal((await service.take(10)).length, 1);
    await hub.pool.query("delete from job_component_limit");
    assert.equal((await service.take(10)).length, 3);
  });

  test("a limit that is set while a step is being put in counts for that step too", async (t) => {
    const hub = await startTestHub(t, server);
    const { id } = await putProcess(hub.pool, [{ component: "Other", queue: "elsewhere" }]);
    const client = await hub.pool.connect();
    let limited: Promise<unknown> | null = null;
    try {
      await client.query("begin");
      await client.query(
        "insert into job_step (process_id, name, component, task, queue) values ($1, 's', 'Late', 'Run', 'Q')",
        [id],
      );
      limited = hub.pool.query("insert into job_component_limit values ('Late', '', 1)");
      // Until it is there, and waits for us.
      for (;;) {
        const { rows } = await hub.pool.query<{ there: boolean }>(
          `select exists (select from pg_stat_activity where wait_event_type = 'Lock'
             and query like 'insert into job_component_limit%') or exists (select from job_component_limit) as there`,
        );
        if (rows[0]?.there === true) break;
      }
      await client.query("commit");
    } finally {
      client.release();
      await limited;
    }
    assert.equal((await jobServer(hub, "Q").take(1)).length, 1);
  });

  test("a freed place wakes a queue however many steps wait for it in another one", async (t) => {
    const hub = await startTestHub(t, server);
    await hub.pool.query("insert into job_component_limit values ('N', '', 1)");
    const step = { component: "N", queue: "C" };
    await putProcess(hub.pool, [step]);
    const c = jobServer(hub, "C");
    const [held] = await c.take();
    await putProcess(
      hub.pool,
      Array.from({ length: 1_200 }, (_, index) => ({ ...step, name: `s${index}`, queue: "A" })),
    );
    await putProcess(hub.pool, [{ ...step, queue: "B" }]);
    const b = jobServer(hub, "B");
    assert.deepEqual(await b.take(), []);
    const waiting = b.take(1, 0, { waitMs: 30_000 });
    await c.report(held?.id ?? 0, "success");
    assert.equal((await waiting).length, 1);
  });

  test("behind thousands that wait, each kind of step that may begin is found, by component, task and object", async (t) => {
    const hub = await startTestHub(t, server);
    await hub.pool.query(
      "insert into job_component_limit values ('Full', '', 1), ('Full', 'own', 1), ('Some', '', 2)",
    );
    const many = (more: object) => Array.from({ length: 2_100 }, (_, at) => ({ name: `m${at}`, ...more }));
    await putProcess(hub.pool, many({ component: "Full", priority: 15 }));
    await putProcess(hub.pool, many({ component: "Thing", exclusive_object: "busy", priority: 15 }));
    const service = jobServer(hub, "Q");
    assert.equal((await service.take(2)).length, 2);
    assert.deepEqual(await service.take(5), []);
    await putProcess(hub.pool, [
      { name: "own", component: "Full", task: "own" },
      { name: "object", component: "Thing", exclusive_object: "free" },
      { name: "same", component: "Thing", exclusive_object: "free" },
      { name: "some", component: "Some", priority: 9 },
      { name: "more", component: "Some", task: "other" },
      { name: "third", component: "Some" },
    ]);
    assert.deepEqual((await service.take(10)).map(({ name }) => name).sort(), [
      "more",
      "object",
      "own",
      "some",
    ]);
  });

  test("a freed place wakes another queue that waits for it", async (t) => {
    const hub = await startTestHub(t, server);
    const other = await startTestHub(t, server, { shared: hub.database });
    for (const queue of ["A", "B"]) await putProcess(hub.pool, [{ exclusive_object: "one", queue }]);
    const a = jobServer(hub, "A");
    const b = jobServer(other, "B");
    const [held] = await a.take();
    assert.deepEqual(await b.take(), []);
    const waiting = b.take(1, 0, { waitMs: 30_000 });
    await a.report(held?.id ?? 0, "success");
    assert.equal((await waiting).length, 1);
  });

  test("limited steps take no place from better ones, and many that wait hide none that may run", async (t) => {
    const hub = await startTestHub(t, server);
    await hub.pool.query("insert into job_component_limit values ('Full', '', 1)");
    await putProcess(
      hub.pool,
      Array.from({ length: 1_500 }, (_, index) => ({ name: `f${index}`, component: "Full", priority: 15 })),
    );
    await putProcess(hub.pool, [{ name: "object", exclusive_object: "o", priority: 3 }]);
    await putProcess(hub.pool, [{ name: "free", priority: 4 }]);
    const service = jobServer(hub, "Q");
    assert.deepEqual(
      (await service.take(1)).map(({ name }) => name),
      ["f0"],
    );
    assert.deepEqual(
      (await service.take(1)).map(({ name }) => name),
      ["free"],
    );
    assert.deepEqual(
      (await service.take(5)).map(({ name }) => name),
      ["object"],
    );
  });

  test("ten thousand steps of one process let those of another in between", async (t) => {
    const hub = await startTestHub(t, server);
    await hub.pool.query(
      `with process as (insert into job_process (name) values ('many') returning id)
       insert into job_step (process_id, name, component, task, queue)
       select id, 'many', 'Test', 'Run', 'Q' from process, generate_series(1, 10000)`,
    );
    const service = jobServer(hub, "Q");
    const drain = async (count: number) => {
      const steps = await service.take(count);
      await service.exchange({
        results: steps.map(({ id, claim }) => ({ step: id, claim, outcome: "success" })),
      });
      return steps.map(({ name }) => name);
    };
    await drain(50);
    await putProcess(hub.pool, [{ name: "one", onSuccess: ["two"] }, { name: "two" }]);
    assert.ok((await drain(5)).includes("one"));
    assert.ok((await drain(5)).includes("two"));
    // Priority goes before the place in line.
    await putProcess(hub.pool, [{ name: "urgent", priority: 15 }]);
    assert.deepEqual(await drain(1), ["urgent"]);
  });

  test("no answer has more steps than were wanted, of each kind", async (t) => {
    const hub = await startTestHub(t, server);
    await putProcess(
      hub.pool,
      Array.from({ length: 60 }, (_, index) => ({
        name: `s${index}`,
        execution: index % 2 === 0 ? "internal" : "external",
      })),
    );
    const service = jobServer(hub, "Q");
    const steps = await service.take(3, 5);
    assert.deepEqual(
      ["internal", "external"].map((kind) => steps.filter(({ execution }) => execution === kind).length),
      [3, 5],
    );
    assert.deepEqual(await service.take(0, 0, { waitMs: 30_000 }), []);
    assert.equal((await service.take(1_000, 1_000)).length, 52);
  });
});
