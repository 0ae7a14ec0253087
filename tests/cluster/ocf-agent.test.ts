import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, writeFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { suite, type TestContext, test } from "node:test";
import { fileURLToPath } from "node:url";
import { findProgram, whyNoLab } from "../support/lab.ts";
import { sendSignal } from "../support/send-signal.ts";
import { until } from "./host-world.ts";
import { PacemakerLab } from "./pacemaker-lab.ts";

const AGENT = fileURLToPath(new URL("../../packages/cluster/ocf/lockstep-service", import.meta.url));
const MAIN = fileURLToPath(new URL("../../packages/cli/src/main.ts", import.meta.url));
const [SUCCESS, GENERIC, INSTALLED, NOT_RUNNING] = [0, 1, 5, 7];

const skip =
  (!existsSync("/usr/lib/ocf/lib/heartbeat/ocf-shellfuncs") &&
    "there are no OCF agents here (Debian package resource-agents)") ||
  (process.getuid?.() !== 0 && "the agent wants root");

/** The agent as Pacemaker calls it. */
class Agent {
  readonly directory: string;
  readonly #environment: NodeJS.ProcessEnv;

  constructor(directory: string) {
    this.directory = directory;
    const program = join(directory, "lockstep");
    writeFileSync(program, `#!/bin/sh\nexec '${process.execPath}' '${MAIN}' "$@"\n`, { mode: 0o755 });
    this.configure("JOBS");
    this.#environment = {
      PATH: "/usr/sbin:/usr/bin:/sbin:/bin",
      OCF_ROOT: "/usr/lib/ocf",
      OCF_RESOURCE_INSTANCE: "test",
      OCF_RESKEY_config: join(directory, "JobService.toml"),
      OCF_RESKEY_queue: "JOBS",
      OCF_RESKEY_command: program,
      OCF_RESKEY_state: join(directory, "agent"),
      OCF_RESKEY_CRM_meta_timeout: "60000",
    };
  }

  configure(queue: string): void {
    const text = `[JobProvider]\nHub = "http://127.0.0.1:9"\n[[JobServiceDestination]]\nQueue = "${queue}"\n[FileLogWriter]\nOutPutFile = "x.log"\n[HTTPStatus]\nPort = 0\n`;
    writeFileSync(join(this.directory, "JobService.toml"), text);
  }

  run(action: string, given: NodeJS.ProcessEnv = {}) {
    const { status, stderr, stdout } = spawnSync(AGENT, [action], {
      env: { ...this.#environment, ...given },
      encoding: "utf8",
      timeout: 120_000,
    });
    return { status, stdout, reason: /ocf-exit-reason:(.*)/.exec(stderr)?.[1] ?? "" };
  }

  get pids(): number[] {
    const { stdout } = spawnSync("pgrep", ["-f", join(this.directory, "JobService.toml")], {
      encoding: "utf8",
    });
    return stdout.split("\n").filter(Boolean).map(Number);
  }
}

async function useAgent(t: TestContext): Promise<Agent> {
  const directory = await mkdtemp(join(tmpdir(), "lockstep-test-ocf-"));
  const agent = new Agent(directory);
  t.after(async () => {
    agent.run("stop");
    for (const pid of agent.pids) sendSignal(pid, "SIGKILL");
    await rm(directory, { recursive: true, force: true });
  });
  return agent;
}

