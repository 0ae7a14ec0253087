/** Servers, the emergency stop and limits, over HTTP on a real PostgreSQL. */
import assert from "node:assert/strict";
import { suite, test } from "node:test";
import type { CheckVersion, ComponentLimitList, JobServer, JobServerList } from "@lockstep/protocol";
import { usePostgres } from "../support/postgres.ts";
import { jobServer, putProcess } from "./support/job-server.ts";
import { ask, askJson, codeOf } from "./support/requests.ts";
import { startTestHub, type TestHub } from "./support/test-hub.ts";

const QUEUE = "\\\\JOB1 äöü/%";
const path = (queue: string) => `/v1/jobs/servers/${encodeURIComponent(queue)}`;
const servers = (hub: TestHub) => askJson<JobServerList>(hub, "GET", "/v1/jobs/servers");

suite("running the job service", () => {
  const server = usePostgres();

  test("servers that ask, servers that somebody named, and queues that nobody serves are listed", async (t) => {
    const hub = await startTestHub(t, server);
    await putProcess(hub.pool, [
      { name: "A", queue: QUEUE },
      { name: "B", queue: "Mispelled" },
    ]);
    const job = jobServer(hub, QUEUE, { machine: "app1", revision: 0, statusUrl: "http://app1:1880" });
    await job.take();
    await askJson<JobServer>(hub, "PUT", path("Planned"), { updateServer: true });
    const list = await servers(hub);
    assert.deepEqual(
      list.servers.map(({ queue, state, steps }) => [queue, state, steps]),
      [
        ["Mispelled", "never", { ready: 1 }],
        ["Planned", "never", {}],
        [QUEUE, "serving", { loaded: 1 }],
      ],
    );
    const own = list.servers[2];
    assert.deepEqual([own?.machine, own?.revision, own?.statusUrl], ["app1", 0, "http://app1:1880"]);
    assert.ok((own?.lastFetchAt ?? 0) > 0);
  });

  test("a paused server gets nothing and is told why; flags that are not named stay", async (t) => {
    const hub = await startTestHub(t, server);
    await putProcess(hub.pool, [{ name: "A", queue: QUEUE }]);
    const job = jobServer(hub, QUEUE);
    const paused = await askJson<JobServer>(hub, "PUT", path(QUEUE), { paused: "disk change" });
    assert.equal(paused.state, "paused");
    const none = await job.exchange({ want: { internal: 1, external: 0 } });
    assert.deepEqual(none.steps, []);
    assert.match(none.withheld ?? "", /disk change/);
    const flagged = await askJson<JobServer>(hub, "PUT", path(QUEUE), { noAutoUpdate: true });
    assert.deepEqual([flagged.pauseReason, flagged.noAutoUpdate], ["disk change", true]);
    const off = await askJson<JobServer>(hub, "PUT", path(QUEUE), { paused: null, disabled: true });
    assert.deepEqual([off.state, off.pauseReason, off.noAutoUpdate], ["disabled", null, true]);
    assert.deepEqual(await job.take(), []);
    const on = await askJson<JobServer>(hub, "PUT", path(QUEUE), { disabled: false });
    assert.equal(on.state, "serving");
    assert.equal((await job.take()).length, 1);
  });

  test("the emergency stop holds back every server of every hub, and not the DBQueue", async (t) => {
    const hub = await startTestHub(t, server);
    const other = await startTestHub(t, server, { shared: hub.database });
    await putProcess(hub.pool, [
      { name: "A", queue: "One" },
      { name: "B", queue: "Two" },
    ]);
    await askJson(hub, "PUT", "/v1/jobs/stopped", { stopped: true, reason: "wrong import" });
    for (const [where, queue] of [
      [hub, "One"],
      [other, "Two"],
    ] as const) {
      const answer = await jobServer(where, queue).exchange({ want: { internal: 1, external: 1 } });
      assert.deepEqual(answer.steps, []);
      assert.match(answer.withheld ?? "", /stopped/);
    }
    const { stopped, stoppedReason } = await servers(other);
    assert.deepEqual([stopped, stoppedReason], [true, "wrong import"]);
    assert.equal((await askJson<{ stopped: boolean }>(hub, "GET", "/v1/dbqueue")).stopped, false);
    // Lifting it wakes whoever waits.
    const waiting = jobServer(other, "One").exchange({ want: { internal: 1, external: 0 }, waitMs: 20_000 });
    await askJson(hub, "PUT", "/v1/jobs/stopped", { stopped: false, reason: null });
    assert.equal((await waiting).steps.length, 1);
    assert.equal((await servers(hub)).stopped, false);
  });

  test("limits are set in place of those before, and hold", async (t) => {
    const hub = await startTestHub(t, server);
    const put = (limit: object) =>
      askJson<ComponentLimitList>(hub, "PUT", "/v1/jobs/components/Test", { component: "Test", ...limit });
    await put({ maxInstance: 2, tasks: { Run: 1, Stop: -1, Free: 0 } });
    assert.deepEqual((await askJson<ComponentLimitList>(hub, "GET", "/v1/jobs/components")).limits, [
      { component: "Test", maxInstance: 2, tasks: { Run: 1, Stop: -1 } },
    ]);
    await put({ maxInstance: 1 });
    await putProcess(hub.pool, [{ name: "A" }, { name: "B" }]);
    const job = jobServer(hub, "Q");
    assert.equal((await job.take(5)).length, 1);
    assert.deepEqual((await put({ maxInstance: 0 })).limits, []);
    assert.equal((await job.take(5)).length, 1);
  });

  test("numbers and texts beyond what can be stored are refused by their code", async (t) => {
    const hub = await startTestHub(t, server);
    const limit = (body: object) => ask(hub, "PUT", "/v1/jobs/components/X", { body });
    const answers = [
      await ask(hub, "GET", "/v1/jobs/processes/99999999999999999999"),
      await ask(hub, "GET", "/v1/jobs/processes?before=1e300"),
      await ask(hub, "GET", "/v1/jobs/processes?text=%00"),
      await ask(hub, "POST", "/v1/jobs/reactivate", { body: { as: "step", where: { process: 1e300 } } }),
      await ask(hub, "POST", "/v1/jobs/reactivate", { body: { as: "step", where: { message: "\u0000" } } }),
      await ask(hub, "PUT", "/v1/jobs/servers/a%00b", { body: { disabled: true } }),
      await limit({ component: "X", maxInstance: 99_999_999_999 }),
      await limit({ component: "X", maxInstance: 1, tasks: { "": 5 } }),
      await limit({ component: "Y", maxInstance: 1 }),
      await ask(hub, "POST", "/v1/jobs/processes", { body: null }),
    ];
    assert.deepEqual(
      answers.map((answer) => codeOf(answer)),
      answers.map(() => "REQUEST_INVALID"),
    );
  });

  test("check-version puts one update step into the queue of a server that has an installation", async (t) => {
    const hub = await startTestHub(t, server);
    assert.equal(
      codeOf(await ask(hub, "POST", `${path(QUEUE)}/check-version`, { body: {} })),
      "JOB_SERVER_UNKNOWN",
    );
    const without = jobServer(hub, "Without");
    await without.exchange();
    const check = (queue: string) => askJson<CheckVersion>(hub, "POST", `${path(queue)}/check-version`, {});
    assert.equal((await check("Without")).process, null);
    const strange = "\\\\JOB${1}";
    const job = jobServer(hub, strange, { revision: 0, installation: "i1" });
    await job.exchange();
    const { process } = await check(strange);
    assert.equal((await check(strange)).process, process);
    const [step] = await job.take(5);
    assert.deepEqual(
      [step?.component, step?.task, step?.priority, step?.parameters],
      ["AutoUpdate", "CheckAndUpdate", 15, { revision: 0 }],
    );
  });
});
