import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { parseServiceConfig } from "../config/load.ts";
import { importConfig } from "./convert.ts";
import { readXml } from "./read-xml.ts";

const CATEGORIES = `<?xml version="1.0" encoding="utf-8"?>
<configuration>
  <category name="serviceconfiguration">
    <value name="debugmode">True</value>
    <value name="httpport">1881</value>
    <value name="language">en-US</value>
  </category>
  <category name="jobprovider">
    <category name="sqlprovider">
      <value name="type">VI.JobService.MSSqlJobProvider, JobService</value>
      <value name="connectstring">Data Source=db1;User ID=svc;Password=Sesam&amp;öffne</value>
    </category>
  </category>
  <category name="jobdestinations">
    <category name="main">
      <value name="type">VI.JobService.JobServiceDestination, JobService</value>
      <value name="queue">\\\\FRONTDESK</value>
      <value name="requestinterval">00:01:30</value>
      <value name="externalslots">7</value>
      <value name="externalslots32">4</value>
      <value name="externalslotenvironment">LANG=de_DE|DB_PASSWORD=zebra77</value>
      <value name="privatekey">c2VjcmV0S2V5</value>
    </category>
    <category name="second">
      <value name="type">JobServiceDestination</value>
      <value name="queue">\\\\ARCHIVE</value>
    </category>
  </category>
  <category name="logwriter">
    <value name="type">VI.JobService.FileLogWriter</value>
    <value name="outputfile">Logs\\JobService.log</value>
    <value name="maxlogsize">20</value>
    <value name="logseverity">info</value>
    <value name="jobloglifetime">2.12:00:00</value>
  </category>
  <category name="httpauthentication">
    <value name="type">BasicHttpAuthentication</value>
    <value name="user">ops</value>
    <value name="password">hunter2hunter2</value>
  </category>
  <category name="dispatcher"><value name="isproxy">false</value></category>
</configuration>`;

const SECRETS = /Sesam|öffne|zebra77|c2VjcmV0S2V5|hunter2/;

test("an original file becomes one of ours that has no faults but those which it could not know", async () => {
  const imported = await importConfig(CATEGORIES, {
    fileName: "Jobservice.cfg",
    hub: "https://hub.example:8700",
  });
  const { values, faults } = parseServiceConfig(imported.toml);
  assert.deepEqual(
    faults.filter(({ severity }) => severity !== "note"),
    [],
  );
  assert.deepEqual(
    values?.JobServiceDestination.map(({ Queue, RequestInterval, ExternalSlots }) => [
      Queue,
      RequestInterval,
      ExternalSlots,
    ]),
    [
      ["\\\\FRONTDESK", 90, 7],
      ["\\\\ARCHIVE", 90, 10],
    ],
  );
  assert.deepEqual({ ...values?.JobServiceDestination[0]?.ExternalSlotEnvironment }, { LANG: "de_DE" });
  assert.equal(values?.FileLogWriter.OutPutFile, "Logs/JobService.log");
  assert.equal(values?.FileLogWriter.LogSeverity, "Info");
  assert.equal(values?.FileLogWriter.JobLogLifeTime, 60);
  assert.equal(values?.HTTPStatus.Port, 1881);
  assert.equal(values?.Service.DebugMode, true);
  assert.equal(values?.HTTPAuthentication.User, "ops");
  assert.equal(values?.HTTPAuthentication.PasswordFile, "http-password");
  assert.deepEqual(imported.missing, []);
});

test("no secret is copied anywhere, and each is told where it belongs", async () => {
  const imported = await importConfig(CATEGORIES, { fileName: "Jobservice.cfg", hub: null });
  assert.doesNotMatch(JSON.stringify(imported), SECRETS);
  assert.deepEqual(
    imported.secrets.map(({ from }) => from),
    [
      "jobprovider/sqlprovider/connectstring",
      "jobdestinations/main/externalslotenvironment DB_PASSWORD",
      "jobdestinations/main/privatekey",
      "httpauthentication/password",
    ],
  );
  assert.match(imported.secrets.at(-1)?.put ?? "", /http-password .* mode 0600/);
  assert.deepEqual(imported.missing, ["[JobProvider] Hub: the address of the hub"]);
});

