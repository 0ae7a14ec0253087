import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import fc from "fast-check";
import { loadServiceConfig, parseServiceConfig, requireServiceConfig } from "./load.ts";
import { parametersOf, TABLE_NAMES, TABLES } from "./parameters.ts";

const SMALL = `[JobProvider]
Hub = "http://127.0.0.1:8700"

[[JobServiceDestination]]
Queue = "\\\\SERVER1"

[FileLogWriter]
OutPutFile = "JobService.log"
`;

/** `line:column severity key: problem` */
function told(text: string): string[] {
  return parseServiceConfig(text).faults.map(
    ({ line, column, severity, key, problem }) => `${line}:${column} ${severity} ${key}: ${problem}`,
  );
}

async function loadText(text: string, environment = {}) {
  await using directory = await temporaryDirectory();
  const file = join(directory.path, "JobService.toml");
  await writeFile(file, text);
  return { ...(await loadServiceConfig(file, environment)), directory: directory.path };
}

async function temporaryDirectory() {
  const path = await mkdtemp(join(tmpdir(), "lockstep-config-"));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}

test("a small file is enough; everything else has its default", async () => {
  const { config, faults, directory } = await loadText(SMALL);
  assert.deepEqual(
    faults.map(({ severity }) => severity),
    ["note"],
  );
  assert.equal(config?.destinations[0]?.queue, "\\SERVER1");
  assert.equal(config?.destinations[0]?.requestIntervalMs, 90_000);
  assert.equal(config?.log.outputFile, join(directory, "JobService.log"));
  assert.equal(config?.log.jobLogDirectory, join(directory, "JobLogs"));
  assert.equal(config?.service.stateDirectory, join(directory, ".lockstep-service"));
  assert.equal(config?.status.port, 1880);
  assert.equal(config?.status.authentication, null);
});

test("every fault is told at once, with line and column and what is meant", () => {
  const text = `[JobProvider]
Hub = "ftp://hub"
Token = "abc"

[[JobServiceDestination]]
Quue = "A"
  InternalSlots = 2000
ExternalSlotEnvironment = { DB_PASSWORD = "x", LANG = 5 }

[[JobServiceDestination]]
Queue = ""

[FileLogWriter]
OutputFile = "log"
LogSeverity = "info"
Port = 3

[HTTPStatuss]
Port = 1
`;
  assert.deepEqual(told(text), [
    "1:1 note Service: no plug-ins: the built-in components alone are known",
    '2:1 error JobProvider.Hub: must be an address such as "https://hub.example:8700"',
    "3:1 error JobProvider.Token: secrets never stand in this file; put it into a file of its own and name that by TokenFile",
    "5:1 error JobServiceDestination[1].Queue: is missing, and there is no default",
    "6:1 error JobServiceDestination[1].Quue: is not a parameter of [JobServiceDestination]; did you mean Queue?",
    "7:3 error JobServiceDestination[1].InternalSlots: is 2000, must be from 0 to 1000",
    "8:29 error JobServiceDestination[1].ExternalSlotEnvironment.DB_PASSWORD: secrets never stand in this file; set it in the environment of the service",
    "8:48 error JobServiceDestination[1].ExternalSlotEnvironment.LANG: must be a text in quotes",
    "11:1 error JobServiceDestination[2].Queue: is empty",
    "13:1 error FileLogWriter.OutPutFile: is missing, and there is no default",
    "14:1 error FileLogWriter.OutputFile: is not a parameter of [FileLogWriter]; did you mean OutPutFile?",
    '15:1 error FileLogWriter.LogSeverity: must be one of "Info", "Warning", "Serious"',
    "16:1 error FileLogWriter.Port: is not a parameter of [FileLogWriter]; it belongs into [HTTPStatus]",
    "18:1 error HTTPStatuss: is no table of this file; did you mean [HTTPStatus]?",
  ]);
});

test("the validity check of the original: no provider and no log writer are errors, no destination is a warning", () => {
  assert.deepEqual(
    parseServiceConfig("").faults.map(({ severity, problem }) => `${severity} ${problem.slice(0, 32)}`),
    [
      "error there is no [JobProvider]: the s",
      "error there is no [FileLogWriter]: nob",
      "warning there is no [[JobServiceDestinat",
      "note no plug-ins: the built-in compon",
    ],
  );
});

