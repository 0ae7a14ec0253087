/**
 * A night as its administrators see it: the example of twenty steps over three job servers, with real files, a real
 * database, a real web server and a real mail server; a branch for success and one for an error, tries, steps beside
 * each other and steps that exclude each other, and one that only a person can mend.
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join, resolve } from "node:path";
import { type TestContext, test } from "node:test";
import type { ProcessDetail } from "@lockstep/protocol";
import { ended, lockstep, PROGRAM } from "../cli/lockstep.ts";
import { connectionString, startTestHub } from "../hub/support/test-hub.ts";
import { usePostgres } from "../support/postgres.ts";
import { startSmtpServer } from "../support/smtp-server.ts";
import { logOf, startService, temporaryDirectory } from "./service-world.ts";
import { terminalPicture } from "./terminal-picture.ts";

const server = usePostgres();
const TEMPLATE = resolve(import.meta.dirname, "../../examples/jobs/nightly.toml");
const PICTURE = resolve(import.meta.dirname, "../../docs/nightly.svg");
const QUEUES = ["\\IMPORT", "\\REPORT", "\\BACKUP"];

interface HrSystem {
  readonly url: string;
  readonly requests: string[];
  /** What the last step told it. */
  told: unknown;
}

/** Busy at the first question for persons; its legacy feed is broken. */
async function startHrSystem(t: TestContext): Promise<HrSystem> {
  const requests: string[] = [];
  const hr: HrSystem = { url: "", requests, told: null };
  const answers: Record<string, () => [number, unknown]> = {
    "POST /runs": () => [201, { run: "night-1" }],
    "GET /persons": () =>
      requests.filter((request) => request === "GET /persons").length === 1
        ? [503, { error: "busy" }]
        : [
            200,
            [
              { id: 1, name: "Ada", department: 10 },
              { id: 2, name: "Grace", department: 10 },
              { id: 3, name: "Edsger", department: 20 },
            ],
          ],
    "GET /departments": () => [
      200,
      [
        { id: 10, name: "Computing" },
        { id: 20, name: "Correctness" },
      ],
    ],
    "GET /legacy": () => [502, { error: "no answer" }],
    "PUT /runs/night-1": () => [204, null],
  };
  const web = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      const key = `${request.method} ${new URL(request.url ?? "/", "http://hr").pathname}`;
      requests.push(key);
      if (request.method === "PUT") hr.told = JSON.parse(Buffer.concat(chunks).toString());
      const [status, body] = answers[key]?.() ?? [404, { error: key }];
      response.writeHead(status, { "content-type": "application/json" });
      response.end(status === 204 ? undefined : JSON.stringify(body));
    });
  });
  await new Promise<void>((listening) => web.listen(0, "127.0.0.1", listening));
  t.after(() => {
    web.closeAllConnections();
    web.close();
  });
  return Object.assign(hr, { url: `http://127.0.0.1:${(web.address() as AddressInfo).port}` });
}

/** The picture in the README: this very process as a terminal shows it. LOCKSTEP_WRITE_DOCS=1 writes it anew. */
async function writePicture(id: number, env: Readonly<Record<string, string>>): Promise<void> {
  const command = `stty cols 110 rows 60; exec ${process.execPath} ${PROGRAM} job show ${id}`;
  const { PATH = "", HOME = "" } = process.env;
  // Not in one call that blocks: the hub lives in this process.
  const shown = await ended(
    spawn("script", ["-qec", command, "/dev/null"], {
      env: { PATH, HOME, TERM: "xterm-256color", SHELL: "/bin/sh", ...env },
    }),
  );
  const title = "The twenty steps of a night: all done but one, which waits for a person";
  writeFileSync(PICTURE, terminalPicture(`lockstep job show ${id}`, shown.stdout, title));
}

