/** `lockstep job` as its user would: the command in a process of its own, against a hub in another. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { type JobServer, jobServer } from "../hub/support/job-server.ts";
import { useHub } from "./hub-session.ts";
import { documentOf, type ErrorDocument, ended, lockstep, PROGRAM, start } from "./lockstep.ts";

// Between two of its exchanges a server here lets commands run, which may take longer than a server may be silent.
const { directory, hub, run } = useHub("Common/Jobs/LeaseSeconds=3600");
const SECRET = "Gehe1m-im-Test";

/** Each test has a queue and a template of its own: they share the hub. */
function template(name: string, steps?: string, head = ""): string {
  const file = join(directory, `${name}.toml`);
  const queue = `\\\\${name}`;
  writeFileSync(
    file,
    `name = "Test/${name}"
description = "of a test"
${head}
[parameters]
day = { required = true }
count = { default = 1 }
password = { hidden = true }

${
  steps ??
  `[[steps]]
name = "Fetch"
component = "Wait"
task = "Delay"
queue = '${queue}'
parameters = { day = "\${day}", count = "\${count}", key = "\${password}" }
onSuccess = ["Import", "Report"]
onError = ["Tell"]

[[steps]]
name = "Import"
component = "Wait"
task = "Delay"
queue = '${queue}'
freezeOnError = true
priority = 15

[[steps]]
name = "Report"
component = "Wait"
task = "Delay"
queue = '${queue}'

[[steps]]
name = "Tell"
component = "Wait"
task = "Delay"
queue = '${queue}'
`
}`,
  );
  return file;
}

async function json<T>(...args: string[]): Promise<T> {
  const end = await run(...args, "--json");
  assert.equal(end.status, 0, end.stderr);
  return documentOf<T>(end);
}

interface Detail {
  readonly process: { readonly id: number; readonly state: string };
  readonly steps: readonly {
    readonly id: number;
    readonly name: string;
    readonly state: string;
    readonly outcome: string | null;
  }[];
}

/** A job server driven by this test, on the hub of the commands. */
const serve = (name: string) => jobServer({ url: hub().url, token: "" }, `\\\\${name}`);

/** Takes one step, as soon as there is one: whoever starts the process does it in his own time. */
async function takeNext(job: JobServer): Promise<number> {
  for (;;) {
    const [step] = await job.take(1, 0, { waitMs: 20_000 });
    if (step !== undefined) return step.id;
  }
}

async function startOne(name: string, ...more: string[]): Promise<number> {
  const started = await json<{ process: { id: number } }>(
    "job",
    "start",
    template(name),
    "--set",
    "day=x",
    ...more,
  );
  return started.process.id;
}

test("a template is checked without a hub, with every fault at its line", async () => {
  const good = await lockstep(["job", "template", "check", template("check")]);
  assert.deepEqual([good.status, good.stderr], [0, ""]);
  assert.match(good.stdout, /: Test\/check, 4 steps, no fault\n$/);
  const file = join(directory, "bad.toml");
  writeFileSync(
    file,
    'name = "Bad"\n[[steps]]\nname = "A"\ncomponent = "Wait"\ntask = "T"\nqueue = "${x}"\nonSuccess = ["B"]\n',
  );
  const bad = await lockstep(["job", "template", "check", template("check"), file, "--json"]);
  assert.equal(bad.status, 2);
  const { error } = documentOf<ErrorDocument>(bad);
  assert.equal(error.code, "JOB_TEMPLATE_INVALID");
  assert.deepEqual(
    error.faults?.map(({ where }) => where),
    ["bad.toml:6", "bad.toml:7"],
  );
  assert.match(bad.stderr, /^ {2}- bad\.toml:7: steps\[1\] "A"\.onSuccess\[1\]: there is no step "B"$/m);
  const missing = await lockstep(["job", "template", "check", join(directory, "none.toml")]);
  assert.equal(missing.status, 1);
  assert.match(missing.stderr, /^error FILE_ACCESS_FAILED: /);
});

