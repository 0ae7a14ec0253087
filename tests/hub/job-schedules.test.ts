/** Schedules: which times they mean, and that each due time starts one process, with any number of hubs. */
import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { silentLogger } from "@lockstep/platform";
import type { JobSchedule, ProcessList, ScheduleList, ScheduleState } from "@lockstep/protocol";
import type pg from "pg";
import { nextDue, planDue, runDueSchedules } from "../../packages/hub/src/jobs/schedules.ts";
import { usePostgres } from "../support/postgres.ts";
import { ask, askJson, codeOf } from "./support/requests.ts";
import { startTestHub, type TestHub } from "./support/test-hub.ts";

const at = (text: string) => Date.parse(text);

/** The next due times after a moment. */
function times(cron: string, timeZone: string, after: string, count: number): string[] {
  const found: string[] = [];
  for (let last = at(after); found.length < count; ) {
    const next = nextDue(cron, timeZone, last);
    if (next === null) break;
    found.push(new Date(next).toISOString().slice(0, 16));
    last = next;
  }
  return found;
}

test("02:30 when the clocks jump over it starts at 03:00, and once", () => {
  // Berlin, 2026-03-29: 02:00 is 03:00.
  assert.deepEqual(times("30 2 * * *", "Europe/Berlin", "2026-03-28T00:00:00Z", 3), [
    "2026-03-28T01:30",
    "2026-03-29T01:00",
    "2026-03-30T00:30",
  ]);
});

test("several times in the hour that is skipped start once at its end, also where that is midnight", () => {
  for (const cron of ["15,45 2 * * *", "*/10 2 * * *", "0 15-45 2 * * *"])
    assert.equal(times(cron, "Europe/Berlin", "2026-03-29T00:50:00Z", 1)[0], "2026-03-29T01:00", cron);
  assert.deepEqual(times("15,45 2 * * *", "Europe/Berlin", "2026-03-28T01:20:00Z", 4), [
    "2026-03-28T01:45",
    "2026-03-29T01:00",
    "2026-03-30T00:15",
    "2026-03-30T00:45",
  ]);
  assert.deepEqual(times("30 2-3 * * *", "Europe/Berlin", "2026-03-29T00:00:00Z", 3), [
    "2026-03-29T01:00",
    "2026-03-29T01:30",
    "2026-03-30T00:30",
  ]);
  // Every hour at 45 leaves out the one that is not there.
  assert.deepEqual(times("45 * * * *", "Europe/Berlin", "2026-03-29T00:10:00Z", 2), [
    "2026-03-29T00:45",
    "2026-03-29T01:45",
  ]);
  // Nuuk, 2026-03-28: 23:00 is 00:00 of the 29th.
  assert.deepEqual(times("45 23 * * *", "America/Nuuk", "2026-03-28T12:00:00Z", 2), [
    "2026-03-29T01:00",
    "2026-03-30T00:45",
  ]);
  // Half an hour is skipped on Lord Howe: 02:00 is 02:30.
  assert.equal(
    times("5,10 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00:00Z", 1)[0],
    "2026-10-03T15:30",
  );
});

test("02:30 when it comes twice starts the first time alone", () => {
  // Berlin, 2026-10-25: 03:00 is 02:00 again.
  assert.deepEqual(times("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 2), [
    "2026-10-25T00:30",
    "2026-10-26T01:30",
  ]);
});

test("several times in the hour that comes twice start the first time alone", () => {
  assert.deepEqual(times("15,45 2,3 * * *", "Europe/Berlin", "2026-10-24T22:30:00Z", 5), [
    "2026-10-25T00:15",
    "2026-10-25T00:45",
    "2026-10-25T02:15",
    "2026-10-25T02:45",
    "2026-10-26T01:15",
  ]);
  assert.deepEqual(times("* * 2 * * *", "Europe/Berlin", "2026-10-25T00:59:59Z", 1), ["2026-10-26T01:00"]);
  assert.deepEqual(times("@hourly", "Europe/Berlin", "2026-10-25T00:00:00Z", 2), [
    "2026-10-25T01:00",
    "2026-10-25T02:00",
  ]);
});

