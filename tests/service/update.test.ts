import assert from "node:assert/strict";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { findUpdater } from "../../packages/hub/src/setup/updater-source.ts";
import { lockstep } from "../cli/lockstep.ts";
import { load, release } from "../hub/support/release.ts";
import { startTestHub, type TestHub } from "../hub/support/test-hub.ts";
import { usePostgres } from "../support/postgres.ts";
import {
  configure,
  familyOf,
  killQuietly,
  logOf,
  runService,
  servers,
  startJob,
  temporaryDirectory,
  until,
  untilEnded,
} from "./service-world.ts";

const server = usePostgres();

const UPDATER = findUpdater("0.1.0");

async function publish(hub: TestHub, version: string): Promise<number> {
  await load(hub, release({ "app.txt": version, "bin/tool": `tool ${version}` }, { version }));
  await hub.settled();
  const { revision } = (await (await fetch(`${hub.url}/v1/revision`)).json()) as { revision: number };
  return revision;
}

/** A real installation of role Server, with the configuration of a service in it. */
async function makeInstallation(
  t: TestContext,
  hub: TestHub,
  queues: readonly string[],
  machine: string,
): Promise<string> {
  const directory = join(temporaryDirectory(t), "app");
  const token = join(temporaryDirectory(t), "token");
  writeFileSync(token, hub.token, { mode: 0o600 });
  const end = await lockstep([
    "install",
    directory,
    "--role",
    "Server",
    "--hub",
    hub.url,
    "--token-file",
    token,
    "--quiet",
  ]);
  assert.equal(end.status, 0, end.stderr);
  configure(hub, directory, { queues, machine, service: "DrainSeconds = 5" });
  return directory;
}

const run = (t: TestContext, directory: string) =>
  runService(t, directory, join(directory, "JobService.toml"));
const versionOf = (directory: string) => readFileSync(join(directory, "app.txt"), "utf8");
const revisionOf = (directory: string) =>
  Number(readFileSync(join(directory, ".softwarerevision.viv"), "utf8").split("\n")[0]);

/** All queues serve, at one revision. */
function untilServing(hub: TestHub, queues: readonly string[], revision: number): Promise<unknown> {
  return until(async () => {
    const all = (await servers(hub)).filter(({ queue }) => queues.includes(queue));
    return (
      all.length === queues.length &&
      all.every((each) => each.state === "serving" && each.revision === revision)
    );
  });
}

test("job servers update themselves by their own queues while steps run, and no step is lost", async (t) => {
  const hub = await startTestHub(t, server, { updater: UPDATER });
  const first = await publish(hub, "1");
  const one = await makeInstallation(t, hub, ["\\A", "\\B"], "machine-1");
  const two = await makeInstallation(t, hub, ["\\C"], "machine-2");
  const services = [await run(t, one), await run(t, two)];
  const queues = ["\\A", "\\B", "\\C"];
  await untilServing(hub, queues, first);
  const trace = join(temporaryDirectory(t), "trace");
  const chain = (queue: string) =>
    startJob(
      hub,
      `chain-${queue.slice(1)}`,
      Array.from({ length: 12 }, (_, at) => ({
        name: `s${at}`,
        component: "Command",
        task: "Script",
        queue,
        parameters: {
          shell: "sh",
          script: 'sleep 0.3; echo "$1" >> "$2"',
          arguments: [`${queue.slice(1)} ${at}`, trace],
        },
        onSuccess: at < 11 ? [`s${at + 1}`] : [],
      })),
    );
  const jobs = await Promise.all(queues.map(chain));
  const second = await publish(hub, "2");
  await untilServing(hub, queues, second);
  for (const directory of [one, two]) {
    assert.equal(versionOf(directory), "2");
    assert.equal(revisionOf(directory), second);
    assert.ok(!existsSync(join(directory, "state", "update.json")));
  }
  for (const job of jobs) assert.equal((await untilEnded(hub, job)).process.state, "finished", logOf(one));
  // In order, and none but those twice that were given back.
  for (const queue of queues) {
    const seen = readFileSync(trace, "utf8")
      .split("\n")
      .filter((line) => line.startsWith(`${queue.slice(1)} `))
      .map((line) => Number(line.split(" ")[1]));
    assert.deepEqual(
      seen,
      [...seen].sort((a, b) => a - b),
    );
    assert.equal(new Set(seen).size, 12);
  }
  const updates = await hub.pool.query<{ name: string; state: string }>(
    "select name, state from job_process where name like 'Automatic update of %' order by name",
  );
  assert.deepEqual(
    updates.rows,
    queues.map((queue) => ({ name: `Automatic update of ${queue}`, state: "finished" })),
  );
  for (const service of services) assert.equal(await service.stop(), 0);
});

const STAGES: readonly {
  readonly name: string;
  readonly reached: (directory: string, revision: number) => boolean;
}[] = [
  {
    name: "while it drains",
    reached: (directory) => /ends for the update/.test(logOf(directory)),
  },
  {
    name: "when the update is written down",
    reached: (directory) => existsSync(join(directory, "state", "update.json")),
  },
  {
    name: "while the updater works",
    reached: (directory) => existsSync(join(directory, "update.lock")),
  },
  {
    name: "when the new revision is there",
    reached: (directory, revision) => revisionOf(directory) === revision,
  },
];

for (const { name, reached } of STAGES)
  test(`a service that is killed ${name} ends at one revision and serves`, async (t) => {
    const hub = await startTestHub(t, server, { updater: UPDATER });
    const first = await publish(hub, "1");
    const directory = await makeInstallation(t, hub, ["\\A"], "machine-1");
    const service = await run(t, directory);
    await untilServing(hub, ["\\A"], first);
    const second = await publish(hub, "2");
    await until(() => reached(directory, second));
    const family = familyOf(service.process.pid ?? 0);
    await service.kill();
    for (const pid of family) killQuietly(pid);
    const next = await run(t, directory);
    await untilServing(hub, ["\\A"], second);
    assert.equal(versionOf(directory), "2");
    assert.equal(revisionOf(directory), second);
    const job = await startJob(hub, "afterwards", [
      { name: "s", component: "Command", task: "Run", queue: "\\A", parameters: { program: "true" } },
    ]);
    assert.equal((await untilEnded(hub, job)).process.state, "finished");
    assert.equal(await next.stop(), 0);
  });
