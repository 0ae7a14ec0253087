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
});
