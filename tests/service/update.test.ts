import assert from "node:assert/strict";
import { existsSync, mkdirSync, readFileSync, rmdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { findUpdater } from "../../packages/hub/src/setup/updater-source.ts";
import { lockState } from "../../packages/service/src/supervise/state-files.ts";
import { lockstep } from "../cli/lockstep.ts";
import { load, release } from "../hub/support/release.ts";
import { startTestHub, type TestHub } from "../hub/support/test-hub.ts";
import { usePostgres } from "../support/postgres.ts";
import {
  beginService,
  configure,
  logOf,
  runService,
  servers,
  startJob,
  type TestService,
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
  service = "DrainSeconds = 5",
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
  configure(hub, directory, { queues, machine, service });
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

function untilNoneRuns(hub: TestHub): Promise<unknown> {
  return until(async () => {
    const { rowCount } = await hub.pool.query("select from job_process where state = 'running'");
    return rowCount === 0;
  });
}

/** The numbers behind a word in a file of lines. */
const linesOf = (file: string, word: string) =>
  readFileSync(file, "utf8")
    .split("\n")
    .filter((line) => line.startsWith(`${word} `))
    .map((line) => Number(line.split(" ")[1]));

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
    const seen = linesOf(trace, queue.slice(1));
    assert.deepEqual(
      seen,
      [...seen].sort((a, b) => a - b),
    );
    assert.equal(new Set(seen).size, 12);
  }
  // One that was handed out after the update ends a moment later: it finds that there is nothing to do.
  await untilNoneRuns(hub);
  const updates = await hub.pool.query<{ name: string; state: string }>(
    "select name, state from job_process where name like 'Automatic update of %' order by name",
  );
  assert.deepEqual(
    updates.rows,
    queues.map((queue) => ({ name: `Automatic update of ${queue}`, state: "finished" })),
  );
  for (const service of services) assert.equal(await service.stop(), 0);
});

test("an update that cannot be written down fails by name, and the service asks for steps again", async (t) => {
  const hub = await startTestHub(t, server, { updater: UPDATER });
  const first = await publish(hub, "1");
  const directory = await makeInstallation(t, hub, ["\\A"], "machine-1");
  const service = await run(t, directory);
  await untilServing(hub, ["\\A"], first);
  // Where the record is written first.
  const obstacle = join(directory, "state", "update.json.new");
  mkdirSync(obstacle);
  const second = await publish(hub, "2");
  const { state, message } = await until(async () => {
    const { rows } = await hub.pool.query<{ state: string; message: string }>(
      "select p.state, s.message from job_process p join job_step s on s.process_id = p.id where p.state <> 'running'",
    );
    return rows[0];
  });
  assert.equal(state, "failed");
  assert.match(message, /^the update cannot be written down: EISDIR/);
  rmdirSync(obstacle);
  // The hub tries again after a minute.
  await until(async () => {
    const { rowCount } = await hub.pool.query(
      "update job_step set ready_at = now() where component = 'AutoUpdate' and state = 'deferred'",
    );
    return rowCount === 1;
  });
  await untilServing(hub, ["\\A"], second);
  assert.equal(versionOf(directory), "2");
  assert.equal(await service.stop(), 0);
});

/**
 * A plug-in of the update that says at which step it is, and stays there as long as somebody wants it to: so a service is
 * killed at a stage and not at a moment, however fast or slow the machine is.
 */
const HOLDING_PLUGIN = `
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
async function stay({ installation, step }) {
  writeFileSync(join(installation, "at-" + step), "");
  while (existsSync(join(installation, "hold-" + step))) await new Promise((wake) => setTimeout(wake, 20));
}
export const prepare = stay;
export const afterSwitch = stay;
`;

const PLUGIN_STEPS = ["prepare", "afterSwitch"] as const;

interface Killed {
  readonly directory: string;
  readonly queue: string;
  readonly machine: string;
  service: TestService;
}

/** Kills a service with everything below it, and starts it again as its service manager does. */
async function killAndStart(t: TestContext, killed: Killed, between: () => void): Promise<void> {
  await killed.service.kill();
  between();
  killed.service = beginService(t, killed.directory, join(killed.directory, "JobService.toml"));
}

