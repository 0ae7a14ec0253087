import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import {
  chmodSync,
  closeSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { CLUSTER, ClusterDocuments, type Coordination, openCoordination, REPORTS } from "@lockstep/cluster";
import { systemClock } from "@lockstep/platform";
import { documentOf, type Ended, ended } from "../cli/lockstep.ts";
import { sendSignal } from "../support/send-signal.ts";
import { type EtcdCluster, freePorts, startEtcd } from "./etcd-cluster.ts";

/**
 * Three machines as far as a job service can tell: each has its own processes, its own host name, and its own files under
 * one path, on which the same installation lies everywhere. They share the network, an etcd, and one directory, which
 * stands for a volume. All that is done to the cluster is done by the command, on one of the machines.
 *
 * What really runs is looked up in the process table of the host, by the process namespace, whatever anybody believes.
 */
const PROGRAM = resolve(import.meta.dirname, "../../packages/cli/bin/lockstep.mjs");
/** Slow on purpose: a busy machine must not look like a dead one. Given as an administrator would. */
const SLOW_TIMES = [
  ...["trustMs=6000", "waitMs=13000", "renewMs=800", "callMs=2500", "guardDelayMs=3500", "stopMs=3000"],
].flatMap((term) => ["--time", term]);
/** The first process of a machine: when it ends, or the test does, the kernel ends all others. It reaps orphans. */
const MACHINE = 'mount --bind "$1" "$2" && hostname "$3" && echo up && cat >/dev/null';
const SAMPLE_MS = 40;
const LOOK_MS = 50;
/** Nothing here is about time; this is only so that a failing test ends. */
const GIVE_UP_MS = 400_000;

interface ServiceProcess {
  readonly pid: number;
  /** Its process namespace, which is a machine. */
  readonly pids: string;
}

interface Machine {
  readonly init: number;
  readonly pids: string;
  readonly process: ChildProcess;
}

export class JobLab {
  readonly directory = mkdtempSync(join(tmpdir(), "lockstep-test-jobs-"));
  readonly nodes: readonly string[];
  readonly etcd: EtcdCluster;
  readonly coordination: Coordination;
  readonly documents: ClusterDocuments;
  /** Moments at which the service ran on two machines. */
  readonly together: string[] = [];
  samples = 0;
  readonly #ports: readonly number[];
  readonly #machines = new Map<string, Machine>();
  #isSampling = true;
  #sampling: Promise<void> = Promise.resolve();

  /** Null: why this machine cannot have it. */
  static readonly unable: string | null =
    process.platform !== "linux"
      ? "needs Linux"
      : process.getuid?.() === 0
        ? null
        : "needs root (namespaces)";

  static async open(program: string, nodes: readonly string[]): Promise<JobLab> {
    const ports = await freePorts(nodes.length);
    const etcd = await startEtcd(program);
    const store = {
      store: "etcd",
      endpoints: etcd.endpoints,
      prefix: "/lockstep/test/",
      callMs: 10_000,
    } as const;
    const lab = new JobLab(etcd, await openCoordination(store, systemClock), nodes, ports);
    await Promise.all(nodes.map((node) => lab.boot(node)));
    return lab;
  }

  private constructor(
    etcd: EtcdCluster,
    coordination: Coordination,
    nodes: readonly string[],
    ports: readonly number[],
  ) {
    this.nodes = nodes;
    this.etcd = etcd;
    this.coordination = coordination;
    this.documents = new ClusterDocuments(coordination.documents);
    this.#ports = ports;
    mkdirSync(this.app);
    mkdirSync(this.shared);
    for (const node of nodes) mkdirSync(this.ownApp(node), { recursive: true });
  }

  /** The path of the installation, on every machine its own. */
  get app(): string {
    return join(this.directory, "app");
  }

  /** The volume that all of them reach. */
  get shared(): string {
    return join(this.directory, "shared");
  }

  /** The installation of one machine, as the host sees it. */
  ownApp = (node: string) => join(this.directory, node, "app");
  #config = (node: string) => join(this.directory, node, "node.toml");
  #key = (node: string) => join(this.directory, node, "cluster.key");

  /** Switches a machine on. Nothing runs on it yet. */
  async boot(node: string): Promise<void> {
    const flags = ["--mount", "--pid", "--uts", "--fork", "--kill-child", "--mount-proc"];
    const words = ["sh", "-c", MACHINE, "sh", this.ownApp(node), this.app, node];
    // What others unmount outside goes here too: it would keep its device until this machine ends.
    const child = spawn("unshare", [...flags, "--propagation", "slave", "--", ...words], {
      stdio: ["pipe", "pipe", "ignore"],
    });
    const [line] = (await once(createInterface({ input: child.stdout }), "line")) as [string];
    assert.equal(line, "up");
    const [init] = childrenOf(child.pid ?? 0);
    assert.ok(init !== undefined);
    this.#machines.set(node, { init, pids: readlinkSync(`/proc/${init}/ns/pid`), process: child });
  }

  /** The power goes: every process of the machine ends at once. */
  async powerOff(node: string): Promise<void> {
    const machine = this.#machine(node);
    const { init, process: child } = machine;
    if (child.exitCode !== null || child.signalCode !== null) return;
    const isOver = once(child, "exit");
    process.kill(init, "SIGKILL");
    await isOver;
    await this.until(`${node} is off`, () => (pidsIn(machine.pids).length === 0 ? true : null));
  }

  /** `lockstep ARGS` on a machine. */
  async run(node: string, ...args: readonly string[]): Promise<Ended> {
    return ended(this.#spawn(node, args, ["ignore", "pipe", "pipe"]));
  }

  /** The same, which must end well; returns its document. A node that is too slow to answer is asked again, as it says. */
  async ask<T>(node: string, ...args: readonly string[]): Promise<T> {
    let end = await this.run(node, ...args, "--json");
    while (end.status !== 0 && /NODE_ANSWER_LATE/.test(`${end.stdout}${end.stderr}`))
      end = await this.run(node, ...args, "--json");
    assert.equal(end.status, 0, `${args.join(" ")}\n${end.stdout}\n${end.stderr}\n${await this.tell()}`);
    return documentOf<T>(end);
  }

  /** Founds the cluster, lets every machine join, and starts the daemons. */
  async found(): Promise<void> {
    const endpoints = this.etcd.endpoints.map((each) => JSON.stringify(each)).join(", ");
    for (const [index, node] of this.nodes.entries())
      writeFileSync(
        this.#config(node),
        `name = "${node}"\naddress = "127.0.0.1:${this.#ports[index]}"\ndata = "data"\n[key]\nfile = "cluster.key"\n[coordination]\nprefix = "/lockstep/test/"\nendpoints = [${endpoints}]\n`,
      );
    const [first = ""] = this.nodes;
    await this.ask(first, "cluster", "init", ...SLOW_TIMES);
    // Nodes are killed here more often than one would trust them to be well.
    await this.documents.change(
      CLUSTER,
      (cluster) => cluster && { ...cluster, quarantine: { ...cluster.quarantine, exits: 100 } },
    );
    for (const node of this.nodes) {
      if (node !== first) {
        copyFileSync(this.#key(first), this.#key(node));
        chmodSync(this.#key(node), 0o600);
      }
      await this.ask(node, "cluster", "join");
      await this.startDaemon(node);
    }
    this.#sampling = this.#sample();
  }

  /** Starts the daemon of a node, and waits until it says that it is ready. */
  async startDaemon(node: string): Promise<void> {
    const log = openSync(join(this.directory, `${node}.log`), "a");
    const child = this.#spawn(node, ["node", "--log-level", "warn"], ["ignore", "pipe", log]);
    closeSync(log);
    assert.ok(child.stdout !== null);
    const [line] = (await once(createInterface({ input: child.stdout }), "line")) as [string];
    assert.match(line, new RegExp(`^ready ${node} `));
  }

  /** Kills what makes a virtual server run on a node: its daemon, its guard, or the supervisor of the service. */
  async kill(node: string, what: "daemon" | "guard" | "service"): Promise<void> {
    const { pids } = this.#machine(node);
    const looks = {
      daemon: / node --log-level /,
      guard: /\/guard\/main\.ts|guard\.mjs/,
      service: / service run /,
    };
    const pid = await this.until(
      `${what} of ${node}`,
      () => pidsIn(pids).find((each) => looks[what].test(commandOf(each))) ?? null,
    );
    sendSignal(pid, "SIGKILL");
  }

  /** Machines on which anything of the service runs. */
  serving(): string[] {
    return this.#machinesOf(this.#serviceProcesses());
  }

  #machinesOf(processes: readonly ServiceProcess[]): string[] {
    const found = new Set(processes.map(({ pids }) => pids));
    return this.nodes.filter((node) => found.has(this.#machine(node).pids));
  }

  async record(): Promise<{ readonly node: string; readonly token: number } | null> {
    const { record } = await this.coordination.read("JOBS");
    return record === null || record.node === null ? null : { node: record.node, token: record.token };
  }

  /** Waits until it is online under a lease that is newer than this one. Returns who owns it. */
  async untilOnline(after: number): Promise<{ readonly node: string; readonly token: number }> {
    return this.until(`online after term ${after}`, async () => {
      const record = await this.record();
      if (record === null || record.token <= after) return null;
      const { found } = await this.documents.list(REPORTS);
      const server = found.get(record.node)?.servers.JOBS;
      const phases = Object.values(server?.resources ?? {}).map(({ phase }) => phase);
      const isOnline = phases.length > 0 && phases.every((phase) => phase === "online");
      return isOnline && server?.role === "owner" && server.token === record.token ? record : null;
    });
  }

  async until<T>(what: string, look: () => T | null | Promise<T | null>): Promise<T> {
    for (const end = performance.now() + GIVE_UP_MS; ; ) {
      const found = await look();
      if (found !== null) return found;
      if (performance.now() > end) throw new Error(`waited too long for: ${what}\n${await this.tell()}`);
      await systemClock.sleep(LOOK_MS);
    }
  }

  /** What is known, for a test that fails. */
  async tell(): Promise<string> {
    const history = await this.documents.history().catch(() => []);
    const lines = history.map(({ at, node, server, token, what, detail }) =>
      [new Date(at).toISOString().slice(14, 23), node, server, token, what, detail].join(" | "),
    );
    const logs = this.nodes.map((node) => {
      try {
        return `--- ${node}\n${readFileSync(join(this.directory, `${node}.log`), "utf8").slice(-2000)}`;
      } catch {
        return "";
      }
    });
    return [...lines.slice(-60), ...logs].join("\n");
  }

  async close(): Promise<void> {
    this.#isSampling = false;
    await this.#sampling;
    await Promise.all([...this.#machines.keys()].map((node) => this.powerOff(node)));
    await this.coordination.close();
    await this.etcd.stop();
    rmSync(this.directory, { recursive: true, force: true, maxRetries: 5 });
  }

  #machine(node: string): Machine {
    const machine = this.#machines.get(node);
    if (machine === undefined) throw new Error(`no machine ${node}`);
    return machine;
  }

  #spawn(node: string, args: readonly string[], stdio: ("ignore" | "pipe" | number)[]): ChildProcess {
    const { PATH = "", HOME = "" } = process.env;
    const place = ["--target", String(this.#machine(node).init), "--mount", "--pid", "--uts", "--"];
    return spawn("nsenter", [...place, process.execPath, PROGRAM, ...args], {
      cwd: "/",
      stdio: stdio as ["ignore", "pipe", "pipe"],
      env: { PATH, HOME, LOCKSTEP_NODE_CONFIG: this.#config(node) },
    });
  }

  /** Supervisors, engines and workers of the service, on whatever machine. */
  #serviceProcesses(): ServiceProcess[] {
    const machines = new Set([...this.#machines.values()].map(({ pids }) => pids));
    return [...pidsOf("/proc")].flatMap((pid) => {
      const pids = namespaceOf(pid);
      if (pids === null || !machines.has(pids)) return [];
      return / service (run|engine|worker)( |$)/.test(commandOf(pid)) && !isZombie(pid)
        ? [{ pid, pids }]
        : [];
    });
  }

  async #sample(): Promise<void> {
    while (this.#isSampling) {
      const before = this.#serviceProcesses();
      if (this.#machinesOf(before).length > 1) {
        // One look is not one moment. What is there before and after was there at once.
        const after = new Set(this.#serviceProcesses().map(({ pid }) => pid));
        const serving = this.#machinesOf(before.filter(({ pid }) => after.has(pid)));
        if (serving.length > 1) this.together.push(serving.join());
      }
      this.samples += 1;
      await systemClock.sleep(SAMPLE_MS);
    }
  }
}

const pidsOf = (directory: string): Set<number> =>
  new Set(
    readdirSync(directory)
      .filter((name) => /^\d+$/.test(name))
      .map(Number),
  );

const quietly = (path: string): string => {
  try {
    return readFileSync(path, "latin1");
  } catch {
    return "";
  }
};

const commandOf = (pid: number): string => quietly(`/proc/${pid}/cmdline`).replaceAll("\0", " ");

const childrenOf = (pid: number): number[] =>
  quietly(`/proc/${pid}/task/${pid}/children`).trim().split(" ").filter(Boolean).map(Number);

function isZombie(pid: number): boolean {
  const stat = quietly(`/proc/${pid}/stat`);
  return /^([ZX]|$)/.test(stat.slice(stat.lastIndexOf(")") + 2));
}

function namespaceOf(pid: number): string | null {
  try {
    return readlinkSync(`/proc/${pid}/ns/pid`);
  } catch {
    return null;
  }
}

const pidsIn = (namespace: string): number[] =>
  [...pidsOf("/proc")].filter((pid) => namespaceOf(pid) === namespace && !isZombie(pid));
