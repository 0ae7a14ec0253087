import assert from "node:assert/strict";
import { suite, test } from "node:test";
import type { HubStatus, ProcessDetail } from "@lockstep/protocol";
import { usePostgres } from "../support/postgres.ts";
import {
  jobServer,
  processState,
  putProcess,
  readSteps,
  setSetting,
  untilSteps,
} from "./support/job-server.ts";
import { ask, askJson } from "./support/requests.ts";
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

  test("a step that waits learns since when, anew after each decision, and others do not", async (t) => {
    const hub = await startTestHub(t, server);
    const { id } = await putProcess(hub.pool, [
      { name: "waits", component: "Wait", retries: 3 },
      { name: "works", queue: "P" },
    ]);
    assert.equal((await jobServer(hub, "P").take())[0]?.waitedMs, undefined);
    const service = jobServer(hub, "Q");
    const claimAgain = async (outcome: "deferred" | "error", ago: string) => {
      const [step] = service.claims.keys();
      await service.report(step ?? 0, outcome, outcome === "deferred" ? { deferMs: 1 } : {});
      await hub.pool.query(
        "update job_run_end set claimed_at = claimed_at - $1::interval where claim = (select max(claim) from job_run_end)",
        [ago],
      );
      await untilSteps(hub.pool, id, (all) => all.waits?.state === "ready");
      return (await service.take())[0]?.waitedMs ?? Number.NaN;
    };
    assert.equal((await service.take())[0]?.waitedMs, 0);
    const first = await claimAgain("deferred", "10 minutes");
    assert.ok(first >= 600_000, String(first));
    const second = await claimAgain("deferred", "1 minute");
    assert.ok(second >= first, String(second));
    assert.equal(await claimAgain("error", "1 hour"), 0);
    const third = await claimAgain("deferred", "1 minute");
    assert.ok(third >= 60_000 && third < 600_000, String(third));
  });

  test("a step too long for any message ends with an error, and keeps nobody else from working", async (t) => {
    const hub = await startTestHub(t, server);
    const output = { text: "x".repeat(100_000) };
    const { steps: ids, id } = await putProcess(hub.pool, [
      { name: "First", onSuccess: ["Second"] },
      // As much as no JavaScript text can hold.
      { name: "Second", parameters: { text: "${First.text}".repeat(6000) } },
    ]);
    const service = jobServer(hub, "Q");
    const [first] = await service.take(1, 1);
    assert.equal(first?.id, ids.First);
    await putProcess(hub.pool, [{ name: "other" }]);
    const answer = await service.exchange({
      results: [{ step: first?.id ?? 0, claim: first?.claim ?? 0, outcome: "success", output }],
      want: { internal: 5, external: 5 },
    });
    assert.deepEqual(
      answer.steps.map(({ name }) => name),
      ["other"],
    );
    assert.equal(await processState(hub.pool, id), "failed");
    const shown = await askJson<ProcessDetail>(hub, "GET", `/v1/jobs/processes/${id}`);
    const second = shown.steps.find(({ name }) => name === "Second");
    assert.equal(second?.outcome, "error");
    assert.match(second?.message ?? "", /^the outputs that it names have more than \d+ characters$/);
  });

  test("steps for which one answer has no room come with the next ones", async (t) => {
    const hub = await startTestHub(t, server);
    const text = "x".repeat(15_000_000);
    for (let index = 0; index < 5; index++) await putProcess(hub.pool, [{ parameters: { text } }]);
    const service = jobServer(hub, "Q");
    const came: number[] = [];
    const seen = new Set<number>();
    while (seen.size < 5) {
      const steps = await service.take(20, 20);
      came.push(steps.length);
      for (const { id, parameters } of steps) {
        seen.add(id);
        assert.equal(parameters.text, text);
      }
      const answer = await service.exchange({
        results: steps.map(({ id, claim }) => ({ step: id, claim, outcome: "success" })),
      });
      assert.ok(answer.results.every(({ verdict }) => verdict === "recorded"));
    }
    assert.deepEqual(came, [2, 2, 1]);
  });

  test("one step larger than an answer comes alone, and small ones come in turn with large ones", async (t) => {
    const hub = await startTestHub(t, server);
    const big = "x".repeat(34_000_000);
    const { steps } = await putProcess(hub.pool, [
      { name: "small", priority: 9, parameters: { text: "a" } },
      { name: "big", priority: 7, parameters: { text: big } },
      { name: "middle", priority: 6, parameters: { text: "b".repeat(100_000) } },
      { name: "last", priority: 5, parameters: { text: "c" } },
    ]);
    const names = new Map(Object.entries(steps).map(([name, id]) => [id, name]));
    const service = jobServer(hub, "Q");
    const came: string[][] = [];
    for (let rounds = 0; rounds < 3; rounds++) {
      const taken = await service.take(20);
      came.push(taken.map(({ id }) => names.get(id) ?? ""));
      await service.exchange({
        results: taken.map(({ id, claim }) => ({ step: id, claim, outcome: "success" })),
      });
    }
    assert.deepEqual(came, [["small", "big"], ["middle", "last"], []]);
  });

  test("five hundred ready steps of four megabytes are not read at once", async (t) => {
    const hub = await startTestHub(t, server);
    await putProcess(hub.pool, [{ name: "first", parameters: { text: "x".repeat(4_000_000) } }]);
    await hub.pool.query(
      `insert into job_step (process_id, name, component, task, queue, parameters)
       select process_id, name || n, component, task, queue, parameters from job_step, generate_series(1, 499) as n`,
    );
    const service = jobServer(hub, "Q");
    const before = process.memoryUsage();
    const steps = await service.take(1000);
    const after = process.memoryUsage();
    assert.equal(steps.length, 8);
    // Hub and test share a process here. All at once they would be two gigabytes, as text alone.
    const grown = after.heapUsed + after.external - before.heapUsed - before.external;
    assert.ok(grown < 700e6, `${Math.round(grown / 1e6)} MB`);
  });

  test("a process is shown with the newest hundred claims of a step", async (t) => {
    const hub = await startTestHub(t, server);
    const { id, steps } = await putProcess(hub.pool, [{}]);
    await hub.pool.query(
      `insert into job_run_end (claim, step_id, attempt, queue, machine, instance, claimed_at, outcome)
       select -claim, $1, 1, 'Q', 'm', gen_random_uuid(), now(), 'deferred' from generate_series(1, 150) as claim`,
      [steps.only],
    );
    const detail = await askJson<ProcessDetail>(hub, "GET", `/v1/jobs/processes/${id}`);
    const claims = detail.steps[0]?.runs.map(({ claim }) => claim) ?? [];
    assert.deepEqual([claims.length, claims[0], claims.at(-1)], [100, -100, -1]);
  });

  test("a time to keep processes that makes no sense keeps none for ever", async (t) => {
    const database = await server.database(t);
    await setSetting(database.pool, "Common/Jobs/KeepDays", "thirty");
    await setSetting(database.pool, "Common/Jobs/LeaseSeconds", -5);
    await putProcess(database.pool, [{ state: "finished", outcome: "success" }], {
      state: "finished",
      finished_at: "2001-01-01T00:00:00Z",
    });
    const hub = await startTestHub(t, server, { shared: database });
    const answer = await jobServer(hub, "Q").exchange();
    assert.equal(answer.leaseMs, 30_000);
    for (;;) {
      const { rowCount } = await database.pool.query("select from job_process");
      if (rowCount === 0) break;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  });

  test("a service that was away longer than its lease has lost its steps, whatever it believes", async (t) => {
    const hub = await startTestHub(t, server);
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
    // Its next word, for a second, is its last one.
    await setSetting(hub.pool, "Common/Jobs/LeaseSeconds", 1);
    assert.equal((await frozen.exchange()).leaseMs, 1_000);
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

  test("two services of one queue on two machines hear of each other by name", async (t) => {
    const hub = await startTestHub(t, server);
    const one = jobServer(hub, "Q", { machine: "one" });
    await one.exchange();
    const two = jobServer(hub, "Q", { machine: "two" });
    await two.exchange();
    const body = {
      queue: "Q",
      instance: one.instance,
      sequence: 2,
      answered: 1,
      holding: [],
      started: [],
      results: [],
      want: { internal: 0, external: 0 },
      waitMs: 0,
      machine: "one",
      revision: null,
      installation: null,
      version: "0.1.0",
      statusUrl: null,
    };
    const { error } = (await ask(hub, "POST", "/v1/jobs/exchange", { body })).json() as {
      error: { code: string; message: string; hint: string };
    };
    assert.equal(error.code, "JOB_INSTANCE_REPLACED");
    assert.match(
      error.message,
      /two services have one queue: the one on two serves Q now, and not this one on one/,
    );
    assert.match(error.hint, /own Queue/);
  });

  test("the hub's status names two services of one queue, until a service takes it from nobody who lives", async (t) => {
    const hub = await startTestHub(t, server);
    const other = await startTestHub(t, server, { shared: hub.database });
    const rivals = async () => (await askJson<HubStatus>(other, "GET", "/v1/status")).rivals;
    await jobServer(hub, "Q", { machine: "one" }).exchange();
    await jobServer(hub, "Q", { machine: "one" }).exchange();
    await jobServer(hub, "V", { machine: "one", node: "one", term: 1 }).exchange();
    await jobServer(hub, "V", { machine: "two", node: "two", term: 2 }).exchange();
    assert.deepEqual(await rivals(), []);
    const before = Date.now();
    await jobServer(hub, "Q", { machine: "two" }).exchange();
    const [rival, ...others] = (await rivals()) ?? [];
    assert.deepEqual(others, []);
    assert.deepEqual(
      { ...rival, at: Math.abs((rival?.at ?? 0) - before) < 60_000 },
      { queue: "Q", machine: "two", former: "one", at: true },
    );
    await hub.pool.query("update job_server set rival_at = now() - interval '3 hours'");
    assert.deepEqual(await rivals(), []);
    await jobServer(hub, "Q", { machine: "one" }).exchange();
    assert.deepEqual(
      (await rivals())?.map(({ machine, former }) => [machine, former]),
      [["one", "two"]],
    );
    await hub.pool.query("update job_server set lease_until = now() - interval '1 second'");
    await jobServer(hub, "Q", { machine: "two" }).exchange();
    assert.deepEqual(await rivals(), []);
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
      // Beside the poison it got lost twice, so it comes a little later.
      assert.equal(steps.length, service < 2 ? 2 : 1);
      await server.exchange({ started: [poison?.claim ?? 0] });
    }
    // However long that took: not before the last service has asked.
    await hub.pool.query(
      "update job_step set state = 'deferred', ready_at = now() + interval '1 hour' where id = $1 and state in ('deferred', 'ready')",
      [innocent.steps.innocent],
    );
    const last = jobServer(hub, "Q");
    const steps = await last.take(5);
    assert.deepEqual(
      steps.map(({ name }) => name),
      [],
    );
    assert.equal((await readSteps(hub.pool, id)).poison?.state, "frozen");
    assert.equal(await processState(hub.pool, id), "stuck");
    assert.equal((await readSteps(hub.pool, innocent.id)).innocent?.crashes, 0);
    await hub.pool.query("update job_step set ready_at = now() where id = $1", [innocent.steps.innocent]);
    await untilSteps(hub.pool, innocent.id, (all) => all.innocent?.state === "ready");
    const [step] = await last.take(5);
    assert.equal(step?.name, "innocent");
  });
});