test("every half hour and every hour leave out none and double none on either day", () => {
  assert.deepEqual(times("*/30 * * * *", "Europe/Berlin", "2026-10-25T00:10:00Z", 4), [
    "2026-10-25T00:30",
    "2026-10-25T01:00",
    "2026-10-25T01:30",
    "2026-10-25T02:00",
  ]);
  assert.deepEqual(times("0 * * * *", "Europe/Berlin", "2026-03-29T00:10:00Z", 3), [
    "2026-03-29T01:00",
    "2026-03-29T02:00",
    "2026-03-29T03:00",
  ]);
});

test("a due time that is met late is caught up once, for the newest, or passed over", () => {
  const every = { cron: "0 * * * *", timeZone: "UTC" };
  const due = at("2026-01-01T00:00:00Z");
  const onTime = planDue({ ...every, catchUp: false }, due, due + 30_000);
  assert.deepEqual([onTime.startFor, onTime.nextAt], [due, at("2026-01-01T01:00:00Z")]);
  const now = at("2026-01-03T07:20:00Z");
  const caught = planDue({ ...every, catchUp: true }, due, now);
  assert.deepEqual(
    [caught.startFor, caught.nextAt],
    [at("2026-01-03T07:00:00Z"), at("2026-01-03T08:00:00Z")],
  );
  const passed = planDue({ ...every, catchUp: false }, due, now);
  assert.deepEqual([passed.startFor, passed.nextAt], [null, at("2026-01-03T08:00:00Z")]);
  assert.match(passed.problem ?? "", /2026-01-01T00:00:00/);
  // Every second, for ten years: found without walking through all of them.
  const seconds = planDue(
    { cron: "* * * * * *", timeZone: "UTC", catchUp: true },
    due,
    at("2036-01-01T00:00:00Z"),
  );
  assert.equal(seconds.startFor, at("2036-01-01T00:00:00Z"));
});

const template = {
  name: "Daily",
  parameters: { day: {} },
  steps: [{ name: "A", component: "Wait", task: "Delay", queue: "Q" }],
};

/** Half a day and half an hour away: no time of these comes while a test runs. */
const AWAY = new Date(Date.now() + 12.5 * 3_600_000);
const DAILY = `${AWAY.getUTCMinutes()} ${AWAY.getUTCHours()} * * *`;
const HOURLY = `${AWAY.getUTCMinutes()} * * * *`;

async function prepare(hub: TestHub, schedule: Partial<JobSchedule> = {}): Promise<ScheduleState> {
  await askJson(hub, "PUT", "/v1/jobs/templates/Daily", template);
  return await askJson<ScheduleState>(hub, "PUT", "/v1/jobs/schedules/daily", {
    name: "daily",
    template: "Daily",
    cron: DAILY,
    ...schedule,
  });
}

/** Makes the schedules due that long ago. Returns since when. */
const setDue = async (pool: pg.Pool, ago: string) => {
  const { rows } = await pool.query<{ due: Date }>(
    "update job_schedule set next_at = date_trunc('second', now()) - $1::interval returning next_at as due",
    [ago],
  );
  return rows[0]?.due ?? assert.fail("no schedule");
};
const processes = async (hub: TestHub) =>
  (await askJson<ProcessList>(hub, "GET", "/v1/jobs/processes")).processes;
const only = async (hub: TestHub) => {
  const { schedules } = await askJson<ScheduleList>(hub, "GET", "/v1/jobs/schedules");
  return schedules[0] ?? assert.fail("no schedule");
};

