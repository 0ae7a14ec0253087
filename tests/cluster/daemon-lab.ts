import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { randomBytes, randomUUID } from "node:crypto";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import {
  at,
  CLUSTER,
  ClusterDocuments,
  type Coordination,
  type CoordinationConfig,
  MEMBERS,
  ORDERS,
  openCoordination,
  patientCoordination,
  REPORTS,
  SERVERS,
} from "@lockstep/cluster";
import {
  type ClusterDefinition,
  type ClusterOrder,
  DEFAULT_QUARANTINE,
  type HistoryEntry,
  type LeaseTimes,
  type VirtualServerDefinition,
} from "@lockstep/core";
import { systemClock } from "@lockstep/platform";
import { type EtcdCluster, startEtcd } from "./etcd-cluster.ts";
import { findMarked, isMarked } from "./marked-processes.ts";
import { defineResource, defineServer } from "./server-definition.ts";

/**
 * A cluster of real daemons, each started as `lockstep node`, on a real etcd of three members, all on loopback. What runs
 * where is looked up in the process table, all the time, whatever the daemons believe.
 */
export interface LabOptions {
  readonly nodes: readonly string[];
  readonly times?: LeaseTimes;
  readonly changed?: Partial<ClusterDefinition>;
  /** Another store than an etcd of its own; whoever gives it ends it. */
  readonly store?: CoordinationConfig;
  /** An etcd that several labs use one after the other; the same holds. */
  readonly etcd?: EtcdCluster;
}

const PROGRAM = fileURLToPath(new URL("../../packages/cli/src/main.ts", import.meta.url));
const SAMPLE_MS = 15;
const LOOK_MS = 50;
/** Nothing here is about time; this is only so that a failing test ends. */
const GIVE_UP_MS = 300_000;

/** So long that nothing which stands still for half a minute loses its lease, or its turn: where nobody waits one out. */
const PATIENT_TIMES: LeaseTimes = {
  trustMs: 30_000,
  waitMs: 40_000,
  renewMs: 1_000,
  callMs: 12_000,
  guardDelayMs: 5_000,
  stopMs: 2_000,
  clockError: 0.001,
};

/** For tests in which a lease is waited out. Slow on purpose: a busy machine must not look like a dead one. */
export const SLOW_TIMES: LeaseTimes = {
  trustMs: 13_500,
  waitMs: 20_000,
  renewMs: 700,
  callMs: 5_400,
  guardDelayMs: 3_000,
  stopMs: 2_700,
  clockError: 0.001,
};

export class DaemonLab {
  readonly #etcd: EtcdCluster | null;
  readonly #isShared: boolean;
  readonly documents: ClusterDocuments;
  readonly coordination: Coordination;
  readonly nodes: readonly string[];
  /** Moments at which a service ran on two nodes. */
  readonly together: string[] = [];
  samples = 0;
  readonly #run = randomUUID();
  readonly #directory: string;
  readonly #daemons = new Map<string, ChildProcess>();
  readonly #servers = new Set<string>();
  #isSampling = true;
  #sampling: Promise<void> = Promise.resolve();

  static async open(program: string, options: LabOptions): Promise<DaemonLab> {
    const etcd = options.store === undefined ? (options.etcd ?? (await startEtcd(program))) : null;
    const store: CoordinationConfig = {
      ...(options.store ?? { store: "etcd", endpoints: etcd?.endpoints ?? [] }),
      prefix: `lockstep/test-${randomUUID()}/`,
      // A member that stands still for a moment costs nobody its turn.
      callMs: 10_000,
    };
    // A store that is busy choosing a leader is no failure of the test that looks into it.
    const coordination = patientCoordination(await openCoordination(store, systemClock), {
      clock: systemClock,
      patienceMs: GIVE_UP_MS,
    });
    const lab = new DaemonLab(etcd, store, coordination, options);
    const cluster: ClusterDefinition = {
      name: "test",
      lease: options.times ?? PATIENT_TIMES,
      votes: (etcd?.members ?? [{ name: "database" }]).map(({ name }) => ({ name, onNode: null })),
      quarantine: DEFAULT_QUARANTINE,
      configPolicy: "block",
      keyDigest: null,
      ...options.changed,
    };
    await lab.documents.change(CLUSTER, () => cluster);
    for (const node of options.nodes)
      await lab.documents.change(at(MEMBERS, node), () => ({
        node,
        address: "127.0.0.1:1",
        isPaused: false,
        exits: [],
        quarantinedUntil: null,
      }));
    await Promise.all(options.nodes.map((node) => lab.start(node)));
    return lab;
  }

