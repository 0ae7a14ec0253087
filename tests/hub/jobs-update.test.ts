import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { usePostgres } from "../support/postgres.ts";
import { jobServer, processState, putProcess, setSetting } from "./support/job-server.ts";
import { loadAndSettle, release } from "./support/release.ts";
import { startTestHub } from "./support/test-hub.ts";

const ALL = { want: { internal: 10, external: 10 } };

suite("the automatic update of job servers", () => {
  const server = usePostgres();

  test("a server at another revision gets its update alone, then what was held back, best first", async (t) => {
    const hub = await startTestHub(t, server);
    const old = await loadAndSettle(hub, release({ a: "1" }));
    await putProcess(hub.pool, [{ name: "low" }]);
    await putProcess(hub.pool, [{ name: "high", priority: 12 }]);
    const service = jobServer(hub, "Q", { revision: old });
    const waiting = jobServer(hub, "R", { revision: old, machine: "other" }).exchange({
      ...ALL,
      waitMs: 30_000,
    });
    const next = await loadAndSettle(hub, release({ a: "2" }));
    assert.deepEqual(
      (await waiting).steps.map(({ task }) => task),
      ["CheckAndUpdate"],
      "it need not ask again",
    );
    const first = await service.exchange(ALL);
    assert.equal(first.updating, true);
    assert.match(first.withheld ?? "", new RegExp(`from revision ${old} to ${next}`));
    const [update, nothing] = first.steps;
    assert.deepEqual(
      [update?.component, update?.task, update?.priority, update?.parameters, nothing],
      ["AutoUpdate", "CheckAndUpdate", 15, { revision: next }, undefined],
    );
    assert.deepEqual((await service.exchange(ALL)).steps, [], "one update is enough");
    // The service updates itself and comes back as another run that has the result in its journal.
    const after = jobServer(hub, "Q", { revision: next });
    const result = { step: update?.id ?? 0, claim: update?.claim ?? 0, outcome: "success" as const };
    const back = await after.exchange({ ...ALL, holding: [result.claim], results: [result] });
    assert.deepEqual(back.results, [{ claim: result.claim, verdict: "recorded" }]);
    assert.equal(back.updating, false);
    assert.deepEqual(
      back.steps.map(({ name }) => name),
      ["high", "low"],
    );
    assert.equal(await processState(hub.pool, update?.process.id ?? 0), "finished");
  });

  test("an update that ended without effect is tried again, later and not at once", async (t) => {
    const hub = await startTestHub(t, server);
    const old = await loadAndSettle(hub, release({ a: "1" }));
    await loadAndSettle(hub, release({ a: "2" }));
    const service = jobServer(hub, "Q", { revision: old });
    const [update] = (await service.exchange(ALL)).steps;
    await service.report(update?.id ?? 0, "error", { message: "disk full" });
    assert.deepEqual((await service.exchange(ALL)).steps, []);
    assert.deepEqual((await service.exchange(ALL)).steps, []);
    const { rows } = await hub.pool.query(
      `select s.state, s.ready_at > now() + interval '30 seconds' as later
       from job_step s where component = 'AutoUpdate' order by id`,
    );
    assert.deepEqual(rows, [
      { state: "finished", later: null },
      { state: "deferred", later: true },
    ]);
  });

  test("the queues of one machine wait for one another; a silent one keeps nobody waiting", async (t) => {
    const hub = await startTestHub(t, server);
    const old = await loadAndSettle(hub, release({ a: "1" }));
    const next = await loadAndSettle(hub, release({ a: "2" }));
    await putProcess(hub.pool, [{ queue: "A" }]);
    const b = jobServer(hub, "B", { revision: old });
    await b.exchange();
    const a = jobServer(hub, "A", { revision: next });
    const held = await a.exchange(ALL);
    assert.deepEqual([held.updating, held.steps], [false, []]);
    assert.match(held.withheld ?? "", /waits for the update of B/);
    const waiting = a.exchange({ ...ALL, waitMs: 30_000 });
    await jobServer(hub, "B", { revision: next }).exchange();
    assert.equal((await waiting).steps.length, 1);

    await putProcess(hub.pool, [{ queue: "A" }]);
    await jobServer(hub, "C", { revision: old }).exchange();
    assert.equal((await a.exchange(ALL)).steps.length, 0);
    await hub.pool.query("update job_server set lease_until = now() - interval '1 second' where queue = 'C'");
    assert.equal((await a.exchange(ALL)).steps.length, 1);
  });

  test("where there is an update server, the others work on until it has the revision", async (t) => {
    const hub = await startTestHub(t, server);
    const old = await loadAndSettle(hub, release({ a: "1" }));
    const next = await loadAndSettle(hub, release({ a: "2" }));
    await hub.pool.query("insert into job_server (queue, update_server) values ('U', true)");
    await putProcess(hub.pool, [{ queue: "A" }]);
    const a = jobServer(hub, "A", { revision: old, machine: "a" });
    const first = await a.exchange(ALL);
    assert.match(first.withheld ?? "", /none of them serves: U/);
    assert.equal(first.steps.length, 1);
    const waiting = a.exchange({ ...ALL, waitMs: 30_000 });
    const u = jobServer(hub, "U", { revision: old, machine: "u" });
    assert.equal((await u.exchange(ALL)).updating, true);
    await jobServer(hub, "U", { revision: next, machine: "u" }).exchange();
    const told = await waiting;
    const [update] = told.steps.length > 0 ? told.steps : (await a.exchange(ALL)).steps;
    assert.equal(update?.component, "AutoUpdate");
  });

  test("excluded servers and a switched-off update change nothing; switched-off and paused servers get nothing", async (t) => {
    const hub = await startTestHub(t, server);
    const old = await loadAndSettle(hub, release({ a: "1" }));
    await loadAndSettle(hub, release({ a: "2" }));
    for (const queue of ["A", "B", "C", "D"]) await putProcess(hub.pool, [{ queue }]);
    await hub.pool.query(
      `insert into job_server (queue, no_auto_update, disabled, paused_reason)
       values ('A', true, false, null), ('C', false, true, null), ('D', false, false, 'moved')`,
    );
    const ask = (queue: string, revision: number | null) =>
      jobServer(hub, queue, { revision, machine: queue }).exchange(ALL);
    assert.equal((await ask("A", old)).steps.length, 1);
    assert.deepEqual((await ask("C", null)).withheld, "the server is switched off");
    assert.deepEqual((await ask("D", null)).withheld, "the server is paused: moved");
    await setSetting(hub.pool, "Common/AutoUpdate", false);
    assert.equal((await ask("B", old)).steps.length, 1);
    await setSetting(hub.pool, "Common/Jobs/Stopped", true);
    await putProcess(hub.pool, [{ queue: "A" }]);
    assert.deepEqual((await ask("A", null)).steps, []);
  });
});