test("two destinations with one queue, whatever the case, are refused", () => {
  const twice = SMALL.replace(
    "[FileLogWriter]",
    '[[JobServiceDestination]]\nQueue = "\\\\server1"\n\n[FileLogWriter]',
  );
  assert.match(
    told(twice).join("\n"),
    /8:1 error JobServiceDestination\[2\]\.Queue: is the queue of JobServiceDestination\[1\] too/,
  );
});

test("what TOML refuses is told with its place", () => {
  assert.match(told("[JobProvider]\nHub = ").join(), /^2:7 error /);
});

test("a secret in an address, a missing file and an unset variable are errors", async () => {
  const { config, faults } = await loadText(
    SMALL.replace("http://", "http://me:secret@").replace(
      "[[",
      'TokenFile = "nowhere"\n\n[HTTPAuthentication]\nPasswordEnvironment = "PAGE_PASSWORD"\n\n[[',
    ),
  );
  assert.equal(config, null);
  const text = faults.map(({ key, problem }) => `${key}: ${problem}`).join("\n");
  assert.match(text, /JobProvider\.Hub: holds a user or password/);
  assert.match(text, /JobProvider\.TokenFile: .*nowhere cannot be read \(ENOENT\)/);
  assert.match(text, /PasswordEnvironment: the environment has no variable PAGE_PASSWORD/);
  assert.doesNotMatch(text, /me:secret/);
});

test("a missing log directory is a warning: the service works on", async () => {
  const { config, faults } = await loadText(SMALL.replace("JobService.log", "not/there/JobService.log"));
  assert.notEqual(config, null);
  assert.match(
    faults.find(({ severity }) => severity === "warning")?.problem ?? "",
    /not\/there is not there/,
  );
});

test("a configuration that is needed ends in one error with every fault", async () => {
  await using directory = await temporaryDirectory();
  const file = join(directory.path, "JobService.toml");
  await assert.rejects(requireServiceConfig(file, {}), { code: "SERVICE_CONFIG_UNREADABLE" });
  await writeFile(file, "[JobProvider]\nHup = 1\n");
  await assert.rejects(
    requireServiceConfig(file, {}),
    (error: { code: string; faults: { where: string }[] }) => {
      assert.equal(error.code, "SERVICE_CONFIG_INVALID");
      assert.deepEqual(
        error.faults.map(({ where }) => where),
        ["JobService.toml:1:1", "JobService.toml:1:1", "JobService.toml:2:1"],
      );
      return true;
    },
  );
});

test("no value of any parameter throws, and each wrong one is told at its own key", () => {
  const keys = TABLE_NAMES.flatMap((name) => parametersOf(name).map(([key]) => ({ name, key })));
  const toml = fc.oneof(
    fc.integer().map(String),
    fc.boolean().map(String),
    fc.string({ maxLength: 30 }).map((text) => JSON.stringify(text).replaceAll("\u007f", "")),
    fc.constantFrom("[]", "{}", "1.5", "nan", '["a"]', "1979-05-27", '{ A = "b" }', '""'),
  );
  fc.assert(
    fc.property(fc.constantFrom(...keys), toml, ({ name, key }, value) => {
      const text = `${TABLES[name].many ? `[[${name}]]` : `[${name}]`}\n${key} = ${value}\n`;
      for (const fault of parseServiceConfig(text).faults)
        if (fault.line === 2) assert.ok(fault.key.includes(key) || fault.key === "", fault.key);
    }),
  );
});

test("a pipe instead of a file is refused at once: nobody might ever write into it", {
  skip: process.platform === "win32",
}, async (t) => {
  const directory = await mkdtemp(join(tmpdir(), "lockstep-config-"));
  t.after(() => rm(directory, { recursive: true, force: true }));
  const pipe = join(directory, "JobService.toml");
  execFileSync("mkfifo", [pipe]);
  await assert.rejects(loadServiceConfig(pipe, {}), {
    code: "SERVICE_CONFIG_UNREADABLE",
    found: /no regular file/,
  });
  await assert.rejects(loadServiceConfig(directory, {}), { code: "SERVICE_CONFIG_UNREADABLE" });
});