  private constructor(
    etcd: EtcdCluster | null,
    store: CoordinationConfig,
    coordination: Coordination,
    { nodes, etcd: shared }: LabOptions,
  ) {
    this.#etcd = etcd;
    this.#isShared = shared !== undefined;
    this.coordination = coordination;
    this.documents = new ClusterDocuments(coordination.documents);
    this.nodes = nodes;
    this.#directory = mkdtempSync(join(tmpdir(), "lockstep-test-daemons-"));
    const key = randomBytes(32).toString("hex");
    for (const node of nodes) {
      mkdirSync(this.directory(node), { recursive: true });
      writeFileSync(join(this.directory(node), "cluster.key"), `${key}\n`, { mode: 0o600 });
      // JSON's texts, numbers and lists are TOML's too.
      const lines = Object.entries(store).map(([key, value]) => `${key} = ${JSON.stringify(value)}\n`);
      writeFileSync(
        this.configFile(node),
        `name = "${node}"\naddress = "127.0.0.1:0"\ndata = "data"\n[key]\nfile = "cluster.key"\n[coordination]\n${lines.join("")}`,
      );
    }
    this.#sampling = this.#sample();
  }

  get etcd(): EtcdCluster {
    if (this.#etcd === null) throw new Error("this lab has another store");
    return this.#etcd;
  }

  directory = (node: string) => join(this.#directory, node);
  configFile = (node: string) => join(this.directory(node), "node.toml");

  /** Starts the daemon of a node, and waits until it says that it is ready. Its address becomes the member's. */
  async start(node: string): Promise<void> {
    const daemon = spawn(
      process.execPath,
      [PROGRAM, "node", "--config", this.configFile(node), "--log-level", "warn"],
      {
        stdio: ["ignore", "pipe", "inherit"],
        // Which node a service runs on stands in its environment, handed through by the shell that it is.
        env: { ...process.env, LOCKSTEP_TEST_RUN: this.#run },
      },
    );
    this.#daemons.set(node, daemon);
    const lines = createInterface({ input: daemon.stdout });
    const [line] = (await once(lines, "line")) as [string];
    const [word, name, address = ""] = line.split(" ");
    assert.deepEqual([word, name], ["ready", node]);
    await this.documents.change(at(MEMBERS, node), (member) =>
      member === null ? null : { ...member, address },
    );
  }

  daemon(node: string): ChildProcess {
    const daemon = this.#daemons.get(node);
    if (daemon === undefined) throw new Error(`no daemon of ${node}`);
    return daemon;
  }

  /** Ends a daemon and waits for it. */
  async end(node: string, signal: NodeJS.Signals): Promise<void> {
    const daemon = this.daemon(node);
    if (daemon.exitCode !== null || daemon.signalCode !== null) return;
    const ended = once(daemon, "exit");
    daemon.kill("SIGCONT");
    daemon.kill(signal);
    await ended;
  }

  /** A virtual server of one service that runs until it is told to end. */
  define(name: string, changed: Partial<VirtualServerDefinition> = {}): VirtualServerDefinition {
    this.#servers.add(name);
    return {
      ...defineServer([
        defineResource("service", "generic-service", {
          program: "/bin/sh",
          arguments: ["-c", "trap 'exit 0' TERM; while :; do sleep 0.2; done"],
          environment: [`LOCKSTEP_TEST_MARK=${this.#run}.${name}`],
          stopMs: 5_000,
        }),
      ]),
      name,
      ...changed,
    };
  }

  /** Known to every node, and nothing of a former life left there, before anybody may take it: so each has its chance. */
  async add(name: string, changed: Partial<VirtualServerDefinition> = {}): Promise<void> {
    const definition = this.define(name, changed);
    const offline: VirtualServerDefinition = { ...definition, wanted: "offline" };
    await this.documents.change(at(SERVERS, name), () => offline);
    await this.until(`${name} known everywhere`, async () => {
      const { found } = await this.documents.list(REPORTS);
      return this.nodes.every((node) => found.get(node)?.servers[name]?.role === "observing") ? true : null;
    });
    await this.documents.change(at(SERVERS, name), () => definition);
  }

  async change(name: string, changed: Partial<VirtualServerDefinition>): Promise<void> {
    await this.documents.change(at(SERVERS, name), (present) =>
      present === null ? null : { ...present, ...changed },
    );
  }

  async order(name: string, order: Pick<ClusterOrder, "kind" | "to">): Promise<void> {
    await this.documents.change(at(ORDERS, name), (present) => ({
      ...order,
      number: (present?.number ?? 0) + 1,
      by: "test",
      at: Date.now(),
    }));
  }

  async pause(node: string, isPaused: boolean): Promise<void> {
    await this.documents.change(at(MEMBERS, node), (member) =>
      member === null ? null : { ...member, isPaused },
    );
  }

  /** The nodes on which the service of a virtual server runs, by its environment. */
  serving(name: string): string[] {
    return [...this.#served(name).keys()];
  }

  /** By node the processes of a virtual server's service: it knows both by its environment. */
  #served(name: string): Map<string, number[]> {
    const pids = findMarked(`${this.#run}.${name}`);
    const served = this.nodes.map((node): [string, number[]] => [
      node,
      pids.filter((pid) => isMarked(pid, node, "LOCKSTEP_NODE")),
    ]);
    return new Map(served.filter(([, found]) => found.length > 0));
  }

  /** Processes of this test whose environment says so. */
  marked(value: string, name: string): number[] {
    const ours = new Set([...this.#servers].flatMap((server) => findMarked(`${this.#run}.${server}`)));
    return findMarked(value, name).filter((pid) => ours.has(pid));
  }

  async owner(name: string): Promise<string | null> {
    return (await this.coordination.read(name)).record?.node ?? null;
  }

  /** Waits until a virtual server runs on exactly these nodes. */
  async untilServing(name: string, nodes: readonly string[] | number): Promise<string[]> {
    return this.until(`${name} on ${nodes}`, () => {
      const serving = this.serving(name);
      const isSo = typeof nodes === "number" ? serving.length === nodes : serving.join() === nodes.join();
      return isSo ? serving : null;
    });
  }

  /** Waits until every resource is reported online by the owner, under its token: a former one may not have reported since. */
  async untilOnline(name: string): Promise<string> {
    return this.until(`${name} online`, async () => {
      const { record } = await this.coordination.read(name);
      if (record === null || record.node === null) return null;
      const { found } = await this.documents.list(REPORTS);
      const report = found.get(record.node)?.servers[name];
      const resources = Object.values(report?.resources ?? {});
      const isOnline =
        report?.role === "owner" &&
        report.token === record.token &&
        resources.every(({ phase }) => phase === "online") &&
        resources.length > 0;
      return isOnline ? record.node : null;
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

  /** Waits until the history has an entry like this. */
  async untilHistory(
    what: string,
    isMeant: (entry: HistoryEntry) => boolean = () => true,
  ): Promise<HistoryEntry> {
    return this.until(`history: ${what}`, async () => {
      const entries = await this.documents.history();
      return entries.find((entry) => entry.what === what && isMeant(entry)) ?? null;
    });
  }

  /** What is known, for a test that fails. */
  async tell(): Promise<string> {
    const history = await this.documents.history();
    const lines = history.map(({ at, node, server, token, what, detail }) =>
      [new Date(at).toISOString().slice(14, 23), node, server, token, what, detail].join(" | "),
    );
    const { found } = await this.documents.list(REPORTS);
    return [...lines.slice(-60), ...[...found.values()].map((each) => JSON.stringify(each))].join("\n");
  }

  async close(): Promise<void> {
    this.#isSampling = false;
    await this.#sampling;
    await Promise.all([...this.#daemons.keys()].map((node) => this.end(node, "SIGKILL")));
    // Guards end their services by themselves; whatever they leave is a failure of the test that looks for it.
    for (const name of this.#servers)
      for (const end = performance.now() + GIVE_UP_MS; findMarked(`${this.#run}.${name}`).length > 0; ) {
        if (performance.now() > end) throw new Error(`${name} still runs`);
        await systemClock.sleep(LOOK_MS);
      }
    await this.coordination.close();
    if (!this.#isShared) await this.#etcd?.stop();
    rmSync(this.#directory, { recursive: true, force: true, maxRetries: 3 });
  }

  async #sample(): Promise<void> {
    while (this.#isSampling) {
      for (const name of this.#servers) {
        const served = this.#served(name);
        if (served.size < 2) continue;
        // One look is not one moment: the first may have ended before the last began. Whoever still runs ran meanwhile.
        const left = this.#served(name);
        const both = [...served].filter(([node, pids]) => pids.some((pid) => left.get(node)?.includes(pid)));
        if (both.length > 1) this.together.push(`${name}: ${both.map(([node]) => node).join()}`);
      }
      this.samples += 1;
      await systemClock.sleep(SAMPLE_MS);
    }
  }
}
