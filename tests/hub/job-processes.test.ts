/** Templates, starting and looking at processes, over HTTP on a real PostgreSQL. */
import assert from "node:assert/strict";
import { suite, test } from "node:test";
import type {
  JobTemplate,
  ProcessDetail,
  ProcessList,
  StartedProcess,
  StartProcess,
  StoredTemplate,
  TemplateList,
} from "@lockstep/protocol";
import { usePostgres } from "../support/postgres.ts";
import { jobServer } from "./support/job-server.ts";
import { ask, askJson, codeOf } from "./support/requests.ts";
import { startTestHub, type TestHub } from "./support/test-hub.ts";

const QUEUE = "\\\\JOB1";

function template(changes: Partial<JobTemplate> = {}): JobTemplate {
  return {
    name: "Nightly/Import",
    parameters: { day: { required: true }, server: { default: "JOB1" } },
    steps: [
      {
        name: "Fetch",
        component: "Http",
        task: "Request",
        queue: "\\\\${server}",
        parameters: { url: "https://example.test/${day}" },
        onSuccess: ["Import"],
        onError: ["Tell"],
      },
      {
        name: "Import",
        component: "Sql",
        task: "Execute",
        queue: "\\\\${server}",
        parameters: { file: "${Fetch.path}", day: "${day}" },
      },
      { name: "Tell", component: "Mail", task: "Send", queue: "\\\\${server}" },
    ],
    ...changes,
  };
}

const put = (hub: TestHub, what: JobTemplate) =>
  askJson<StoredTemplate>(hub, "PUT", `/v1/jobs/templates/${encodeURIComponent(what.name)}`, what);
const start = (hub: TestHub, what: StartProcess) =>
  askJson<StartedProcess>(hub, "POST", "/v1/jobs/processes", what);
const detail = (hub: TestHub, id: number) => askJson<ProcessDetail>(hub, "GET", `/v1/jobs/processes/${id}`);

