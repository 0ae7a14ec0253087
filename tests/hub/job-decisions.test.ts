/** What people decide about steps that stand still, and the end of whole processes, over HTTP on a real PostgreSQL. */
import assert from "node:assert/strict";
import { suite, test } from "node:test";
import type {
  JobTemplate,
  ProcessDetail,
  Reactivate,
  Reactivated,
  StartedProcess,
  TemplateStep,
} from "@lockstep/protocol";
import { usePostgres } from "../support/postgres.ts";
import { jobServer } from "./support/job-server.ts";
import { ask, askJson, codeOf } from "./support/requests.ts";
import { startTestHub, type TestHub } from "./support/test-hub.ts";

const QUEUE = "\\\\JOB1";

function step(name: string, changes: Partial<TemplateStep> = {}): TemplateStep {
  return { name, component: "Wait", task: "Delay", queue: QUEUE, ...changes };
}

async function start(hub: TestHub, steps: TemplateStep[], changes: Partial<JobTemplate> = {}) {
  const { process } = await askJson<StartedProcess>(hub, "POST", "/v1/jobs/processes", {
    template: { name: "T", steps, ...changes },
  });
  return process.id;
}

const detail = (hub: TestHub, id: number) => askJson<ProcessDetail>(hub, "GET", `/v1/jobs/processes/${id}`);

async function states(hub: TestHub, id: number): Promise<string> {
  const { process, steps } = await detail(hub, id);
  return [process.state, ...steps.map(({ name, state, outcome }) => `${name}=${outcome ?? state}`)].join(" ");
}

const reactivate = (hub: TestHub, order: Reactivate) =>
  askJson<Reactivated>(hub, "POST", "/v1/jobs/reactivate", order);

/** A process whose second step is frozen. */
async function startFrozen(hub: TestHub, message = "no space left"): Promise<number> {
  const id = await start(hub, [
    step("A", { onSuccess: ["B"], priority: 15 }),
    step("B", {
      freezeOnError: true,
      onSuccess: ["C"],
      onError: ["D"],
      priority: 15,
      parameters: { x: "${A.n}" },
    }),
    step("C"),
    step("D"),
  ]);
  const job = jobServer(hub, QUEUE);
  for (const outcome of ["success", "error"] as const) {
    const [own] = await job.take();
    await job.report(own?.id ?? 0, outcome, { message, output: { n: 1 } });
  }
  assert.equal(await states(hub, id), "stuck A=success B=frozen C=waiting D=waiting");
  return id;
}

