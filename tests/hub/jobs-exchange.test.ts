import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { usePostgres } from "../support/postgres.ts";
import { jobServer, processState, putProcess, readSteps } from "./support/job-server.ts";
import { startTestHub } from "./support/test-hub.ts";

suite("an exchange", () => {
  const server = usePostgres();

  test("gives out a step, records its result once, and what follows becomes ready", async (t) => {
    const hub = await startTestHub(t, server);
    const { id } = await putProcess(hub.pool, [
      { name: "first", onSuccess: ["second"], onError: ["never"], parameters: { a: 1 } },
      { name: "second", parameters: { text: "got ${first.value}" }, onSuccess: ["end"] },
      { name: "never", onSuccess: ["end"] },
      { name: "end" },
    ]);
    const service = jobServer(hub, "Q");
    const [first] = await service.take(5);
    assert.equal(first?.name, "first");
    assert.deepEqual(first?.parameters, { a: 1 });
    assert.equal(first?.attempt, 1);
    assert.equal(
      await service.report(first?.id ?? 0, "success", { output: { value: "\u0000x" } }),
      "recorded",
    );
    const [second] = await service.take(5);
    assert.deepEqual(second?.parameters, { text: "got \ufffdx" });
    assert.equal((await readSteps(hub.pool, id)).never?.outcome, "skipped");
    assert.equal(await service.report(second?.id ?? 0, "success"), "recorded");
    const [end] = await service.take(5);
    assert.equal(end?.name, "end");
    assert.equal(await processState(hub.pool, id), "running");
    assert.equal(await service.report(end?.id ?? 0, "success"), "recorded");
    assert.equal(await processState(hub.pool, id), "finished");
    const { rows } = await hub.pool.query("select outcome from job_run");
    assert.deepEqual(rows, [{ outcome: "success" }, { outcome: "success" }, { outcome: "success" }]);
  });

  test("ends a plain step by the short way just as by the long one, and no step by a claim that is not its own", async (t) => {
    const hub = await startTestHub(t, server);
    // The second hides something and says it, the third has a successor, the fourth failed before.
    const one = await putProcess(hub.pool, [{ name: "plain" }]);
    const two = await putProcess(hub.pool, [{ name: "says", hidden: ["a"], parameters: { a: "Sesame77" } }]);
    const three = await putProcess(hub.pool, [{ name: "leads", onSuccess: ["next"] }, { name: "next" }]);
    const four = await putProcess(hub.pool, [{ name: "failed", retries: 3, errors: 2, message: "it broke" }]);
    const five = await putProcess(hub.pool, [{ name: "foreign" }]);
    const service = jobServer(hub, "Q");
    const steps = await service.take(10);
    assert.equal(steps.length, 5);
    const startedAt = 1_700_000_000_000;
    const result = (name: string, more = {}) => {
      const step = steps.find((each) => each.name === name) ?? assert.fail(name);
      return {
        step: step.id,
        claim: step.claim,
        outcome: "success" as const,
        startedAt,
        endedAt: startedAt + 5,
        ...more,
      };
    };
    const foreign = result("foreign");
    const { results } = await service.exchange({
      results: [
        result("plain"),
        result("says", { message: "Sesame77 was opened" }),
        result("leads"),
        result("failed"),
        { ...foreign, claim: foreign.claim + 1000 },
      ],
      holding: steps.map(({ claim }) => claim),
    });
    assert.deepEqual(
      results.map(({ verdict }) => verdict),
      ["recorded", "recorded", "recorded", "recorded", "refused"],
    );
    const { rows } = await hub.pool.query(
      `select s.name, s.state, s.outcome, s.message, s.claim_instance, r.attempt, r.queue, r.machine, r.instance, r.outcome as run,
         r.message as said, extract(epoch from r.started_at) * 1000 = $1 as started, extract(epoch from r.ended_at) * 1000 = $1 + 5 as ended,
         r.claim = s.claim and abs(extract(epoch from r.claimed_at - s.claimed_at)) < 0.002 as same
       from job_step s join job_run_end r on r.step_id = s.id order by s.id`,
      [startedAt],
    );
    const alike = {
      state: "finished",
      outcome: "success",
      claim_instance: null,
      queue: "Q",
      machine: "machine",
    };
    const run = { instance: service.instance, run: "success", started: true, ended: true, same: true };
    assert.deepEqual(rows, [
      { name: "plain", message: "", attempt: 1, said: "", ...alike, ...run },
      {
        name: "says",
        message: "<HIDDEN> was opened",
        attempt: 1,
        said: "<HIDDEN> was opened",
        ...alike,
        ...run,
      },
      { name: "leads", message: "", attempt: 1, said: "", ...alike, ...run },
      { name: "failed", message: "", attempt: 3, said: "", ...alike, ...run },
    ]);
    for (const { id } of [one, two, four]) assert.equal(await processState(hub.pool, id), "finished");
    assert.equal((await readSteps(hub.pool, three.id)).next?.state, "ready");
    assert.equal((await readSteps(hub.pool, five.id)).foreign?.state, "loaded");
    const again = await service.exchange({ results: [result("plain")] });
    assert.deepEqual(
      again.results.map(({ verdict }) => verdict),
      ["known"],
    );
  });
});