suite("templates and processes", () => {
  const server = usePostgres();

  test("a template is stored, listed, shown, replaced and removed", async (t) => {
    const hub = await startTestHub(t, server);
    const stored = await put(hub, template({ description: "first" }));
    assert.deepEqual(stored.template, template({ description: "first" }));
    await put(hub, template({ description: "second", limit: 3 }));
    const { templates } = await askJson<TemplateList>(hub, "GET", "/v1/jobs/templates");
    assert.deepEqual(
      templates.map(({ changedAt: _, ...rest }) => rest),
      [
        {
          name: "Nightly/Import",
          description: "second",
          parameters: ["day*", "server"],
          steps: 3,
          limit: 3,
          running: 0,
        },
      ],
    );
    const path = "/v1/jobs/templates/Nightly%2FImport";
    assert.equal((await askJson<StoredTemplate>(hub, "GET", path)).template.description, "second");
    assert.equal((await ask(hub, "DELETE", path)).status, 204);
    assert.equal(codeOf(await ask(hub, "GET", path)), "JOB_TEMPLATE_UNKNOWN");
    assert.equal(codeOf(await ask(hub, "DELETE", path)), "JOB_TEMPLATE_UNKNOWN");
  });

  test("a wrong template is refused with every fault, of form or of sense, and nothing is stored", async (t) => {
    const hub = await startTestHub(t, server);
    const sense = template();
    const wrong = { ...sense, steps: sense.steps.map((step) => ({ ...step, onSuccess: ["Nowhere"] })) };
    const bad = await ask(hub, "PUT", "/v1/jobs/templates/Nightly%2FImport", { body: wrong });
    assert.equal(codeOf(bad), "JOB_TEMPLATE_INVALID");
    assert.equal((bad.json() as { error: { faults: unknown[] } }).error.faults.length, 4);
    const form = { ...sense, extra: 1, steps: [{ name: "A", priority: 99 }] };
    const formless = await ask(hub, "PUT", "/v1/jobs/templates/Nightly%2FImport", { body: form });
    assert.deepEqual(
      (formless.json() as { error: { faults: { where: string }[] } }).error.faults.map(({ where }) => where),
      ["extra", 'steps[1] "A".component', 'steps[1] "A".task', 'steps[1] "A".queue', 'steps[1] "A".priority'],
    );
    const other = await ask(hub, "PUT", "/v1/jobs/templates/Other", { body: sense });
    assert.equal(codeOf(other), "REQUEST_INVALID");
    const inline = await ask(hub, "POST", "/v1/jobs/processes", { body: { template: wrong } });
    assert.equal(codeOf(inline), "JOB_TEMPLATE_INVALID");
    assert.deepEqual((await askJson<TemplateList>(hub, "GET", "/v1/jobs/templates")).templates, []);
  });

  test("a process runs from its template to its end, each step when its turn comes", async (t) => {
    const hub = await startTestHub(t, server);
    await put(hub, template());
    const { process, created, overLimit } = await start(hub, {
      template: "Nightly/Import",
      parameters: { day: "2026-01-31" },
    });
    assert.deepEqual(
      [created, overLimit, process.state, process.template],
      [true, false, "running", "Nightly/Import"],
    );
    assert.deepEqual(process.steps, { ready: 1, waiting: 2 });
    const job = jobServer(hub, QUEUE);
    const [fetch] = await job.take(5);
    assert.deepEqual(fetch?.parameters, { url: "https://example.test/2026-01-31" });
    await job.report(fetch?.id ?? 0, "success", { output: { path: "/tmp/${x}" } });
    const [load] = await job.take(5);
    assert.deepEqual(load?.parameters, { file: "/tmp/${x}", day: "2026-01-31" });
    await job.report(load?.id ?? 0, "success");
    const { process: ended, steps, parameters } = await detail(hub, process.id);
    assert.equal(ended.state, "finished");
    assert.deepEqual(parameters, { day: "2026-01-31", server: "JOB1" });
    assert.deepEqual(
      steps.map(({ name, outcome }) => [name, outcome]),
      [
        ["Fetch", "success"],
        ["Import", "success"],
        ["Tell", "skipped"],
      ],
    );
    assert.equal(steps[0]?.runs[0]?.outcome, "success");
    assert.deepEqual(steps[1]?.parameters, { file: "/tmp/${x}", day: "2026-01-31" });
    assert.deepEqual(steps[0]?.onSuccess, [steps[1]?.id]);
  });

  test("one idempotency key starts one process, also when two ask in the same moment", async (t) => {
    const hub = await startTestHub(t, server);
    await put(hub, template());
    const order = { template: "Nightly/Import", parameters: { day: "x" }, idempotencyKey: "monday" };
    const answers = await Promise.all(Array.from({ length: 8 }, () => start(hub, order)));
    assert.equal(new Set(answers.map(({ process }) => process.id)).size, 1);
    assert.equal(answers.filter(({ created }) => created).length, 1);
    const { processes } = await askJson<ProcessList>(hub, "GET", "/v1/jobs/processes");
    assert.equal(processes.length, 1);
    // Not even with values that could not start one: the first answer stands.
    assert.equal((await start(hub, { ...order, parameters: {} })).created, false);
  });

  test("beyond its limit a process is over limit; those that ended make room", async (t) => {
    const hub = await startTestHub(t, server);
    const one: JobTemplate = {
      name: "Limited",
      limit: 2,
      steps: [{ name: "A", component: "Wait", task: "Delay", queue: QUEUE }],
    };
    await put(hub, one);
    const answers = await Promise.all(Array.from({ length: 5 }, () => start(hub, { template: "Limited" })));
    assert.equal(answers.filter(({ overLimit }) => overLimit).length, 3);
    for (const { process, overLimit } of answers) {
      assert.equal(process.state, overLimit ? "stuck" : "running");
      assert.deepEqual(process.steps, overLimit ? { "over-limit": 1 } : { ready: 1 });
    }
    const job = jobServer(hub, QUEUE);
    const [step] = await job.take();
    await job.report(step?.id ?? 0, "success");
    assert.equal((await start(hub, { template: "Limited" })).overLimit, false);
    assert.equal((await start(hub, { template: "Limited" })).overLimit, true);
  });

  test("a process that starts later waits for its time", async (t) => {
    const hub = await startTestHub(t, server);
    const startAt = Date.now() + 3_600_000;
    const { process } = await start(hub, {
      template: template(),
      parameters: { day: "x" },
      startAt,
      priority: 15,
    });
    assert.equal(process.template, null);
    assert.equal(process.priority, 15);
    const { steps } = await detail(hub, process.id);
    assert.equal(steps[0]?.state, "deferred");
    assert.equal(steps[0]?.readyAt, startAt);
    assert.deepEqual(await jobServer(hub, QUEUE).take(), []);
  });

  test("wrong values are told all at once, and nothing is started", async (t) => {
    const hub = await startTestHub(t, server);
    const answer = await ask(hub, "POST", "/v1/jobs/processes", {
      body: { template: template(), parameters: { dya: "x", server: "\n" } },
    });
    assert.equal(codeOf(answer), "JOB_START_INVALID");
    const { faults } = (answer.json() as { error: { faults: { where: string }[] } }).error;
    assert.deepEqual(
      faults.map(({ where }) => where),
      ["parameters.dya", "parameters.day", "steps.0.queue", "steps.1.queue", "steps.2.queue"],
    );
    const unknown = await ask(hub, "POST", "/v1/jobs/processes", { body: { template: "Nothing" } });
    assert.equal(codeOf(unknown), "JOB_TEMPLATE_UNKNOWN");
    assert.deepEqual((await askJson<ProcessList>(hub, "GET", "/v1/jobs/processes")).processes, []);
  });

  test("processes are found by state, template and text, page by page", async (t) => {
    const hub = await startTestHub(t, server);
    await put(hub, template());
    const ids: number[] = [];
    for (const day of ["1", "2", "3"])
      ids.push((await start(hub, { template: "Nightly/Import", parameters: { day } })).process.id);
    const other = await start(hub, { template: { ...template(), name: "Other" }, parameters: { day: "4" } });
    const job = jobServer(hub, QUEUE);
    const [step] = await job.take();
    await job.report(step?.id ?? 0, "error", { message: "disk 100% full_up" });
    const find = async (query: string) =>
      (await askJson<ProcessList>(hub, "GET", `/v1/jobs/processes?${query}`)).processes.map(({ id }) => id);
    assert.deepEqual(await find("template=Nightly%2FImport"), [...ids].reverse());
    assert.deepEqual(await find("state=finished"), []);
    assert.deepEqual(await find("text=100%25%20FULL_"), [ids[0]]);
    assert.deepEqual(await find("text=100x"), []);
    assert.deepEqual(await find("text=othe"), [other.process.id]);
    const first = await askJson<ProcessList>(hub, "GET", "/v1/jobs/processes?limit=3");
    assert.equal(first.processes.length, 3);
    assert.equal(first.next, ids[1]);
    const second = await askJson<ProcessList>(hub, "GET", `/v1/jobs/processes?limit=3&before=${first.next}`);
    assert.deepEqual([second.processes.map(({ id }) => id), second.next], [[ids[0]], null]);
    assert.equal(codeOf(await ask(hub, "GET", "/v1/jobs/processes/999999")), "JOB_PROCESS_UNKNOWN");
  });

  test("ten thousand steps are started and shown", async (t) => {
    const hub = await startTestHub(t, server);
    const count = 10_000;
    const { process } = await start(hub, {
      template: {
        name: "Large",
        steps: Array.from({ length: count }, (_, index) => ({
          name: `S${index}`,
          component: "Wait",
          task: "Delay",
          queue: QUEUE,
          ...(index === 0 ? { onSuccess: Array.from({ length: count - 1 }, (_, to) => `S${to + 1}`) } : {}),
        })),
      },
    });
    assert.deepEqual(process.steps, { ready: 1, waiting: count - 1 });
    const job = jobServer(hub, QUEUE);
    const [first] = await job.take();
    await job.report(first?.id ?? 0, "success");
    assert.equal((await detail(hub, process.id)).process.steps.ready, count - 1);
  });
});
