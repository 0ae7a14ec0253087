import assert from "node:assert/strict";
import { mkdir, mkdtemp, readdir, readFile, rm, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { systemClock } from "@lockstep/platform";
import fc from "fast-check";
import type { LogConfig } from "../config/types.ts";
import { realLogFiles } from "./files.ts";
import { formatText, parseLine } from "./line.ts";
import { maskForms } from "./masking.ts";
import { deleteOldStepLogs } from "./step-log-cleanup.ts";
import { readLog } from "./tail.ts";
import type { LoggedStep } from "./types.ts";
import { createLogWriter } from "./writer.ts";

async function openWriter(changes: Partial<LogConfig> = {}, debugMode = false) {
  const directory = await mkdtemp(join(tmpdir(), "lockstep-log-"));
  const config: LogConfig = {
    outputFile: join(directory, "JobService.log"),
    sizeBytesMax: 1024 * 1024,
    historySize: 3,
    severity: "Info",
    paramLengthMax: 20,
    jobLogLifeTimeMs: 3_600_000,
    jobLogDirectory: join(directory, "JobLogs"),
    ...changes,
  };
  const told: string[] = [];
  const systemLog = {
    warning: (text: string) => void told.push(`warning ${text}`),
    notice: (text: string) => void told.push(`notice ${text}`),
  };
  const log = createLogWriter({ config, debugMode, systemLog });
  return {
    log,
    config,
    directory,
    told,
    lines: async () => (await readFile(config.outputFile, "utf8")).split("\n").slice(0, -1),
    [Symbol.asyncDispose]: async () => {
      await log.close();
      await rm(directory, { recursive: true, force: true });
    },
  };
}

const step: LoggedStep = {
  id: 123456,
  claim: 7,
  attempt: 2,
  process: { id: 9, name: "Nightly" },
  name: "Copy",
  component: "Command",
  task: "Run",
  execution: "external",
  parameters: { File: "x".repeat(50), Password: "correct horse battery", Count: 3 },
  hidden: ["Password"],
  priority: 5,
};

test("a volume that hangs holds up nobody's end, and the system log says what is missing", async (t) => {
  const directory = await mkdtemp(join(tmpdir(), "lockstep-log-"));
  t.after(() => rm(directory, { recursive: true, force: true }));
  const told: string[] = [];
  const log = createLogWriter({
    config: {
      outputFile: join(directory, "log"),
      sizeBytesMax: 1000,
      historySize: 1,
      severity: "Info",
      paramLengthMax: 20,
      jobLogLifeTimeMs: null,
      jobLogDirectory: directory,
    },
    debugMode: false,
    systemLog: { warning: (text) => void told.push(text), notice: () => {} },
    files: { ...realLogFiles, open: () => new Promise(() => {}) },
    clock: { ...systemClock, sleep: async () => {} },
  });
  log.info("one");
  log.info("two");
  await log.close();
  assert.deepEqual(told, [
    `the log ${join(directory, "log")} does not answer; the service ends without 2 of its records`,
  ]);
});

test("records below LogSeverity are not written, and each is one line of time, severity and text", async () => {
  await using world = await openWriter({ severity: "Warning" });
  world.log.info("too little");
  world.log.warning("disk nearly full", { percent: 93, path: "/var with space" });
  world.log.serious("it broke\n2026-01-01T00:00:00.000Z Info    forged", { error: new Error("a\rb") });
  await world.log.close();
  const lines = await world.lines();
  assert.equal(lines.length, 2);
  assert.match(lines[0] ?? "", /^\d{4}-.*Z Warning disk nearly full percent=93 path="\/var with space"$/);
  assert.match(lines[1] ?? "", /^\d{4}-.*Z Serious it broke\\u000a2026-/);
  assert.deepEqual(
    world.log.recent().map(({ severity, text }) => ({ severity, text })),
    lines.map((line) => ({ severity: parseLine(line)?.severity, text: parseLine(line)?.text })),
  );
});

test("no text whatever makes a second line or an escape sequence", () => {
  fc.assert(
    fc.property(fc.string({ unit: "binary", maxLength: 200 }), (text) => {
      const formatted = formatText(text, { value: text });
      assert.doesNotMatch(formatted, /[\p{Cc}\u2028\u2029\u202e]/u);
    }),
  );
});

test("hidden parameters are in neither log, wherever they turn up; long ones are cut", async () => {
  await using world = await openWriter({}, true);
  world.log.hide("hub-token-0815");
  const stepLog = world.log.openStep(step);
  stepLog.info("log on with correct horse battery\nand then go on");
  stepLog.error(
    "GET http://me:pw12345@host/?p=correct%20horse%20battery failed; Authorization: Bearer hub-token-0815",
  );
  stepLog.end({
    queue: "\\S1",
    state: "error",
    message: "wrong: correct horse battery",
    output: { Echo: "correct horse battery" },
  });
  await world.log.close();
  assert.ok(stepLog.path !== null);
  assert.match(stepLog.path, /JobLogs\/0012\/Job_123456_\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d-\d{3}\.log$/);
  const own = await readWhenWritten(stepLog.path, "wrong:");
  const main = (await world.lines()).join("\n");
  for (const text of [own, main]) {
    assert.doesNotMatch(text, /horse|0815|pw12345/);
    assert.match(
      text,
      /Process step parameter 123456: \[Job\] ComponentClass=Command, Task=Run, Executiontype=external/,
    );
    assert.match(text, /Password=<HIDDEN>, Count=3/);
    assert.match(text, /File=x{20}… \(30 more characters\)/);
    assert.match(text, /\\S1 - Command - 123456: error wrong: <HIDDEN>/);
  }
  assert.match(own, /Info {4}log on with <HIDDEN>\n.*Info {4}and then go on\n/);
});

/** The log of a step is written behind the back of whoever wrote it. */
async function readWhenWritten(path: string, wanted: string): Promise<string> {
  for (;;) {
    const text = await readFile(path, "utf8").catch(() => "");
    if (text.includes(wanted) && text.endsWith("\n")) return text;
    await systemClock.sleep(5);
  }
}

test("without DebugMode the parameters are in the log of the step alone", async () => {
  await using world = await openWriter();
  const stepLog = world.log.openStep(step);
  stepLog.warn("something to say");
  stepLog.end({ queue: "Q", state: "success", message: "" });
  await world.log.close();
  assert.doesNotMatch((await world.lines()).join(), /\[Parameters\]/);
  assert.match(await readWhenWritten(stepLog.path ?? "", "success"), /\[Parameters\] File=/);
});

test("steps that had nothing to say share a file, in which every line names its step", async () => {
  await using world = await openWriter();
  const quiet = [4, 5].map((id) => world.log.openStep({ ...step, id }));
  for (const each of quiet) each.end({ queue: "Q", state: "success", message: "", output: { Count: 1 } });
  const failed = world.log.openStep({ ...step, id: 6 });
  failed.end({ queue: "Q", state: "error", message: "no" });
  await world.log.close();
  assert.deepEqual(
    quiet.map(({ path }) => path),
    [null, null],
  );
  assert.match(await readWhenWritten(failed.path ?? "", "error"), /parameter 6: [\s\S]*- 6: error no\n$/);
  const names = await readdir(world.config.jobLogDirectory);
  const shared = names.filter((name) => /^Steps_\d{4}-\d\d-\d\d_\d\d\.log$/.test(name));
  const texts = await Promise.all(
    shared.map((name) => readFile(join(world.config.jobLogDirectory, name), "utf8")),
  );
  const lines = texts.join("").trimEnd().split("\n");
  assert.equal(lines.length, 6);
  for (const [index, id] of [4, 5].entries()) {
    const [start = "", output = "", end = ""] = lines.slice(3 * index, 3 * index + 3);
    assert.match(start, new RegExp(`parameter ${id}: .*Password=<HIDDEN>`));
    assert.match(output, new RegExp(`Info {4}${id}: \\[Output\\] Count=1$`));
    assert.match(end, new RegExp(` - ${id}: success$`));
  }
});

test("a step that takes long has a file of its own before it ends", async () => {
  await using world = await openWriter();
  const stepLog = world.log.openStep(step);
  while (stepLog.path === null) await systemClock.sleep(20);
  assert.match(await readWhenWritten(stepLog.path, "parameter"), /parameter 123456: /);
  stepLog.end({ queue: "Q", state: "success", message: "" });
  assert.match(await readWhenWritten(stepLog.path, "success"), /- 123456: success\n$/);
});

test("a missing directory stops nothing: the system log says so once, then that all is well again", async (t) => {
  const around = await mkdtemp(join(tmpdir(), "lockstep-log-"));
  t.after(() => rm(around, { recursive: true, force: true }));
  const gone = join(around, "gone");
  await using world = await openWriter({ outputFile: join(gone, "log") });
  const stepLog = world.log.openStep(step);
  stepLog.end({ queue: "Q", state: "success", message: "" });
  world.log.info("one");
  while (world.log.problem() === null) await systemClock.sleep(2);
  assert.match(world.log.problem()?.problem ?? "", /ENOENT/);
  assert.equal(world.told.length, 1);
  assert.match(world.told[0] ?? "", /^warning the log cannot be written as configured; the service works on/);
  await mkdir(gone);
  while (world.log.problem() !== null) await systemClock.sleep(5);
  await world.log.close();
  assert.match(world.told.slice(1).join(), /^notice the log .* is written again; nothing is missing$/);
  const text = (await world.lines()).join("\n");
  assert.match(text, /Info {4}one\n.*Warning the log could not be written for a while/);
});

test("a directory for step logs that cannot be made costs the log of the step alone", async () => {
  await using world = await openWriter();
  await writeFile(world.config.jobLogDirectory, "a file");
  const stepLog = world.log.openStep(step);
  stepLog.info("nowhere");
  stepLog.end({ queue: "Q", state: "success", message: "" });
  await world.log.close();
  assert.equal(stepLog.path, null);
  assert.match((await world.lines()).join("\n"), /Warning the log of step 123456 cannot be written/);
});

test("only old logs of steps are deleted, and nothing that is not ours", async () => {
  await using world = await openWriter();
  const group = join(world.directory, "Old", "1234");
  await mkdir(group, { recursive: true });
  const old = "Job_12345_2026-01-01_00-00-00-000.log";
  const young = "Job_12345_2026-01-02_00-00-00-000.log";
  for (const name of [old, young, "notes.txt"]) await writeFile(join(group, name), "x");
  const shared = join(world.directory, "Old", "Steps_2026-01-01_00.log");
  await writeFile(shared, "x");
  await utimes(shared, 1000, 1000);
  for (const name of [old, "notes.txt"]) await utimes(join(group, name), 1000, 1000);
  assert.equal(await deleteOldStepLogs(join(world.directory, "Old"), 2_000_000), 2);
  assert.deepEqual((await readdir(group)).sort(), [young, "notes.txt"].sort());
});

test("a restarted service remembers the last records of the run before", async () => {
  await using world = await openWriter();
  world.log.warning("before");
  await world.log.close();
  const again = createLogWriter({
    config: world.config,
    debugMode: false,
    systemLog: { warning: () => {}, notice: () => {} },
  });
  assert.deepEqual(
    again.recent().map(({ text, number }) => ({ text, number })),
    [{ text: "before", number: 1 }],
  );
  await again.close();
});

test("the last two thousand records are at hand, whenever somebody looks", async () => {
  await using world = await openWriter();
  for (let count = 1; count <= 4001; count++) {
    world.log.info(`record ${count}`);
    if (count !== 1999 && count !== 3999 && count !== 4001) continue;
    const recent = world.log.recent();
    assert.equal(recent.length, Math.min(count, 2000));
    assert.deepEqual([recent.at(0)?.number, recent.at(-1)?.number], [Math.max(1, count - 1999), count]);
  }
});

test("credentials are masked by their form, whoever wrote them", () => {
  assert.equal(maskForms("postgres://me:geheim@db/x"), "postgres://me:<HIDDEN>@db/x");
  assert.equal(maskForms("Authorization: Basic dXNlcjpwYXNz!"), "Authorization: Basic <HIDDEN>!");
  assert.equal(maskForms("see http://host:80/a@b"), "see http://host:80/a@b");
});

test("a reader that follows gets every line once, through any number of rotations", async () => {
  await using world = await openWriter({ sizeBytesMax: 200, historySize: 500 });
  const aborted = new AbortController();
  const read: string[] = [];
  for (let number = 0; number < 5; number++) world.log.info(`early ${number}`);
  while ((await readFile(world.config.outputFile, "utf8").catch(() => "")).includes("early 4") === false)
    await systemClock.sleep(2);
  const reading = (async () => {
    const options = { last: 3, follow: true, signal: aborted.signal, clock: systemClock };
    for await (const line of readLog(world.config.outputFile, options)) {
      read.push(parseLine(line)?.text ?? line);
      if (read.at(-1) === "late 99") aborted.abort();
    }
  })();
  while (read.length < 3) await systemClock.sleep(2);
  for (let number = 0; number < 100; number++) {
    world.log.info(`late ${number}`);
    if (number % 10 === 0) await systemClock.sleep(20);
  }
  await reading;
  const late = Array.from({ length: 100 }, (_, number) => `late ${number}`);
  assert.deepEqual(read, ["early 2", "early 3", "early 4", ...late]);
});

test("the last lines come from the backups too, and a reader that does not follow ends", async () => {
  await using world = await openWriter({ sizeBytesMax: 150, historySize: 9 });
  for (let number = 0; number < 20; number++) world.log.info(`line ${number}`);
  await world.log.close();
  const read: (string | undefined)[] = [];
  const options = { last: 7, follow: false, signal: new AbortController().signal, clock: systemClock };
  for await (const line of readLog(world.config.outputFile, options)) read.push(parseLine(line)?.text);
  assert.deepEqual(
    read,
    [13, 14, 15, 16, 17, 18, 19].map((number) => `line ${number}`),
  );
});