test("what has no counterpart is listed with the reason", async () => {
  const left = (await importConfig(CATEGORIES, { fileName: "x", hub: null })).left.map(
    ({ from, why }) => `${from}: ${why}`,
  );
  assert.ok(
    left.some((each) =>
      each.startsWith("jobdestinations/main/externalslots32: there are no external slots of 32"),
    ),
  );
  assert.ok(left.some((each) => each.startsWith("serviceconfiguration/language: has no counterpart")));
  assert.ok(left.some((each) => each.startsWith("dispatcher/isproxy: services do not ask")));
});

test("the other ways in which such files are written are understood too", async () => {
  const other = `<configuration>
    <jobprovider><add key="type" value="HTTPJobProvider"/><add key="port" value="80"/></jobprovider>
    <JobServiceDestination Queue="\\\\S1" InternalSlots="3"/>
    <FileLogWriter><OutputFile>C:\\Logs\\job.log</OutputFile><HistorySize>&#53;</HistorySize></FileLogWriter>
  </configuration>`;
  const imported = await importConfig(other, { fileName: "x", hub: "http://127.0.0.1:8700" });
  const { values } = parseServiceConfig(imported.toml);
  assert.equal(values?.JobServiceDestination[0]?.Queue, "\\\\S1");
  assert.equal(values?.JobServiceDestination[0]?.InternalSlots, 3);
  assert.equal(values?.FileLogWriter.HistorySize, 5);
  assert.equal(values?.FileLogWriter.OutPutFile, "C:\\Logs\\job.log");
  assert.ok(imported.left.some(({ why }) => why.startsWith("names a drive")));
});

test("declarations, bombs, broken and oversized files are refused", async () => {
  const bomb = `<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><configuration>&b;</configuration>`;
  for (const xml of [
    bomb,
    "<a><b></a>",
    "",
    "no xml",
    `<a>${"x".repeat(1_100_000)}</a>`,
    '<!DocType a SYSTEM "file:///etc/passwd"><a/>',
  ])
    await assert.rejects(importConfig(xml, { fileName: "x", hub: null }), { code: "SERVICE_IMPORT_REFUSED" });
  await assert.rejects(readXml("<a>".repeat(500) + "</a>".repeat(500), "x"), {
    code: "SERVICE_IMPORT_REFUSED",
  });
  // Unknown entities stay what they are.
  assert.equal((await readXml("<a>&b;&amp;lt;</a>", "x")).text, "&b;&lt;");
});

test("names that every object of JavaScript has are parameters without a counterpart", async () => {
  const xml = `<configuration><JobServiceDestination>
    <Queue>a</Queue><value name="__proto__">1</value><value name="constructor">2</value>
  </JobServiceDestination></configuration>`;
  const { left, taken } = await importConfig(xml, { fileName: "x", hub: null });
  assert.deepEqual(
    left.map(({ from }) => from.split("/").at(-1)),
    ["__proto__", "constructor"],
  );
  assert.equal(taken.length, 1);
});

test("what could not be read is not repeated at length", async () => {
  for (const xml of ["<".repeat(100_000), "<a>".repeat(100_000)])
    await assert.rejects(readXml(xml, "x"), ({ found }: { found: string }) => found.length < 250);
});

test("whatever values an old file has, what comes out is TOML", async () => {
  const value = fc
    .string({ unit: "grapheme", maxLength: 40 })
    .map((text) => text.replaceAll(/[<&>\p{Cc}]/gu, ""));
  await fc.assert(
    fc.asyncProperty(value, value, value, async (queue, file, environment) => {
      const xml = `<c><JobServiceDestination><queue>${queue}</queue><externalslotenvironment>A=${environment}</externalslotenvironment></JobServiceDestination><filelogwriter><outputfile>${file}</outputfile></filelogwriter></c>`;
      const { values } = parseServiceConfig(
        (await importConfig(xml, { fileName: "x", hub: "http://h" })).toml,
      );
      assert.notEqual(values, null);
    }),
  );
});