suite("decisions of people", () => {
  const server = usePostgres();

  test("step: the same again, with all its tries and the same key for its effects", async (t) => {
    const hub = await startTestHub(t, server);
    const id = await startFrozen(hub);
    const result = await reactivate(hub, { as: "step", where: { process: id } });
    assert.deepEqual(
      result.steps.map(({ name, state, refused, message }) => [name, state, refused, message]),
      [["B", "frozen", null, "no space left"]],
    );
    assert.equal(await states(hub, id), "running A=success B=ready C=waiting D=waiting");
    const job = jobServer(hub, QUEUE);
    const [again] = await job.take();
    assert.deepEqual([again?.name, again?.attempt, again?.parameters.x], ["B", 1, 1]);
    await job.report(again?.id ?? 0, "success");
    const [last] = await job.take();
    await job.report(last?.id ?? 0, "success");
    assert.equal(await states(hub, id), "finished A=success B=success C=success D=skipped");
    const { steps } = await detail(hub, id);
    assert.deepEqual(
      steps[1]?.runs.map(({ outcome }) => outcome),
      ["error", "success"],
    );
  });

  test("success and error: what follows is what would have followed", async (t) => {
    const hub = await startTestHub(t, server);
    const good = await startFrozen(hub);
    const bad = await startFrozen(hub);
    await reactivate(hub, { as: "success", where: { process: good } });
    assert.equal(await states(hub, good), "running A=success B=success C=ready D=skipped");
    await reactivate(hub, { as: "error", where: { process: bad } });
    assert.equal(await states(hub, bad), "running A=success B=error C=skipped D=ready");
    const { steps } = await detail(hub, bad);
    assert.match(steps[1]?.message ?? "", /^counted as error by /);
  });

  test("an error that nothing follows ends its process as failed", async (t) => {
    const hub = await startTestHub(t, server);
    const id = await start(hub, [step("A", { freezeOnError: true })]);
    const job = jobServer(hub, QUEUE);
    const [own] = await job.take();
    await job.report(own?.id ?? 0, "error");
    await reactivate(hub, { as: "error", where: { steps: [own?.id ?? 0] } });
    assert.equal(await states(hub, id), "failed A=error");
  });

  test("chain: everything from the beginning, with new keys; not while a step is being worked on", async (t) => {
    const hub = await startTestHub(t, server);
    const id = await start(hub, [
      step("A", { onSuccess: ["B", "Long"] }),
      step("B", { freezeOnError: true, onSuccess: ["C"], priority: 9 }),
      step("Long", { onSuccess: ["C"] }),
      step("C"),
    ]);
    const job = jobServer(hub, QUEUE);
    const [first] = await job.take();
    await job.report(first?.id ?? 0, "success");
    const [b, long] = await job.take(2);
    await job.report(b?.id ?? 0, "error");
    const order: Reactivate = { as: "chain", where: { process: id } };
    const refused = await reactivate(hub, order);
    assert.match(refused.steps[0]?.refused ?? "", /being worked on/);
    assert.equal(await states(hub, id), "running A=success B=frozen Long=loaded C=waiting");
    await job.report(long?.id ?? 0, "success");
    const dry = await reactivate(hub, { ...order, dryRun: true });
    assert.equal(dry.steps[0]?.refused, null);
    assert.equal(await states(hub, id), "stuck A=success B=frozen Long=success C=waiting");
    assert.equal((await reactivate(hub, order)).steps.length, 1);
    assert.equal(await states(hub, id), "running A=ready B=waiting Long=waiting C=waiting");
    const [again] = await job.take();
    assert.equal(again?.id, first?.id);
    assert.notEqual(again?.idempotencyKey, first?.idempotencyKey);
    await job.report(again?.id ?? 0, "success");
    for (const each of await job.take(5)) await job.report(each.id, "success");
    for (const each of await job.take(5)) await job.report(each.id, "success");
    assert.equal(await states(hub, id), "finished A=success B=success Long=success C=success");
  });

  test("many at once by what they have in common; what does not match stays", async (t) => {
    const hub = await startTestHub(t, server);
    const space = [await startFrozen(hub), await startFrozen(hub)];
    const other = await startFrozen(hub, "permission denied");
    const where = { message: "NO SPACE", component: "Wait", task: "Delay", queue: QUEUE, template: "T" };
    const dry = await reactivate(hub, { as: "step", where: { ...where, state: "frozen" }, dryRun: true });
    assert.deepEqual(
      dry.steps.map(({ process }) => process),
      space,
    );
    assert.equal(
      (await reactivate(hub, { as: "step", where: { ...where, state: "missing" } })).steps.length,
      0,
    );
    assert.equal(
      (await reactivate(hub, { as: "step", where: { ...where, queue: "other" } })).steps.length,
      0,
    );
    assert.equal((await reactivate(hub, { as: "step", where })).steps.length, 2);
    for (const id of space) assert.match(await states(hub, id), /^running .*B=ready/);
    assert.match(await states(hub, other), /^stuck .*B=frozen/);
    const none = await ask(hub, "POST", "/v1/jobs/reactivate", { body: { as: "step", where: {} } });
    assert.equal(codeOf(none), "REQUEST_INVALID");
  });

  test("over limit: a person lets the process begin", async (t) => {
    const hub = await startTestHub(t, server);
    await start(hub, [step("A")], { limit: 1 });
    const id = await start(hub, [step("A")], { limit: 1 });
    assert.equal(await states(hub, id), "stuck A=over-limit");
    await reactivate(hub, { as: "step", where: { state: "over-limit" } });
    assert.equal(await states(hub, id), "running A=ready");
  });

  test("two people who decide in the same moment decide once", async (t) => {
    const hub = await startTestHub(t, server);
    const id = await startFrozen(hub);
    const answers = await Promise.all([
      reactivate(hub, { as: "success", where: { process: id } }),
      reactivate(hub, { as: "error", where: { process: id } }),
      reactivate(hub, { as: "step", where: { process: id } }),
    ]);
    assert.equal(
      answers.reduce((sum, { steps }) => sum + steps.length, 0),
      1,
    );
    assert.match(await states(hub, id), /^running/);
  });

  test("a cancelled process is over: its service is told to stop, and its result is refused", async (t) => {
    const hub = await startTestHub(t, server);
    const id = await start(hub, [step("A", { onSuccess: ["B"] }), step("B"), step("Beside")]);
    const job = jobServer(hub, QUEUE);
    const [own] = await job.take();
    const claim = own?.claim ?? 0;
    await askJson(hub, "POST", `/v1/jobs/processes/${id}/cancel`, {});
    assert.equal(await states(hub, id), "cancelled A=cancelled B=cancelled Beside=cancelled");
    const told = await job.exchange({ want: { internal: 5, external: 5 } });
    assert.deepEqual([told.lost, told.steps], [[claim], []]);
    const late = await job.exchange({
      holding: [],
      results: [{ step: own?.id ?? 0, claim, outcome: "success" }],
    });
    assert.notEqual(late.results[0]?.verdict, "recorded");
    assert.equal(await states(hub, id), "cancelled A=cancelled B=cancelled Beside=cancelled");
    const again = await ask(hub, "POST", `/v1/jobs/processes/${id}/cancel`, { body: {} });
    assert.equal(codeOf(again), "JOB_PROCESS_ENDED");
    assert.equal(
      codeOf(await ask(hub, "POST", "/v1/jobs/processes/99/cancel", { body: {} })),
      "JOB_PROCESS_UNKNOWN",
    );
  });
});