test("a night of twenty steps over three job servers, with a step that a person has to mend", async (t) => {
  const hub = await startTestHub(t, server);
  const hr = await startHrSystem(t);
  const mail = await startSmtpServer(t);
  const data = await server.database(t, { empty: true });
  const work = temporaryDirectory(t);
  for (const folder of ["in", "out", "www", "backup"]) mkdirSync(join(work, folder));
  const services = await Promise.all(
    QUEUES.map((queue) => startService(t, hub, { queues: [queue], machine: queue.slice(1).toLowerCase() })),
  );
  const env = { LOCKSTEP_HUB: hub.url, LOCKSTEP_TOKEN: hub.token };
  const job = async (...args: string[]) => await lockstep(["job", ...args], { env });
  const database = connectionString(data.address);

  assert.equal((await job("template", "put", TEMPLATE)).status, 0);
  const values = { hr: hr.url, database, smtpPort: String(mail.port), work };
  const started = await job(
    "start",
    "Nightly/Personnel",
    ...Object.entries(values).flatMap(([name, value]) => ["--set", `${name}=${value}`]),
    "--wait",
    "--json",
  );
  assert.notEqual(started.status, 0, "a process that waits for a person is not done");
  const found = (JSON.parse(started.stdout) as { process: { id: number; state: string } }).process;
  const { id } = found;
  assert.equal(found.state, "stuck");

  const show = async () => {
    const { status, stdout, stderr } = await job("show", String(id), "--json");
    assert.equal(status, 0, stderr);
    return JSON.parse(stdout) as ProcessDetail;
  };
  const before = new Map((await show()).steps.map((step) => [step.name, step]));
  assert.equal(before.size, 20);
  const ends = (name: string) => before.get(name)?.outcome ?? before.get(name)?.state;
  assert.equal(ends("Check quality"), "frozen");
  assert.equal(before.get("Check quality")?.errors, 2);
  assert.match(before.get("Check quality")?.message ?? "", /without a department/);
  assert.equal(ends("Sign off"), "waiting");
  assert.equal(ends("Keep legacy feed"), "skipped");
  assert.equal(ends("Fetch legacy feed"), "error");
  assert.equal(before.get("Fetch persons")?.errors, 1);
  const others = ["Check quality", "Sign off", "Keep legacy feed", "Fetch legacy feed"];
  for (const [name, { message }] of before)
    if (!others.includes(name)) assert.equal(ends(name), "success", `${name}: ${message}`);

  if (process.env.LOCKSTEP_WRITE_DOCS === "1") await writePicture(id, env);

  // What it was all for.
  const { rows } = await data.pool.query("select name from person order by id");
  assert.deepEqual(
    rows.map(({ name }: { name: string }) => name),
    ["Ada", "Grace", "Edsger"],
  );
  const report = "department;persons\nComputing;2\nCorrectness;1\n";
  for (const place of ["out/report.csv", "www/report.csv", "backup/report.csv"])
    assert.equal(readFileSync(join(work, place), "utf8"), report, place);
  assert.ok(!existsSync(join(work, "in/persons.json")), "cleaned up");
  assert.deepEqual(hr.told, { persons: 3, departments: 2, lines: 2 });
  assert.deepEqual(mail.faults, []);
  assert.match(mail.mails[0]?.text ?? "", /legacy feed of run night-1 is missing/);

  // The two imports had one object in turn.
  const span = (name: string) => before.get(name)?.runs.at(-1);
  const [persons, departments] = [span("Import persons"), span("Import departments")];
  assert.ok(persons !== undefined && departments !== undefined);
  const [first, second] = persons.claim < departments.claim ? [persons, departments] : [departments, persons];
  assert.ok((first.endedAt ?? Number.POSITIVE_INFINITY) <= (second.startedAt ?? 0));

  // A person has looked.
  const mended = await job("reactivate", "--process", String(id), "--as", "success", "--yes");
  assert.equal(mended.status, 0, mended.stderr);
  const followed = await job("show", String(id), "--follow");
  assert.equal(followed.status, 0, followed.stderr);
  const after = await show();
  assert.equal(after.process.state, "finished");
  assert.equal(readFileSync(join(work, "out/signed-off"), "utf8"), "run night-1");

  // Nobody sees the connection URL.
  const seen = [JSON.stringify(after), followed.stdout, ...services.map(({ directory }) => logOf(directory))];
  for (const text of seen) assert.ok(!text.includes(database));
});