test("a template is put, listed, shown, put again as it was shown, started by its name, and removed", async () => {
  assert.equal((await run("job", "template", "put", template("stored"))).stdout, "Test/stored: 4 steps\n");
  const list = await run("job", "template", "list");
  assert.match(
    list.stdout,
    /^Test\/stored\t4\t-\t0\t\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ\tday\* count password\tof a test$/m,
  );
  const shown = await run("job", "template", "show", "Test/stored");
  const file = join(directory, "shown.json");
  writeFileSync(file, shown.stdout);
  assert.equal((await run("job", "template", "put", file)).status, 0);
  const started = await run("job", "start", "Test/stored", "--set", "day=2026-01-31");
  assert.match(started.stdout, /^process \d+\n$/);
  assert.equal((await run("job", "template", "remove", "Test/stored")).status, 0);
  const gone = await run("job", "start", "Test/stored", "--set", "day=x");
  assert.equal(gone.status, 1);
  assert.match(gone.stderr, /^error JOB_TEMPLATE_UNKNOWN: /);
});

test("values are texts, JSON or files; a hidden one is in no output, and only its service gets it", async () => {
  const secret = join(directory, "secret");
  writeFileSync(secret, `${SECRET}\n`);
  const id = await startOne("values", "--set", "count:=[1,2]", "--set-file", `password=${secret}`);
  const job = serve("values");
  const [step] = await job.take();
  assert.deepEqual(step?.parameters, { day: "x", count: [1, 2], key: SECRET });
  await job.report(step?.id ?? 0, "error", { message: `refused ${SECRET}`, permanent: true });
  const texts = [
    await run("job", "show", String(id), "--runs", "--parameters"),
    await run("job", "show", String(id), "--json"),
    await run("job", "list", "--text", "refused"),
    await run("job", "list", "--json"),
  ];
  for (const { stdout, stderr } of texts) assert.ok(!`${stdout}${stderr}`.includes(SECRET), stdout);
  assert.match(texts[0]?.stdout ?? "", /refused <HIDDEN>/);
  const wrong: [string[], number][] = [
    [["--set", "day"], 2],
    [["--set", "day:=["], 2],
    [["--set", "day=1", "--set", "day=2"], 2],
    [["--set", "nothing=1"], 2],
    [["--set-file", "day=/nonexistent/file"], 1],
    [["--set", "day=x", "--at", "2026-01-31T02:30"], 2],
  ];
  for (const [args, status] of wrong) {
    const end = await run("job", "start", template("values"), ...args);
    assert.equal(end.status, status, `${args.join(" ")}\n${end.stderr}`);
    assert.equal(end.stdout, "");
  }
});

test("one key starts one process, and says so", async () => {
  const first = await run("job", "start", template("key"), "--set", "day=x", "--key", "monday");
  const second = await run("job", "start", template("key"), "--set", "day=x", "--key", "monday");
  assert.equal(second.stdout, first.stdout);
  assert.match(second.stderr, /the key was used before/);
});

test("--wait ends with the process, and its exit status says how", async () => {
  const outcomes: [string, ("success" | "error")[], number, string][] = [
    ["waitgood", ["success", "success", "success"], 0, "finished"],
    ["waitstuck", ["success", "error", "success"], 4, "stuck"],
    ["waitbad", ["error", "error"], 1, "failed"],
  ];
  for (const [name, results, status, state] of outcomes) {
    const waiting = ended(
      start(["job", "start", template(name), "--set", "day=x", "--wait", "--json"], { env: hub().env }),
    );
    const job = serve(name);
    for (const outcome of results)
      await job.report(await takeNext(job), outcome, { message: `ended with ${outcome}` });
    const end = await waiting;
    assert.equal(end.status, status, end.stderr);
    assert.equal(documentOf<Detail>(end).process.state, state);
    if (status > 0) assert.match(end.stderr, new RegExp(`^error JOB_PROCESS_${state.toUpperCase()}: `));
  }
  const id = await startOne("waitcancel");
  const following = ended(start(["job", "show", String(id), "--follow"], { env: hub().env }));
  assert.equal((await run("job", "cancel", String(id))).stdout, `process ${id} cancelled\n`);
  const end = await following;
  assert.equal(end.status, 3);
  assert.match(end.stdout, new RegExp(`process ${id} cancelled\\n$`));
  assert.equal((await run("job", "cancel", String(id))).status, 3);
});

