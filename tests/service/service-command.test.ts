import assert from "node:assert/strict";
import { appendFile, mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { ended, lockstep, start, temporaryDirectory } from "../cli/lockstep.ts";
import { until } from "./service-world.ts";

/** Nothing listens at port 1, so the hub is out of reach, which a service has to bear. */
const CONFIG = `[JobProvider]
Hub = "http://127.0.0.1:1"
[[JobServiceDestination]]
Queue = "\\\\\\\\FRONTDESK"
[FileLogWriter]
OutPutFile = "JobService.log"
LogSeverity = "Info"
[HTTPStatus]
Port = 0
`;

test("config check tells every fault with its place, and ends with 2 where one is an error", async (t) => {
  const cwd = temporaryDirectory(t);
  await writeFile(join(cwd, "JobService.toml"), CONFIG.replace("[HTTPStatus]", "[HTTPStatus]\nAdress = 1"));
  const bad = await lockstep(["service", "config", "check"], { cwd });
  assert.equal(bad.status, 2);
  assert.match(
    bad.stderr,
    /error SERVICE_CONFIG_INVALID: the service configuration JobService\.toml has one fault/,
  );
  assert.match(
    bad.stderr,
    /JobService\.toml:9:1: HTTPStatus\.Adress: is not a parameter of \[HTTPStatus\]; did you mean Address\?/,
  );
  const json = await lockstep(["service", "config", "check", "--json"], { cwd });
  assert.equal(json.status, 2);
  assert.deepEqual(
    JSON.parse(json.stdout).faults.map((fault: { line: number; severity: string }) => [
      fault.line,
      fault.severity,
    ]),
    [
      [1, "note"],
      [9, "error"],
    ],
  );
  const gone = await lockstep(["service", "config", "check", "nowhere.toml"], { cwd });
  assert.equal(gone.status, 1);
  assert.match(gone.stderr, /SERVICE_CONFIG_UNREADABLE/);
});

test("what config show and its template print is a configuration again", async (t) => {
  const cwd = temporaryDirectory(t);
  await writeFile(join(cwd, "JobService.toml"), CONFIG);
  const shown = await lockstep(["service", "config", "show"], { cwd });
  await writeFile(join(cwd, "again.toml"), shown.stdout);
  const again = JSON.parse(
    (await lockstep(["service", "config", "show", "again.toml", "--json"], { cwd })).stdout,
  );
  const first = JSON.parse((await lockstep(["service", "config", "show", "--json"], { cwd })).stdout);
  assert.deepEqual(again.values, first.values);
  assert.equal(first.values.JobServiceDestination[0].RequestInterval, 90);

  const template = (await lockstep(["service", "config", "show", "--template"], { cwd })).stdout;
  const filled = template
    .replace("# Hub = (required)", 'Hub = "http://127.0.0.1:1"')
    .replace("# Queue = (required)", 'Queue = "A"')
    .replace("# OutPutFile = (required)", 'OutPutFile = "log"');
  await writeFile(join(cwd, "filled.toml"), filled);
  assert.equal((await lockstep(["service", "config", "check", "filled.toml"], { cwd })).status, 0);
});

test("config import writes a file that can be checked, and never over another", async (t) => {
  const cwd = temporaryDirectory(t);
  const xml = `<configuration><category name="JobServiceDestination"><value name="queue">A</value></category>
    <category name="FileLogWriter"><value name="outputfile">log</value></category>
    <category name="HTTPAuthentication"><value name="user">ops</value><value name="password">swordfish9</value></category></configuration>`;
  // As Windows' tools write it.
  await writeFile(join(cwd, "Jobservice.cfg"), Buffer.from(`\ufeff${xml}`, "utf16le"));
  const words = [
    "service",
    "config",
    "import",
    "Jobservice.cfg",
    "--hub",
    "http://127.0.0.1:1",
    "--out",
    "JobService.toml",
  ];
  const imported = await lockstep(words, { cwd });
  assert.equal(imported.status, 0, imported.stderr);
  assert.match(
    imported.stderr,
    /secret not copied: .*password: put it into the first line of the file http-password/,
  );
  assert.doesNotMatch(
    imported.stdout + imported.stderr + (await readFile(join(cwd, "JobService.toml"), "utf8")),
    /swordfish/,
  );
  assert.equal((await lockstep(words, { cwd })).status, 3);
  // The password is still to be put in place.
  assert.match(
    (await lockstep(["service", "config", "check"], { cwd })).stderr,
    /http-password cannot be read/,
  );
  await writeFile(join(cwd, "http-password"), "swordfish9\n", { mode: 0o600 });
  assert.equal((await lockstep(["service", "config", "check"], { cwd })).status, 0);
});

test("a service runs, tells its status and its log, and drains on SIGTERM, with the hub out of reach all the time", async (t) => {
  const cwd = temporaryDirectory(t);
  await writeFile(join(cwd, "JobService.toml"), CONFIG);
  const before = await lockstep(["service", "status"], { cwd });
  assert.equal(before.status, 1);
  assert.match(before.stderr, /SERVICE_UNREACHABLE/);

  const service = start(["service", "run"], { cwd });
  t.after(() => service.kill("SIGKILL"));
  const end = ended(service);
  await new Promise<void>((resolve, reject) => {
    service.stdout?.on("data", (text: string) => {
      if (text.includes("ready http://127.0.0.1:")) resolve();
    });
    void end.then(({ stderr }) => reject(new Error(`the service ended: ${stderr}`)));
  });
  const status = await lockstep(["service", "status", "--json"], { cwd });
  assert.equal(status.status, 0, status.stderr);
  const { service: state } = JSON.parse(status.stdout);
  assert.equal(state.queues[0].queue, "\\\\FRONTDESK");
  const text = await lockstep(["service", "status"], { cwd });
  assert.match(text.stdout, /^state {14}(starting|running)/);
  const file = join(cwd, "JobService.log");
  // A record is written a moment after it was made.
  await until(async () => (await readFile(file, "utf8").catch(() => "")).includes("the status page is open"));
  const log = await lockstep(["service", "log", "--match", "STATUS page"], { cwd });
  assert.match(log.stdout, /Info {5}the status page is open/);

  // Who asks how a running service does gets an answer also while its file is being spoilt.
  await appendFile(join(cwd, "JobService.toml"), "\nNonsense = 1\n");
  assert.equal((await lockstep(["service", "config", "check"], { cwd })).status, 2);
  assert.equal((await lockstep(["service", "status"], { cwd })).status, 0);
  const logged = await lockstep(["service", "log", "--match", "status page"], { cwd });
  assert.match(logged.stdout, /Info {5}the status page is open/);
  assert.match(logged.stderr, /^warning: the configuration has faults/);
  await writeFile(join(cwd, "JobService.toml"), CONFIG.replace("OutPutFile", "OutPut"));
  assert.match((await lockstep(["service", "log"], { cwd })).stderr, /FileLogWriter\.OutPutFile/);
  await writeFile(join(cwd, "JobService.toml"), CONFIG);

  const follower = start(["service", "log", "--follow", "--last", "0", "--json"], { cwd });
  t.after(() => follower.kill("SIGKILL"));
  // The service writes there as well, of the changes to its configuration.
  const heard = new Promise<string>((resolve) => {
    let all = "";
    follower.stdout?.setEncoding("utf8").on("data", (text: string) => {
      all += text;
      const line = all
        .split("\n")
        .slice(0, -1)
        .find((each) => each.includes("by hand"));
      if (line !== undefined) resolve(line);
    });
  });
  // It reads the file, whoever writes it; and it may not have opened it yet.
  const writing = setInterval(() => void appendFile(file, "2026-01-01T00:00:00.000Z Serious by hand\n"), 100);
  try {
    assert.deepEqual(JSON.parse(await heard), {
      time: "2026-01-01T00:00:00.000Z",
      severity: "Serious",
      text: "by hand",
    });
  } finally {
    clearInterval(writing);
  }
  follower.kill("SIGINT");
  await ended(follower);

  service.kill("SIGTERM");
  assert.equal((await end).status, 0);
  assert.equal((await lockstep(["service", "status"], { cwd })).status, 1);
});

test("a log directory that is not there stops nothing, and standard error or the system log says so", async (t) => {
  const cwd = temporaryDirectory(t);
  await writeFile(join(cwd, "JobService.toml"), CONFIG.replace("JobService.log", "volume/JobService.log"));
  const service = start(["service", "run"], { cwd, env: { JOURNAL_STREAM: "1:2" } });
  t.after(() => service.kill("SIGKILL"));
  const told = new Promise<string>((resolve) => {
    let all = "";
    service.stderr?.setEncoding("utf8").on("data", (text: string) => {
      all += text;
      if (all.includes("volume")) resolve(all);
    });
  });
  const end = ended(service);
  assert.match(
    await told,
    /^<4>the log cannot be written as configured; the service works on and tries again/m,
  );
  const status = JSON.parse((await lockstep(["service", "status", "--json"], { cwd })).stdout);
  assert.match(status.log.problem.problem, /ENOENT/);
  await mkdir(join(cwd, "volume"));
  for (;;) {
    const now = JSON.parse((await lockstep(["service", "status", "--json"], { cwd })).stdout);
    if (now.log.problem === null) break;
  }
  assert.match(await readFile(join(cwd, "volume", "JobService.log"), "utf8"), /the status page is open/);
  service.kill("SIGTERM");
  assert.equal((await end).status, 0);
});
