/** Hidden values: looked for in everything that the hub says and writes down for people. */
import assert from "node:assert/strict";
import { suite, test } from "node:test";
import type { JobTemplate, StoredTemplate } from "@lockstep/protocol";
import { usePostgres } from "../support/postgres.ts";
import { jobServer } from "./support/job-server.ts";
import { ask, askJson, codeOf } from "./support/requests.ts";
import { startTestHub, type TestHub } from "./support/test-hub.ts";

const SECRETS = ["given-Gehe1m", "default-Gehe1m", "literal-Gehe1m", "output-Gehe1m", "scheduled-Gehe1m"];
const QUEUE = "\\\\JOB1";
/** Half a day away: no schedule of these starts a process while a test runs. */
const CRON = `0 ${(new Date().getUTCHours() + 12) % 24} * * *`;

const TEMPLATE: JobTemplate = {
  name: "Secretive",
  parameters: {
    password: { hidden: true, required: true },
    pin: { hidden: true, default: "default-Gehe1m" },
    note: {},
  },
  steps: [
    {
      name: "First",
      component: "Wait",
      task: "Delay",
      queue: QUEUE,
      parameters: {
        login: { user: "svc", password: "${password}" },
        header: "Bearer ${pin}",
        key: "literal-Gehe1m",
        note: "${note}",
      },
      hidden: ["key", "token"],
      freezeOnError: true,
      retries: 1,
      onSuccess: ["Second"],
    },
    {
      name: "Second",
      component: "Wait",
      task: "Delay",
      queue: QUEUE,
      parameters: { token: "${First.token}", text: "after ${First.seen}" },
      freezeOnError: true,
    },
  ],
};

/** Every answer that shows anything of processes, templates, schedules or servers. */
async function everyAnswer(hub: TestHub, process: number): Promise<string> {
  const texts: string[] = [];
  for (const path of [
    "/v1/jobs/templates",
    "/v1/jobs/templates/Secretive",
    "/v1/jobs/processes",
    `/v1/jobs/processes/${process}`,
    `/v1/jobs/processes/${process}/summary`,
    "/v1/jobs/servers",
    "/v1/jobs/schedules",
    "/v1/jobs/components",
  ]) {
    const answer = await ask(hub, "GET", path);
    assert.equal(answer.status, 200, path);
    texts.push(answer.body.toString("utf8"));
  }
  for (const as of ["step", "chain", "success", "error"]) {
    const answer = await ask(hub, "POST", "/v1/jobs/reactivate", {
      body: { as, where: { process }, dryRun: true },
    });
    assert.equal(answer.status, 200);
    texts.push(answer.body.toString("utf8"));
  }
  return texts.join("\n");
}

function holdsNone(text: string, where: string): void {
  for (const secret of SECRETS) assert.ok(!text.includes(secret), `${secret} stands in ${where}: ${text}`);
}