suite("our OCF agent for the job service", { skip }, () => {
  test("starts when the service serves, tells how it is, ends all of it, and each of that may be repeated", async (t) => {
    const agent = await useAgent(t);
    assert.equal(agent.run("monitor").status, NOT_RUNNING);
    assert.equal(agent.run("stop").status, SUCCESS);
    assert.equal(agent.run("start").status, SUCCESS);
    assert.equal(agent.run("monitor").status, SUCCESS);
    assert.equal(agent.run("monitor", { OCF_CHECK_LEVEL: "10" }).status, SUCCESS);
    assert.equal(agent.run("start").status, SUCCESS);
    assert.equal(agent.run("stop").status, SUCCESS);
    assert.equal(agent.run("monitor").status, NOT_RUNNING);
    assert.deepEqual(agent.pids, []);
  });

  test("a service that died is not running, and one that hangs answers no thorough check and is ended all the same", async (t) => {
    const agent = await useAgent(t);
    assert.equal(agent.run("start").status, SUCCESS);
    for (const pid of agent.pids) sendSignal(pid, "SIGKILL");
    // A process that is being taken down has no command line any more, and yet counts until the kernel is done with it.
    const died = { status: SUCCESS as number | null };
    await until(() => {
      died.status = agent.run("monitor").status;
      return died.status !== SUCCESS;
    });
    assert.ok(died.status === NOT_RUNNING || died.status === GENERIC, String(died.status));
    assert.equal(agent.run("start").status, SUCCESS);
    for (const pid of agent.pids) sendSignal(pid, "SIGSTOP");
    assert.equal(agent.run("monitor").status, SUCCESS);
    assert.equal(agent.run("monitor", { OCF_CHECK_LEVEL: "10" }).status, GENERIC);
    assert.equal(agent.run("stop", { OCF_RESKEY_CRM_meta_timeout: "7000" }).status, SUCCESS);
    assert.deepEqual(agent.pids, []);
  });

  test("refuses a queue of another name, the name of this node, and what is not installed (S9, behaviour 55)", async (t) => {
    const agent = await useAgent(t);
    assert.equal(agent.run("validate-all").status, SUCCESS);
    agent.configure("OTHER");
    const other = agent.run("validate-all");
    assert.equal(other.status, INSTALLED);
    assert.match(other.reason, /no queue of .* is JOBS; found OTHER/);
    assert.equal(agent.run("start").status, INSTALLED);
    const node = spawnSync("uname", ["-n"], { encoding: "utf8" }).stdout.trim();
    agent.configure(node);
    assert.match(agent.run("validate-all", { OCF_RESKEY_queue: node }).reason, /has the name of this node/);
    agent.configure("\\\\\\\\JOBS");
    assert.equal(agent.run("validate-all").status, SUCCESS);
    assert.equal(agent.run("validate-all", { OCF_RESKEY_command: "/nowhere" }).status, INSTALLED);
    assert.equal(agent.run("validate-all", { OCF_RESKEY_config: "/nowhere" }).status, INSTALLED);
    assert.match(agent.run("meta-data").stdout, /<resource-agent name="lockstep-service"/);
  });

  test("holds before ocf-tester", {
    skip: findProgram("ocf-tester") === null && "there is no ocf-tester",
  }, async (t) => {
    const agent = await useAgent(t);
    const options = ["config=JobService.toml", "command=lockstep"].flatMap((each) => {
      const [name, file = ""] = each.split("=");
      return ["-o", `${name}=${join(agent.directory, file)}`];
    });
    const tested = spawnSync("ocf-tester", ["-n", "test", ...options, "-o", "queue=JOBS", AGENT], {
      env: { ...process.env, OCF_ROOT: "/usr/lib/ocf", PATH: `${process.env.PATH ?? ""}:/usr/sbin:/sbin` },
      encoding: "utf8",
    });
    const failed = tested.stdout.split("\n").filter((line) => line.startsWith("* rc="));
    // Without xmllint nobody can hold the description against its grammar.
    const unknown =
      findProgram("xmllint") === null ? failed.filter((line) => !/meta-data/.test(line)) : failed;
    assert.deepEqual(unknown, [], tested.stdout);
  });
});

suite("the job service below Debian's Pacemaker and Corosync", {
  skip:
    skip ||
    (["pacemakerd", "corosync", "crm_resource", "unshare", "nsenter"].some(
      (each) => findProgram(each) === null,
    ) &&
      "there is no Pacemaker here (Debian packages pacemaker and corosync)") ||
    (whyNoLab() ?? false),
}, () => {
  test("is started once, moved, restarted, and taken over from a node that lost its power", async (t) => {
    const cluster = await PacemakerLab.open(["alpha", "beta"]);
    t.after(() => cluster.close());
    const look = () =>
      cluster.names
        .map((name) => ({ name, pids: cluster.serving(name) }))
        .filter(({ pids }) => pids.length > 0);
    const owner = () => {
      const found = look();
      // One look is not one moment: the first may have ended before the last began. Whoever still runs ran meanwhile.
      const left = found.length < 2 ? [] : look().flatMap(({ pids }) => pids);
      const both = found.filter(({ pids }) => pids.some((pid) => left.includes(pid)));
      assert.ok(both.length < 2, `two serve at once: ${both.map(({ name }) => name).join()}`);
      return found.length === 1 ? (found[0]?.name ?? null) : null;
    };
    const started = async (name: string) => {
      const { stdout } = await cluster.run(name, "crm_mon", "-1", "--output-as=text");
      const isSettled = /Online: \[ alpha beta \]/.test(stdout);
      return isSettled ? (/JOBS.*Started (\w+)/.exec(stdout)?.[1] ?? null) : null;
    };
    const first = await cluster.until("started", async () =>
      owner() === null ? null : started(owner() ?? ""),
    );
    assert.equal(owner(), first);
    const second = first === "alpha" ? "beta" : "alpha";

    const moved = await cluster.run(first, "crm_resource", "--move", "--resource", "JOBS", "--node", second);
    assert.equal(moved.status, 0, moved.stderr);
    await cluster.until("moved", async () => (owner() === second ? started(second) : null));
    await cluster.run(second, "crm_resource", "--clear", "--resource", "JOBS");

    const [before] = cluster.serving(second);
    for (const pid of cluster.serving(second)) sendSignal(pid, "SIGKILL");
    // In place, as a rule: where Pacemaker looks a second time between its stop and its start, it may choose anew.
    const third = await cluster.until("restarted", () => {
      const name = owner();
      const [now] = name === null ? [] : cluster.serving(name);
      return now !== undefined && now !== before ? name : null;
    });
    await cluster.until("healthy again", () => started(third));

    await cluster.kill(third);
    const fourth = third === "alpha" ? "beta" : "alpha";
    await cluster.until("taken over", () => (owner() === fourth ? true : null));
  });
});