/** Waits until the hubs, which look every second, have dealt with what is due. */
async function untilDealtWith(pool: pg.Pool): Promise<void> {
  for (;;) {
    const { rows } = await pool.query<{ due: boolean }>(
      "select exists (select from job_schedule where next_at <= now()) as due",
    );
    if (rows[0]?.due === false) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

suite("schedules", () => {
  const server = usePostgres();

  test("a schedule is stored with its next time, listed and removed", async (t) => {
    const hub = await startTestHub(t, server);
    const stored = await prepare(hub, { timeZone: "Europe/Berlin", parameters: { day: "x" } });
    assert.ok((stored.nextAt ?? 0) > Date.now());
    assert.deepEqual((await only(hub)).schedule, {
      name: "daily",
      template: "Daily",
      parameters: { day: "x" },
      cron: DAILY,
      timeZone: "Europe/Berlin",
      enabled: true,
      catchUp: false,
      skipWhileRunning: false,
    });
    assert.equal((await prepare(hub, { enabled: false })).nextAt, null);
    assert.equal(codeOf(await ask(hub, "DELETE", "/v1/jobs/templates/Daily")), "JOB_TEMPLATE_IN_USE");
    assert.equal((await ask(hub, "DELETE", "/v1/jobs/schedules/daily")).status, 204);
    assert.equal(codeOf(await ask(hub, "DELETE", "/v1/jobs/schedules/daily")), "JOB_SCHEDULE_UNKNOWN");
    assert.equal((await ask(hub, "DELETE", "/v1/jobs/templates/Daily")).status, 204);
  });

  test("what is wrong with a schedule is told at once", async (t) => {
    const hub = await startTestHub(t, server);
    await prepare(hub);
    const wrong = async (changes: Partial<JobSchedule>) => {
      const body = { name: "bad", template: "Daily", cron: "0 3 * * *", ...changes };
      const answer = await ask(hub, "PUT", "/v1/jobs/schedules/bad", { body });
      const { error } = answer.json() as { error: { code: string; faults?: { where: string }[] } };
      return [error.code, ...(error.faults ?? []).map(({ where }) => where)];
    };
    assert.deepEqual(await wrong({ cron: "61 * * * *", parameters: { dya: 1 } }), [
      "JOB_SCHEDULE_INVALID",
      "cron",
      "parameters.dya",
    ]);
    assert.deepEqual(await wrong({ timeZone: "Mars/Olympus" }), ["JOB_SCHEDULE_INVALID", "timeZone"]);
    assert.deepEqual(await wrong({ cron: "0 0 30 2 *" }), ["JOB_SCHEDULE_INVALID", "cron"]);
    assert.deepEqual(await wrong({ cron: "* * *" }), ["JOB_SCHEDULE_INVALID", "cron"]);
    assert.deepEqual(await wrong({ cron: "0 0 0 1 1 * 2031" }), ["JOB_SCHEDULE_INVALID", "cron"]);
    assert.deepEqual(await wrong({ template: "Nothing" }), ["JOB_TEMPLATE_UNKNOWN"]);
    assert.equal((await askJson<ScheduleList>(hub, "GET", "/v1/jobs/schedules")).schedules.length, 1);
  });

  test("a schedule that cannot be run holds up none of those that are due after it", async (t) => {
    const hub = await startTestHub(t, server);
    await prepare(hub);
    await askJson(hub, "PUT", "/v1/jobs/schedules/other", {
      name: "other",
      template: "Daily",
      cron: DAILY,
    });
    // By a hand in the database: nobody else can.
    await hub.pool.query(`update job_schedule set cron = 'nonsense' where name = 'daily'`);
    await hub.pool.query(
      `update job_schedule set next_at = now() - case name when 'daily' then interval '2 s' else interval '1 s' end`,
    );
    for (;;) {
      const [started] = await processes(hub);
      if (started !== undefined) {
        assert.equal(started.startedBy, "schedule other");
        break;
      }
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  });

  test("a hidden value that was never stored cannot be kept", async (t) => {
    const hub = await startTestHub(t, server);
    await askJson(hub, "PUT", "/v1/jobs/templates/Daily", {
      ...template,
      parameters: { day: { hidden: true } },
    });
    const body = { name: "new", template: "Daily", cron: "0 3 * * *", parameters: { day: "<HIDDEN>" } };
    const answer = await ask(hub, "PUT", "/v1/jobs/schedules/new", { body });
    assert.equal(codeOf(answer), "JOB_SCHEDULE_INVALID");
    assert.match(answer.body.toString("utf8"), /parameters\.day.*none is stored here/);
  });

  test("three hubs start one process for one due time", async (t) => {
    const hub = await startTestHub(t, server);
    for (let more = 0; more < 2; more++) await startTestHub(t, server, { shared: hub.database });
    await prepare(hub, { parameters: { day: "d" } });
    for (let round = 1; round <= 5; round++) {
      // Each time another due time.
      await setDue(hub.pool, `${6 - round} seconds`);
      // Beside the hubs' own looking, more who come in the same moment.
      await Promise.all(Array.from({ length: 4 }, () => runDueSchedules(hub.pool, silentLogger)));
      await untilDealtWith(hub.pool);
      assert.equal((await processes(hub)).length, round);
    }
    const [newest] = await processes(hub);
    const { lastProcess, lastProblem, nextAt } = await only(hub);
    assert.deepEqual([lastProcess, lastProblem], [newest?.id, null]);
    assert.equal(newest?.startedBy, "schedule daily");
    assert.equal(newest?.template, "Daily");
    assert.ok((nextAt ?? 0) > Date.now());
  });

  test("a due time that was put back by hand does not start its process again", async (t) => {
    const hub = await startTestHub(t, server);
    await prepare(hub);
    const due = await setDue(hub.pool, "2 seconds");
    await untilDealtWith(hub.pool);
    await hub.pool.query("update job_schedule set next_at = $1", [due]);
    await untilDealtWith(hub.pool);
    assert.equal((await processes(hub)).length, 1);
  });

  test("missed times are passed over, or caught up by one process", async (t) => {
    const hub = await startTestHub(t, server);
    await prepare(hub, { cron: HOURLY });
    await setDue(hub.pool, "30 hours");
    await untilDealtWith(hub.pool);
    assert.equal((await processes(hub)).length, 0);
    assert.match((await only(hub)).lastProblem ?? "", /passed over/);
    await prepare(hub, { cron: HOURLY, catchUp: true });
    await setDue(hub.pool, "30 hours");
    await untilDealtWith(hub.pool);
    assert.equal((await processes(hub)).length, 1);
    assert.equal((await only(hub)).lastProblem, null);
  });

  test("none starts while the last one runs, where that is wanted", async (t) => {
    const hub = await startTestHub(t, server);
    await prepare(hub, { skipWhileRunning: true });
    await setDue(hub.pool, "2 seconds");
    await untilDealtWith(hub.pool);
    const [first] = await processes(hub);
    await setDue(hub.pool, "1 second");
    await untilDealtWith(hub.pool);
    assert.equal((await processes(hub)).length, 1);
    assert.match((await only(hub)).lastProblem ?? "", new RegExp(`process ${first?.id} has not ended`));
    await askJson(hub, "POST", `/v1/jobs/processes/${first?.id}/cancel`, {});
    await setDue(hub.pool, "0 seconds");
    await untilDealtWith(hub.pool);
    assert.equal((await processes(hub)).length, 2);
  });

  test("a schedule that cannot start its process says why and goes on to the next time", async (t) => {
    const hub = await startTestHub(t, server);
    await prepare(hub, { parameters: { day: "x" } });
    await askJson(hub, "PUT", "/v1/jobs/templates/Daily", {
      ...template,
      parameters: { week: { required: true } },
    });
    await setDue(hub.pool, "1 second");
    await untilDealtWith(hub.pool);
    const { lastProblem, nextAt, lastProcess } = await only(hub);
    assert.match(lastProblem ?? "", /parameters\.day .*parameters\.week is required/);
    assert.equal(lastProcess, null);
    assert.ok((nextAt ?? 0) > Date.now());
  });
});