suite("hidden values", () => {
  const server = usePostgres();

  test("no answer holds one, whatever a component says; its service alone gets them", async (t) => {
    const hub = await startTestHub(t, server);
    const put = await ask(hub, "PUT", "/v1/jobs/templates/Secretive", { body: TEMPLATE });
    holdsNone(put.body.toString("utf8"), "the answer to PUT");
    await askJson(hub, "PUT", "/v1/jobs/schedules/daily", {
      name: "daily",
      template: "Secretive",
      parameters: { password: "scheduled-Gehe1m" },
      cron: CRON,
    });
    const started = await ask(hub, "POST", "/v1/jobs/processes", {
      body: {
        template: "Secretive",
        parameters: { password: "given-Gehe1m", note: "the pin is default-Gehe1m" },
      },
    });
    holdsNone(started.body.toString("utf8"), "the answer to the start");
    const { process } = started.json() as { process: { id: number } };

    const job = jobServer(hub, QUEUE);
    const [first] = await job.take();
    assert.deepEqual(first?.parameters, {
      login: { user: "svc", password: "given-Gehe1m" },
      header: "Bearer default-Gehe1m",
      key: "literal-Gehe1m",
      note: "the pin is default-Gehe1m",
    });
    assert.deepEqual([...(first?.hidden ?? [])].sort(), ["header", "key", "login", "token"]);
    // The service masks them where they turn up alone, also in what is not hidden itself.
    assert.deepEqual([...(first?.secrets ?? [])].sort(), [
      "Bearer default-Gehe1m",
      "default-Gehe1m",
      "given-Gehe1m",
      "literal-Gehe1m",
    ]);
    await job.report(first?.id ?? 0, "error", {
      message: "login of svc with given-Gehe1m, literal-Gehe1m failed",
    });
    holdsNone(await everyAnswer(hub, process.id), "an answer after an error");
    const [again] = await job.take();
    await job.report(again?.id ?? 0, "success", {
      message: "got output-Gehe1m",
      output: { token: "output-Gehe1m", seen: "printed given-Gehe1m" },
    });
    holdsNone(await everyAnswer(hub, process.id), "an answer after a success");
    const [second] = await job.take();
    assert.equal(second?.parameters.token, "output-Gehe1m");
    assert.deepEqual(second?.hidden, ["token"]);
    assert.deepEqual([...(second?.secrets ?? [])].sort(), ["given-Gehe1m", "output-Gehe1m"]);
    await job.report(second?.id ?? 0, "error", { message: "refused output-Gehe1m and default-Gehe1m" });
    const shown = await everyAnswer(hub, process.id);
    holdsNone(shown, "an answer for a frozen step");
    assert.match(shown, /refused <HIDDEN> and <HIDDEN>/);

    const { rows } = await hub.pool.query<{ text: string }>(
      "select message as text from job_step union all select message from job_run_end union all select detail from dbqueue_journal",
    );
    assert.ok(rows.length > 0);
    for (const { text } of rows) holdsNone(text, "a journal text of the database");
  });

  test("so can texts that only hold a hidden value, as long as something still hides it", async (t) => {
    const hub = await startTestHub(t, server);
    const path = "/v1/jobs/templates/Part";
    const original: JobTemplate = {
      name: "Part",
      description: "with part-Gehe1m",
      parameters: {
        pin: { hidden: true, default: "part-Gehe1m" },
        url: { default: "https://h/?t=part-Gehe1m" },
      },
      steps: [
        { name: "A", component: "C", task: "T", queue: QUEUE, parameters: { a: ["--key=part-Gehe1m"] } },
      ],
    };
    await askJson(hub, "PUT", path, original);
    const { template } = await askJson<StoredTemplate>(hub, "GET", path);
    assert.ok(!JSON.stringify(template).includes("Gehe1m"));
    await askJson(hub, "PUT", path, { ...template, priority: 3 });
    const read = async () =>
      (await hub.pool.query<{ definition: JobTemplate }>("select definition from job_template")).rows[0]
        ?.definition;
    assert.deepEqual(await read(), { ...original, priority: 3 });
    for (const parameters of [
      { url: template.parameters?.url },
      { ...template.parameters, url: { default: "https://other/?t=<HIDDEN>" } },
    ])
      assert.equal(
        codeOf(await ask(hub, "PUT", path, { body: { ...template, parameters } })),
        "JOB_TEMPLATE_INVALID",
      );
    assert.deepEqual(await read(), { ...original, priority: 3 });
  });

  test("a template that was shown can be put back; <HIDDEN> stands for what is stored", async (t) => {
    const hub = await startTestHub(t, server);
    const path = "/v1/jobs/templates/Secretive";
    const early = await ask(hub, "PUT", path, {
      body: {
        ...TEMPLATE,
        steps: TEMPLATE.steps.map((step) =>
          step.name === "First" ? { ...step, parameters: { ...step.parameters, key: "<HIDDEN>" } } : step,
        ),
      },
    });
    assert.equal(codeOf(early), "JOB_TEMPLATE_INVALID");
    await askJson(hub, "PUT", path, TEMPLATE);
    const { template } = await askJson<StoredTemplate>(hub, "GET", path);
    assert.equal(template.parameters?.pin?.default, "<HIDDEN>");
    assert.equal(template.steps[0]?.parameters?.key, "<HIDDEN>");
    await askJson(hub, "PUT", path, { ...template, description: "changed" });
    const { rows } = await hub.pool.query<{ definition: JobTemplate }>("select definition from job_template");
    assert.deepEqual(rows[0]?.definition, { ...TEMPLATE, description: "changed" });
    // So can a schedule.
    const schedule = {
      name: "daily",
      template: "Secretive",
      parameters: { password: "scheduled-Gehe1m" },
      cron: CRON,
    };
    await askJson(hub, "PUT", "/v1/jobs/schedules/daily", schedule);
    const stored = await askJson<{ schedule: typeof schedule }>(hub, "PUT", "/v1/jobs/schedules/daily", {
      ...schedule,
      parameters: { password: "<HIDDEN>" },
    });
    assert.deepEqual(stored.schedule.parameters, { password: "<HIDDEN>" });
    const kept = await hub.pool.query<{ parameters: unknown }>("select parameters from job_schedule");
    assert.deepEqual(kept.rows[0]?.parameters, { password: "scheduled-Gehe1m" });
  });
});