/** Kills one server at each stage of its update, from the drain to the moment before it would serve again. */
async function killThroughUpdate(t: TestContext, killed: Killed, revision: number): Promise<void> {
  const { directory } = killed;
  const beside = (name: string) => join(directory, "..", name);
  let lock: Disposable | null = null;
  // It drains, and does not come to the end of it: a step is still at work.
  await until(() => logOf(directory).includes("ends for the update"));
  assert.equal(revisionOf(directory), revision - 1);
  await killAndStart(t, killed, () => writeFileSync(beside("go"), ""));
  for (const step of PLUGIN_STEPS) {
    await until(() => existsSync(join(directory, `at-${step}`)));
    assert.ok(existsSync(join(directory, "state", "update.json")), "the update is not written down");
    assert.ok(existsSync(join(directory, "update.lock")), "the updater has no lock");
    assert.equal(existsSync(join(directory, ".lockstep", "commit.json")), step === "afterSwitch");
    // The last start finds the state in somebody's hands: the new revision is there, and nobody serves yet.
    const isLast = step === PLUGIN_STEPS.at(-1);
    await killAndStart(t, killed, () => {
      rmSync(join(directory, `hold-${step}`));
      if (isLast) lock = lockState(join(directory, "state"));
    });
  }
  await until(() => revisionOf(directory) === revision && killed.service.engine() !== null);
  await killAndStart(t, killed, () => lock?.[Symbol.dispose]());
  await killed.service.ready;
}

test("four job servers update themselves by their own queues, each killed at every stage, and nothing is lost", async (t) => {
  const hub = await startTestHub(t, server, { updater: UPDATER });
  const first = await publish(hub, "1");
  const trace = join(temporaryDirectory(t), "trace");
  const killed: Killed[] = [];
  for (const [at, queue] of ["\\A", "\\B", "\\C", "\\D"].entries()) {
    const machine = `machine-${at + 1}`;
    const directory = await makeInstallation(t, hub, [queue], machine, "DrainSeconds = 3600");
    for (const step of PLUGIN_STEPS) writeFileSync(join(directory, `hold-${step}`), "");
    killed.push({ directory, queue, machine, service: await run(t, directory) });
  }
  const queues = killed.map(({ queue }) => queue);
  await untilServing(hub, queues, first);
  const STEPS = 8;
  const jobs = await Promise.all(
    killed.map(({ directory, queue }) =>
      startJob(hub, `chain-${queue.slice(1)}`, [
        {
          name: "holds",
          component: "Command",
          task: "Script",
          queue,
          parameters: {
            shell: "sh",
            script: 'touch "$1/begun"; while [ ! -e "$1/go" ]; do sleep 0.05; done',
            arguments: [join(directory, "..")],
          },
        },
        ...Array.from({ length: STEPS }, (_, at) => ({
          name: `s${at}`,
          component: "Command",
          task: "Script",
          queue,
          parameters: {
            shell: "sh",
            script: 'echo "$1" >> "$2"; sleep 0.2',
            arguments: [`${queue.slice(1)} ${at}`, trace],
          },
          onSuccess: at < STEPS - 1 ? [`s${at + 1}`] : [],
        })),
      ]),
    ),
  );
  for (const { directory } of killed) await until(() => existsSync(join(directory, "..", "begun")));
  await load(
    hub,
    release({ "app.txt": "2", "bin/tool": "tool 2", "stay.update.mjs": HOLDING_PLUGIN }, { version: "2" }),
  );
  const second = first + 1;
  await Promise.all(killed.map((each) => killThroughUpdate(t, each, second)));
  await untilServing(hub, queues, second);
  for (const { directory } of killed) {
    assert.deepEqual([versionOf(directory), revisionOf(directory)], ["2", second]);
    assert.ok(!existsSync(join(directory, "state", "update.json")));
    assert.ok(!existsSync(join(directory, ".lockstep", "commit.json")));
  }
  for (const [at, job] of jobs.entries()) {
    const detail = await untilEnded(hub, job);
    const said = JSON.stringify(detail.steps.map(({ name, outcome, message }) => [name, outcome, message]));
    assert.equal(detail.process.state, "finished", said + logOf(killed[at]?.directory ?? ""));
  }
  for (const queue of queues) {
    const seen = linesOf(trace, queue.slice(1));
    // In order; what was at work when its service was killed may stand there twice.
    assert.deepEqual(
      seen,
      [...seen].sort((a, b) => a - b),
    );
    assert.equal(new Set(seen).size, STEPS);
  }
  await untilNoneRuns(hub);
  const { rows: open } = await hub.pool.query<{ name: string; state: string }>(
    "select name, state from job_process where state <> 'finished'",
  );
  assert.deepEqual(open, []);
  const { rows: updated } = await hub.pool.query<{ name: string }>(
    "select distinct name from job_process where name like 'Automatic update of %' order by name",
  );
  assert.deepEqual(
    updated.map(({ name }) => name),
    queues.map((queue) => `Automatic update of ${queue}`),
  );
  for (const { service } of killed) assert.equal(await service.stop(), 0, service.stderr());
});
