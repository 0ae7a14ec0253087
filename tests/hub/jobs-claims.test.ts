import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { usePostgres } from "../support/postgres.ts";
import {
  jobServer,
  processState,
  putProcess,
  readSteps,
  setSetting,
  untilSteps,
} from "./support/job-server.ts";
import { startTestHub } from "./support/test-hub.ts";

suite("claims of steps", () => {
  const server = usePostgres();

  test("each step is given to one request alone, also with many services on two hubs", async (t) => {
    const hub = await startTestHub(t, server);
    const other = await startTestHub(t, server, { shared: hub.database });
    const count = 400;
    // The first hundred follow one another in one process, the others stand alone.
    await putProcess(
      hub.pool,
      Array.from({ length: 100 }, (_, index) => ({ name: `s${index}`, queue: `Q${index % 4}` })),
    );
    for (let index = 0; index < 300; index++) await putProcess(hub.pool, [{ queue: `Q${index % 4}` }]);
    const given: number[] = [];
    const verdicts: string[] = [];
    await Promise.all(
      Array.from({ length: 4 }, async (_, index) => {
        const service = jobServer(index % 2 === 0 ? hub : other, `Q${index}`);
        for (;;) {
          const steps = await service.take(7, 3);
          if (steps.length === 0) return;
          given.push(...steps.map(({ id }) => id));
          const answer = await service.exchange({
            results: steps.map(({ id, claim }) => ({ step: id, claim, outcome: "success" })),
          });
          verdicts.push(...answer.results.map(({ verdict }) => verdict));
        }
      }),
    );
    assert.equal(given.length, count);
    assert.equal(new Set(given).size, count);
    assert.ok(verdicts.every((verdict) => verdict === "recorded"));
    const { rows } = await hub.pool.query(
      `select (select count(*)::int from job_run where outcome = 'success') as runs,
         (select count(distinct claim)::int from job_run) as claims,
         (select count(*)::int from job_process where state = 'finished') as finished`,
    );
    assert.deepEqual(rows, [{ runs: count, claims: count, finished: 301 }]);
  });

  test("two requests of one queue at the same moment share the steps between them", async (t) => {
    const hub = await startTestHub(t, server);
    for (let index = 0; index < 40; index++) await putProcess(hub.pool, [{}]);
    const service = jobServer(hub, "Q");
    await service.exchange();
    const answers = await Promise.all(Array.from({ length: 8 }, () => service.take(10, 0, { answered: 0 })));
    const given = answers.flat().map(({ id }) => id);
    assert.equal(new Set(given).size, given.length);
    // What nobody names has never arrived: it comes back, and counts neither as a try nor as a crash.
    service.claims.clear();
    const again = await service.take(40);
    assert.equal(again.length, 40);
    assert.ok(again.every(({ attempt }) => attempt === 1));
  });

  test("a result counts once, and later than its claim not at all", async (t) => {
    const hub = await startTestHub(t, server);
    const { id } = await putProcess(hub.pool, [{ retries: 5 }]);
    const service = jobServer(hub, "Q");
    const [first] = await service.take();
    const claim = first?.claim ?? 0;
    const step = first?.id ?? 0;
    assert.equal(await service.report(step, "error", { message: "once" }), "recorded");
    const twice = await service.exchange({ results: [{ step, claim, outcome: "error", message: "once" }] });
    assert.deepEqual(twice.results, [{ claim, verdict: "known" }]);
    const [second] = await service.take();
    assert.ok((second?.claim ?? 0) > claim);
    assert.equal(second?.attempt, 2);
    assert.equal(second?.idempotencyKey, first?.idempotencyKey);
    const late = await service.exchange({ results: [{ step, claim, outcome: "success" }] });
    assert.deepEqual(late.results, [{ claim, verdict: "known" }]);
    const wrong = await service.exchange({ results: [{ step, claim: claim + 1000, outcome: "success" }] });
    assert.deepEqual(wrong.results, [{ claim: claim + 1000, verdict: "refused" }]);
    assert.equal((await readSteps(hub.pool, id)).only?.state, "loaded");
    assert.equal(await service.report(step, "success"), "recorded");
    assert.equal(await processState(hub.pool, id), "finished");
  });

  test("a service that was away longer than its lease has lost its steps, whatever it believes", async (t) => {
    const hub = await startTestHub(t, server);
    await setSetting(hub.pool, "Common/Jobs/LeaseSeconds", 1);
    const { id } = await putProcess(hub.pool, [
      { name: "again", onSuccess: ["after"] },
      { name: "after" },
      { name: "once", on_crash: "freeze" },
      { name: "unbegun", on_crash: "freeze" },
    ]);
    const frozen = jobServer(hub, "Q");
    const steps = await frozen.take(10);
    const claimOf = (name: string) => steps.find((step) => step.name === name)?.claim ?? 0;
    const begun = await frozen.exchange({ started: [claimOf("again"), claimOf("once")] });
    assert.deepEqual(begun.confirmed.sort(), [claimOf("again"), claimOf("once")].sort());
    await untilSteps(hub.pool, id, (all) => all.again?.state === "ready" && all.unbegun?.state === "ready");
    const after = await readSteps(hub.pool, id);
    assert.deepEqual([after.again?.crashes, after.once?.state, after.unbegun?.crashes], [1, "frozen", 0]);
    // It wakes up, delivers what it finished meanwhile, and is told that all of it is gone.
    const results = steps.map((step) => ({ step: step.id, claim: step.claim, outcome: "success" as const }));
    const answer = await frozen.exchange({ results });
    assert.ok(answer.results.every(({ verdict }) => verdict === "refused"));
    assert.equal((await readSteps(hub.pool, id)).after?.state, "waiting");
    const { rows } = await hub.pool.query("select outcome, count(*)::int from job_run_end group by outcome");
    assert.deepEqual(rows, [{ outcome: "lost", count: 3 }]);
  });

  test("an answer that never arrived costs nothing; a confirmed step that is forgotten costs a crash", async (t) => {
    const hub = await startTestHub(t, server);
    const { id } = await putProcess(hub.pool, [{ name: "a" }, { name: "b", on_crash: "freeze" }]);
    const service = jobServer(hub, "Q");
    await service.take(5);
    service.claims.clear(); // as if the answer had been cut
    const steps = await service.take(5);
    assert.deepEqual(steps.map(({ name, attempt }) => [name, attempt]).sort(), [
      ["a", 1],
      ["b", 1],
    ]);
    await service.exchange({ started: steps.map(({ claim }) => claim) });
    service.claims.clear();
    const [again, nothing] = await service.take(5);
    assert.deepEqual([again?.name, again?.attempt, nothing], ["a", 2, undefined]);
    assert.equal((await readSteps(hub.pool, id)).b?.state, "missing");
    assert.equal(await processState(hub.pool, id), "running");
    await service.report(again?.id ?? 0, "success");
    assert.equal(await processState(hub.pool, id), "stuck");
  });

  test("a request that a later one has answered is refused; one that is merely overtaken gets nothing", async (t) => {
    const hub = await startTestHub(t, server);
    await putProcess(hub.pool, [{}]);
    const service = jobServer(hub, "Q");
    await service.exchange({ sequence: 5, answered: 3 });
    assert.equal(await service.refused({ sequence: 3, answered: 2 }), "JOB_REQUEST_STALE");
    const overtaken = await service.exchange({
      sequence: 4,
      answered: 3,
      want: { internal: 1, external: 0 },
      waitMs: 30_000,
    });
    assert.deepEqual(overtaken.steps, []);
    assert.equal((await service.take(1, 0, { sequence: 6, answered: 5 })).length, 1);
  });

  test("a new run of a service takes the queue over, and what the former one had finished", async (t) => {
    const hub = await startTestHub(t, server);
    const { id } = await putProcess(hub.pool, [
      { name: "finished" },
      { name: "begun" },
      { name: "once", on_crash: "freeze" },
    ]);
    const old = jobServer(hub, "Q");
    const steps = await old.take(5);
    await old.exchange({ started: steps.map(({ claim }) => claim) });
    const done = steps.find(({ name }) => name === "finished");
    const next = jobServer(hub, "Q");
    const result = { step: done?.id ?? 0, claim: done?.claim ?? 0, outcome: "success" as const };
    const answer = await next.exchange({ holding: [result.claim], results: [result] });
    assert.deepEqual(answer.results, [{ claim: result.claim, verdict: "recorded" }]);
    const now = await readSteps(hub.pool, id);
    assert.deepEqual(
      [now.finished?.outcome, now.begun?.state, now.begun?.crashes, now.once?.state],
      ["success", "ready", 1, "frozen"],
    );
    assert.equal(await old.refused(), "JOB_INSTANCE_REPLACED");
    assert.equal((await next.take(5)).length, 1);
  });

  test("a new run that names steps in hand keeps them", async (t) => {
    const hub = await startTestHub(t, server);
    await putProcess(hub.pool, [{ component: "AutoUpdate", task: "CheckAndUpdate" }]);
    const old = jobServer(hub, "Q");
    const [step] = await old.take();
    await old.exchange({ started: [step?.claim ?? 0] });
    const next = jobServer(hub, "Q");
    const claim = step?.claim ?? 0;
    assert.deepEqual((await next.exchange({ holding: [claim] })).lost, []);
    assert.deepEqual((await next.exchange({ holding: [claim] })).lost, []);
    const { results } = await next.exchange({
      results: [{ step: step?.id ?? 0, claim, outcome: "success" }],
    });
    assert.deepEqual(results, [{ claim, verdict: "recorded" }]);
  });

  test("a service on another machine waits for the lease of one that works, unless it shows a higher term", async (t) => {
    const hub = await startTestHub(t, server);
    await putProcess(hub.pool, [{}, { name: "b" }]);
    const one = jobServer(hub, "Q", { machine: "one", node: "one", term: 4 });
    assert.equal((await one.take(1)).length, 1);
    const stranger = jobServer(hub, "Q", { machine: "two" });
    assert.equal(await stranger.refused(), "JOB_QUEUE_TAKEN");
    const successor = jobServer(hub, "Q", { machine: "two", node: "two", term: 5 });
    assert.equal((await successor.take(1)).length, 1);
    assert.equal(await one.refused(), "JOB_TERM_STALE");
    assert.equal(await jobServer(hub, "Q", { machine: "one", term: 4 }).refused(), "JOB_TERM_STALE");
  });

  test("a step that kills its service is frozen after its crashes; its neighbours get on", async (t) => {
    const hub = await startTestHub(t, server);
    const { id } = await putProcess(hub.pool, [{ name: "poison", crashes_max: 3, priority: 15 }]);
    const innocent = await putProcess(hub.pool, [{ name: "innocent" }]);
    for (let service = 0; service < 3; service++) {
      const server = jobServer(hub, "Q");
      const steps = await server.take(5);
      const poison = steps.find(({ name }) => name === "poison");
      assert.equal(poison?.attempt, service + 1);
      await server.exchange({ started: [poison?.claim ?? 0] });
    }
    const last = jobServer(hub, "Q");
    const steps = await last.take(5);
    assert.deepEqual(
      steps.map(({ name }) => name),
      [],
    );
    assert.equal((await readSteps(hub.pool, id)).poison?.state, "frozen");
    assert.equal(await processState(hub.pool, id), "stuck");
    // It stood beside the poison three times, so it comes a little later.
    assert.equal((await readSteps(hub.pool, innocent.id)).innocent?.crashes, 0);
    await untilSteps(hub.pool, innocent.id, (all) => all.innocent?.state === "ready");
    const [step] = await last.take(5);
    assert.equal(step?.name, "innocent");
  });
});
