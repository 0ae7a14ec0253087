import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { usePostgres } from "../support/postgres.ts";
import { jobServer, putProcess, readSteps } from "./support/job-server.ts";
import { loadAndSettle, release } from "./support/release.ts";
import { startTestHub } from "./support/test-hub.ts";

const WAIT = { waitMs: 30_000 };

suite("waiting for steps", () => {
  const server = usePostgres();

  test("a step put in by plain SQL, made ready by hand, or by another server's result ends the wait, on any hub", async (t) => {
    const hub = await startTestHub(t, server);
    const other = await startTestHub(t, server, { shared: hub.database });
    const service = jobServer(other, "Q");
    const first = service.take(1, 0, WAIT);
    await putProcess(hub.pool, [{ name: "inserted" }]);
    assert.equal((await first)[0]?.name, "inserted");

    const { steps } = await putProcess(hub.pool, [{ name: "thawed", state: "frozen" }]);
    const second = service.take(1, 0, WAIT);
    await hub.pool.query("update job_step set state = 'ready' where id = $1", [steps.thawed]);
    assert.equal((await second)[0]?.name, "thawed");

    await putProcess(hub.pool, [{ name: "before", queue: "P", onSuccess: ["after"] }, { name: "after" }]);
    const third = service.take(1, 0, WAIT);
    const feeder = jobServer(hub, "P");
    const [before] = await feeder.take();
    await feeder.report(before?.id ?? 0, "success");
    assert.equal((await third)[0]?.name, "after");
  });

  test("a deferred step ends the wait when its time has come, and takes no try", async (t) => {
    const hub = await startTestHub(t, server);
    const { id } = await putProcess(hub.pool, [{}]);
    const service = jobServer(hub, "Q");
    const [step] = await service.take();
    await service.report(step?.id ?? 0, "deferred", { deferMs: 3_600_000 });
    assert.equal((await readSteps(hub.pool, id)).only?.state, "deferred");
    const waiting = service.take(1, 0, WAIT);
    await hub.pool.query("update job_step set ready_at = now() + interval '50 ms' where id = $1", [step?.id]);
    const [again] = await waiting;
    assert.deepEqual([again?.id, again?.attempt], [step?.id, 1]);
  });

  test("a newer request, a changed flag, the semaphore and the end of the hub end the wait", async (t) => {
    const hub = await startTestHub(t, server);
    const service = jobServer(hub, "Q");
    const overtaken = service.take(1, 0, WAIT);
    // The newer one may only come when the first is there.
    await untilServed(hub.pool, 1);
    await service.exchange({ answered: 0 });
    assert.deepEqual(await overtaken, []);

    const paused = service.exchange({ want: { internal: 1, external: 0 }, ...WAIT });
    await untilServed(hub.pool, 3);
    await hub.pool.query("update job_server set paused_reason = 'stocktaking'");
    assert.match((await paused).withheld ?? "", /paused: stocktaking/);
    await hub.pool.query("update job_server set paused_reason = null");

    const moved = service.exchange({ want: { internal: 1, external: 0 }, ...WAIT });
    await untilServed(hub.pool, 4);
    const revision = await loadAndSettle(hub, release({ a: "1" }));
    assert.equal((await moved).revision, revision);

    const last = service.take(1, 0, WAIT);
    await untilServed(hub.pool, 5);
    await hub.stop();
    assert.deepEqual(await last, []);
  });

  test("a thousand waiting services hold no connection of the database", async (t) => {
    const hub = await startTestHub(t, server);
    let ended = false;
    // Where a thousand of them take longer to come than one may wait, the first ones ask again.
    const wait = async (index: number) => {
      const service = jobServer(hub, `Q${index}`);
      for (;;) {
        const steps = await service.take(1, 0, WAIT).catch((error: unknown) => {
          if (!ended) throw error;
          return [];
        });
        if (ended || steps.length > 0) return steps;
      }
    };
    const waits: ReturnType<typeof wait>[] = [];
    while (true) {
      const { rows } = await hub.pool.query<{ there: number; busy: number; open: number }>(
        `select (select count(*)::int from job_server) as there,
           count(*) filter (where state <> 'idle')::int as busy, count(*)::int as open
         from pg_stat_activity
         where datname = current_database() and backend_type = 'client backend' and pid <> pg_backend_pid()`,
      );
      assert.ok((rows[0]?.open ?? 0) < 40);
      // What the hub itself looks after takes a moment now and then; what waiting holds would be held for good.
      if (rows[0]?.there === 1_000 && rows[0].busy === 0) break;
      // Some at a time: nobody stands in the hub's line until it sends him away.
      if (rows[0]?.there === waits.length && waits.length < 1_000)
        for (let more = 0; more < 100; more++) waits.push(wait(waits.length));
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    await putProcess(hub.pool, [{ queue: "Q500" }]);
    assert.equal((await waits[500])?.length, 1);
    ended = true;
    await hub.stop();
    await Promise.all(waits);
  });
});

/** Waits until the queue has seen this request. */
async function untilServed(
  pool: { query(text: string): Promise<{ rows: { sequence: number }[] }> },
  sequence: number,
): Promise<void> {
  while (true) {
    const { rows } = await pool.query("select sequence from job_server");
    if ((rows[0]?.sequence ?? 0) >= sequence) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