test("--follow gives a document for each change with --json", async () => {
  const id = await startOne("follow");
  const child = start(["job", "show", String(id), "--follow", "--json"], { env: hub().env });
  const following = ended(child);
  await new Promise((resolve) => child.stdout?.once("data", resolve));
  const job = serve("follow");
  for (let count = 0; count < 3; count++) {
    const [step] = await job.take();
    await job.report(step?.id ?? 0, "success");
  }
  const { stdout, status } = await following;
  assert.equal(status, 0);
  const documents = stdout
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
  assert.equal(documents[0].process.id, id);
  assert.equal(documents.at(-1).process.state, "finished");
  const last = new Map(documents.slice(1, -1).map(({ name, to }) => [name, to]));
  assert.deepEqual(Object.fromEntries(last), {
    Fetch: "success",
    Import: "success",
    Report: "success",
    Tell: "skipped",
  });
});

/** Runs the command on a terminal of so many columns, without colours, and returns what stands on the screen. */
async function onTerminal(columns: number, ...args: string[]): Promise<string> {
  const words = [process.execPath, PROGRAM, ...args].map((word) => `'${word}'`).join(" ");
  const { PATH = "", HOME = "" } = process.env;
  const child = spawn("script", ["-qec", `stty cols ${columns}; ${words}`, "/dev/null"], {
    env: { PATH, HOME, TERM: "xterm", NO_COLOR: "1", ...hub().env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const end = await ended(child);
  assert.equal(end.status, 0, end.stdout);
  return end.stdout.replaceAll("\r", "");
}

test("a person sees a tree that fits the terminal; a script one step a line", async () => {
  const id = await startOne("tree");
  const job = serve("tree");
  const [fetch] = await job.take();
  await job.report(fetch?.id ?? 0, "success");
  const [load] = await job.take();
  await job.report(load?.id ?? 0, "error", { message: `no space\n${"x".repeat(200)}` });
  const text = await onTerminal(80, "job", "show", String(id), "--runs");
  assert.match(text, /^Fetch {4,}success /m);
  assert.match(text, /^├─ Import {2,}frozen {2,}Wait\.Delay on \\\\tree .*1 failed/m);
  assert.match(text, /^│ {4}no space$/m);
  assert.match(text, /^├─ Report {2,}ready /m);
  assert.match(text, /^└─ Tell {2,}skipped .*after an error:/m);
  assert.match(text, /^since \d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ, priority 8/m);
  for (const line of text.split("\n")) assert.ok([...line].length <= 80, line);
  for (const line of (await onTerminal(60, "job", "list")).split("\n"))
    assert.ok([...line].length <= 100, line);
  const rows = (await run("job", "show", String(id))).stdout.trim().split("\n");
  assert.deepEqual(
    rows.map((row) => row.split("\t").slice(1, 3)),
    [
      ["Fetch", "success"],
      ["Import", "frozen"],
      ["Report", "ready"],
      ["Tell", "skipped"],
    ],
  );
});

test("reactivation shows first, asks, and does what was shown", async () => {
  const ids = [await startOne("again"), await startOne("again")];
  const job = serve("again");
  for (let count = 0; count < 4; count++) {
    const [step] = await job.take();
    const outcome = step?.name === "Import" ? "error" : "success";
    await job.report(step?.id ?? 0, outcome, { message: "connection refused" });
  }
  const filter = ["--queue", "\\\\again", "--message", "connection refused"];
  const dry = await run("job", "reactivate", "--as", "success", ...filter, "--dry-run");
  assert.equal(dry.status, 0);
  assert.equal(dry.stdout.trim().split("\n").length, 2);
  const unasked = await run("job", "reactivate", "--as", "success", ...filter);
  assert.equal(unasked.status, 3);
  assert.match(unasked.stderr, /^error CONFIRMATION_REQUIRED: 2 steps /);
  const { steps } = await json<{ steps: { id: number; state: string }[] }>(
    ...["job", "reactivate", "--as", "success", ...filter, "--yes"],
  );
  assert.deepEqual(
    steps.map(({ state }) => state),
    ["frozen", "frozen"],
  );
  const detail = await json<Detail>("job", "show", String(ids[0]));
  assert.equal(detail.steps.find(({ name }) => name === "Import")?.outcome, "success");
  const late = await run("job", "reactivate", String(steps[0]?.id), "--as", "step");
  assert.equal(late.status, 1);
  assert.match(late.stderr, /^error NOT_FOUND: /);
  for (const args of [
    ["--as", "step"],
    ["--as", "maybe", "--process", "1"],
    ["--process", "1"],
    ["x", "--as", "step"],
  ])
    assert.equal((await run("job", "reactivate", ...args)).status, 2, args.join(" "));
});

test("schedules are put, listed with their next time in UTC, and removed", async () => {
  await run("job", "template", "put", template("daily"));
  const put = await run(
    ...["job", "schedule", "put", "daily", "--template", "Test/daily", "--cron", "30 2 * * *"],
    ...["--time-zone", "Asia/Kolkata", "--set", "day=x", "--catch-up"],
  );
  assert.match(put.stdout, /^daily: next \d{4}-\d\d-\d\d 21:00:00Z\n$/);
  const list = await run("job", "schedule", "list");
  assert.match(list.stdout, /^daily\tTest\/daily\t30 2 \* \* \*\tAsia\/Kolkata\t\S+ 21:00:00Z\t-\t-\t$/m);
  const used = await run("job", "template", "remove", "Test/daily");
  assert.equal(used.status, 3);
  assert.match(used.stderr, /^error JOB_TEMPLATE_IN_USE: /);
  const wrong = await run("job", "schedule", "put", "x", "--template", "Test/daily", "--cron", "nonsense");
  assert.equal(wrong.status, 2);
  assert.match(
    wrong.stderr,
    /^error JOB_SCHEDULE_INVALID: [\s\S]*\n {2}- cron: [\s\S]*\n {2}- parameters\.day: /,
  );
  assert.equal((await run("job", "schedule", "remove", "daily")).status, 0);
  assert.equal((await run("job", "schedule", "remove", "daily")).status, 1);
});

test("servers are listed, paused and resumed; a queue that nobody serves is told", async () => {
  await startOne("steer");
  const before = await run("job", "servers");
  assert.match(before.stdout, /^\\\\steer\tnever\t.*no server has ever asked/m);
  const paused = await run("job", "server", "\\\\steer", "--pause", "disk change");
  assert.match(paused.stdout, /^state {7}paused$/m);
  const job = serve("steer");
  assert.deepEqual(await job.take(), []);
  const resumed = await json<{ state: string; updateServer: boolean }>(
    ...["job", "server", "\\\\steer", "--resume", "--update-server", "on"],
  );
  assert.deepEqual([resumed.state, resumed.updateServer], ["serving", true]);
  assert.equal((await run("job", "server", "\\\\steer", "--update-server", "off")).status, 0);
  assert.equal((await job.take()).length, 1);
  const check = await run("job", "server", "\\\\steer", "--check-version");
  assert.match(check.stderr, /belongs to no installation/);
  for (const [args, status] of [
    [["nobody"], 1],
    [["\\\\steer", "--pause", "x", "--resume"], 2],
    [["\\\\steer", "--auto-update", "maybe"], 2],
  ] as const)
    assert.equal((await run("job", "server", ...args)).status, status, args.join(" "));
});

test("hub status names two services that have one queue, and no name can write on the terminal", async () => {
  const two = (machine: string) =>
    jobServer({ url: hub().url, token: "" }, "\\\\rivals", { machine: `${machine}\u001b[31m` });
  await two("one").exchange();
  await two("two").exchange();
  assert.match(
    (await run("hub", "status")).stderr,
    /^warning: two services have the queue \\\\rivals: the one on two\\u001b\[31m took it from the one on one\\u001b\[31m at /m,
  );
  const { rivals } = await json<{ rivals: { queue: string; machine: string; former: string }[] }>(
    ...["hub", "status"],
  );
  assert.deepEqual(
    rivals.map(({ queue, machine, former }) => [queue, machine, former]),
    [["\\\\rivals", "two\u001b[31m", "one\u001b[31m"]],
  );
});

test("limits and the emergency stop", async () => {
  const set = await run("job", "limits", "set", "Sql", "--max", "-1", "--task", "Execute=2");
  assert.equal(set.stdout, "Sql\t\t-1\nSql\tExecute\t2\n", set.stderr);
  assert.deepEqual(await json("job", "limits"), {
    limits: [{ component: "Sql", maxInstance: -1, tasks: { Execute: 2 } }],
  });
  assert.equal((await run("job", "limits", "set", "Sql")).stdout, "");
  const stopped = await json<{ stopped: boolean }>("job", "stop", "--reason", "wrong import");
  assert.equal(stopped.stopped, true);
  assert.match((await run("job", "servers")).stderr, /all job servers are stopped: wrong import/);
  assert.equal((await run("job", "resume")).status, 0);
});
