import { readFileSync, writeFileSync } from "node:fs";
import { copyFile, mkdir } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import type { NodeReport } from "@lockstep/core";
import { findProgram, type Lab, openLab } from "../support/lab.ts";
import { type LabEtcdMember, startLabEtcd } from "../support/lab-etcd.ts";
import { LAB_INTERFACE, type LabHost, type RunAnswer } from "../support/lab-host.ts";
import { hasAddress, listenersOn } from "../support/lab-look.ts";
import { RECEIVER_PORT, Witness } from "./hosts-witness.ts";

export const NODES = ["alpha", "beta", "gamma"] as const;
export const CLIENT = "client";
export const SERVER = "APP";
export const ADDRESS = "10.77.0.50";
export const PORT = 8080;
const PREFIX = "/lockstep/lab/";
const MAIN = fileURLToPath(new URL("../../packages/cli/src/main.ts", import.meta.url));
const SERVICE = fileURLToPath(new URL("hosts-service.ts", import.meta.url));
const LOOK_MS = 20;
/** Nothing here is about time; this is only so that a failing test ends. */
const GIVE_UP_MS = 300_000;

export interface HostsOptions {
  /** Of `cluster init`. */
  readonly init?: readonly string[];
  /** Of `virtual-server add`, beside the address. */
  readonly add?: readonly string[];
  /** The command; else the one of the checkout. */
  readonly main?: string;
  /** Real-time priority of the guards; null: none. */
  readonly priority?: number | null;
  /** More hosts, which are none of the cluster's. */
  readonly strangers?: readonly string[];
  /** What each daemon is started through. */
  readonly wrapper?: (node: string, directory: string) => readonly string[];
  /** How fast the store finds a new leader; else by etcd's own settings. */
  readonly election?: { readonly heartbeatMs: number; readonly electionMs: number };
  /** The data directory of each node is a file system of so many bytes. */
  readonly dataBytes?: number | null;
}

/**
 * Slow on purpose: a busy machine must not look like a dead one, nor one whose programs take a while to start like one that
 * keeps what it has. Given as an administrator would.
 */
export const SLOW_TIMES = [
  ...["trustMs=6000", "waitMs=13000", "renewMs=800", "callMs=2500", "guardDelayMs=3500", "stopMs=3000"],
].flatMap((term) => ["--time", term]);

/** The service of hosts-service.ts, as options of `virtual-server add`. */
export const ordinaryService = (directory: string): string[] => [
  ...["--service", process.execPath, "--argument", SERVICE, "--argument", String(PORT)],
  ...["--argument", `http://10.77.0.4:${RECEIVER_PORT}/`, "--argument", `${directory}/acknowledged-{node}`],
  ...["--set", `service.probeTcp=127.0.0.1:${PORT}`],
];

/**
 * A whole cluster as an administrator would have it: three hosts with a member of etcd, a daemon and a configuration file
 * each, and a client, on a switch. Everything about the cluster is done by the real commands, run on its hosts.
 */
export class ClusterHosts {
  readonly lab: Lab;
  readonly nodes: readonly LabHost[];
  readonly client: LabHost;
  readonly members: readonly LabEtcdMember[];
  readonly #options: HostsOptions;
  /** Processes that hold the small file systems. */
  readonly #disks = new Map<string, number>();
  readonly #off = new Set<string>();
  #witness: Witness | null = null;

  /** Hosts, store and daemons; no virtual server yet. */
  static async open(options: HostsOptions = {}): Promise<ClusterHosts> {
    const lab = await openLab([...NODES, CLIENT, ...(options.strangers ?? [])]);
    try {
      const members = await startLabEtcd(lab, findProgram("etcd") ?? "etcd", NODES, options.election);
      const hosts = new ClusterHosts(lab, members, options);
      await hosts.#found();
      return hosts;
    } catch (error) {
      await lab.close();
      throw error;
    }
  }

  private constructor(lab: Lab, members: readonly LabEtcdMember[], options: HostsOptions) {
    this.lab = lab;
    this.members = members;
    this.#options = options;
    this.nodes = NODES.map((name) => lab.host(name));
    this.client = lab.host(CLIENT);
  }

  get witness(): Witness {
    if (this.#witness === null) throw new Error("nobody was asked to witness yet");
    return this.#witness;
  }

  pathOf = (...names: readonly string[]) => join(this.lab.directory, ...names);

  async #found(): Promise<void> {
    const { dataBytes = null, priority = null, init = SLOW_TIMES } = this.#options;
    const endpoints = this.members.map(({ endpoint }) => endpoint);
    for (const { name, address } of this.nodes) {
      await mkdir(this.pathOf(name, "data"), { recursive: true });
      const own = [...endpoints].sort((a) => (a.includes(`${address}:`) ? -1 : 1));
      writeFileSync(
        this.pathOf(name, "node.toml"),
        `name = "${name}"\naddress = "${address}:7420"\ndata = "data"\n[key]\nfile = "cluster.key"\n[coordination]\nprefix = "${PREFIX}"\nendpoints = ${JSON.stringify(own)}\n${
          priority === null ? "" : `[guard]\npriority = ${priority}\n`
        }`,
      );
      if (dataBytes !== null) await this.#addDisk(name, dataBytes);
    }
    const [first, ...others] = NODES;
    await this.must(first, "init", ...init);
    for (const node of others)
      await copyFile(this.pathOf(first, "cluster.key"), this.pathOf(node, "cluster.key"));
    for (const node of NODES) await this.must(node, "join", "--force");
    await Promise.all(NODES.map((node) => this.startDaemon(node)));
    this.#witness = await Witness.start(this.client, { endpoints, prefix: PREFIX, server: SERVER });
  }

  /** A file system in memory that goes with the process which has it, and is nobody else's. */
  async #addDisk(node: string, bytes: number): Promise<void> {
    const script = 'mount -t tmpfs -o "size=$1" tmpfs "$2" && echo there && exec sleep infinity';
    const child = this.lab
      .host(node)
      .start("/bin/sh", ["-c", script, "disk", String(bytes), this.pathOf(node, "data")], { output: "pipe" });
    await new Promise((resolve, reject) => {
      child.stdout?.once("data", resolve);
      child.once("exit", () => reject(new Error("no small file system")));
    });
    if (child.pid !== undefined) this.#disks.set(node, child.pid);
  }

  /** The data directory of a node as this process reaches it. */
  dataOf(node: string): string {
    const disk = this.#disks.get(node);
    return `${disk === undefined ? "" : `/proc/${disk}/root`}${this.pathOf(node, "data")}`;
  }

  /** `lockstep cluster ARGS` on a host. */
  run(node: string, ...args: readonly string[]): Promise<RunAnswer> {
    const command = [
      this.#options.main ?? MAIN,
      "cluster",
      ...args,
      "--config",
      this.pathOf(node, "node.toml"),
    ];
    return this.lab.host(node).run(process.execPath, command);
  }

  /** The same, which must end well; returns what it wrote. A node that is too slow to answer is asked again, as it says. */
  async must(node: string, ...args: readonly string[]): Promise<string> {
    let answer = await this.run(node, ...args);
    while (answer.status !== 0 && /NODE_ANSWER_LATE/.test(`${answer.stdout}${answer.stderr}`))
      answer = await this.run(node, ...args);
    if (answer.status === 0) return answer.stdout;
    throw new Error(
      `${node}: cluster ${args.join(" ")}: ${answer.status}\n${answer.stdout}\n${answer.stderr}`,
    );
  }

  /** Starts a node's daemon, and waits until it says that it is ready. */
  async startDaemon(node: string): Promise<void> {
    const disk = this.#disks.get(node);
    const words = [
      ...(disk === undefined ? [] : ["nsenter", "-t", String(disk), "-m", "--"]),
      ...(this.#options.wrapper?.(node, this.lab.directory) ?? []),
      ...[process.execPath, this.#options.main ?? MAIN, "node"],
      ...["--config", this.pathOf(node, "node.toml"), "--log-level", "error"],
    ];
    const [program = "", ...args] = words;
    const daemon = this.lab.host(node).start(program, args, { output: "pipe" });
    const { stdout } = daemon;
    if (stdout === null) throw new Error("a daemon without an output");
    const line = await new Promise<string>((resolve, reject) => {
      createInterface({ input: stdout }).once("line", resolve);
      daemon.once("exit", () => reject(new Error(`the daemon of ${node} ended`)));
    });
    if (!line.startsWith(`ready ${node} `)) throw new Error(line);
  }

  /** Registers the virtual server by the command, and waits until a client is answered. */
  async addServer(more: readonly string[] = []): Promise<string> {
    const add = this.#options.add ?? ordinaryService(this.lab.directory);
    const given = ["--address", `${ADDRESS}/24@${LAB_INTERFACE}`, ...add, ...more];
    await this.must(NODES[0], "virtual-server", "add", SERVER, ...given);
    return this.untilServing();
  }

  /** Processes of a host by what they are: its daemon, the guards, who listens at the service's port, the store's member. */
  pids(node: string, what: "daemon" | "guard" | "service" | "store"): number[] {
    const host = this.lab.host(node);
    if (what === "service") return listenersOn(host, [PORT]).flatMap(({ pid }) => (pid === 0 ? [] : [pid]));
    const looks = {
      daemon: / node --config /,
      guard: /^\S*node\S* (?:\S+ )*\S*guard(?:\/main\.ts|\.mjs)/,
      store: /^\S*etcd --name /,
    }[what];
    return host.processes().filter((pid) => looks.test(commandOf(pid)));
  }

  kill(node: string, what: "daemon" | "guard" | "service" | "store", signal: NodeJS.Signals): number[] {
    const pids = this.pids(node, what);
    for (const pid of pids) {
      try {
        process.kill(pid, signal);
      } catch {
        // It has ended.
      }
    }
    return pids;
  }

  /** Nodes that have the address now. */
  owners = (): string[] =>
    this.nodes
      .filter((host) => !this.#off.has(host.name) && hasAddress(host, ADDRESS))
      .map(({ name }) => name);

  /** Nodes on which the service listens now. */
  serving = (): string[] =>
    this.nodes
      .filter((host) => !this.#off.has(host.name) && listenersOn(host, [PORT]).length > 0)
      .map(({ name }) => name);

  /** Waits until exactly one node has the address, and its service is reached there by the client. */
  async untilServing(isMeant: (node: string) => boolean = () => true): Promise<string> {
    return this.until("one node serves", async () => {
      const [owner, second] = this.owners();
      if (owner === undefined || second !== undefined || !isMeant(owner)) return null;
      return (await this.askService()) === owner ? owner : null;
    });
  }

  /** Waits until a node has said twice that it is there and looks at the store, or owns. */
  async untilTakesPart(node: string): Promise<void> {
    let before: NodeReport | null = null;
    await this.until(`${node} takes part`, async () => {
      const report = (await this.witness.ask("reports"))[node];
      const role = report?.servers[SERVER]?.role;
      if (report === undefined || (role !== "observing" && role !== "owner")) return null;
      // Another life of its daemon counts anew.
      if (before?.instance !== report.instance) before = report;
      return report.beat > before.beat ? true : null;
    });
  }

  /** What a client is answered; null: nobody. */
  async askService(): Promise<string | null> {
    const url = `http://${ADDRESS}:${PORT}/`;
    const { status, stdout } = await this.client.run("curl", ["-sf", "--max-time", "1", url]);
    return status === 0 ? stdout : null;
  }

  async until<T>(what: string, look: () => T | null | Promise<T | null>): Promise<T> {
    for (const end = performance.now() + GIVE_UP_MS; ; ) {
      const found = await look();
      if (found !== null) return found;
      if (performance.now() > end) throw new Error(`waited too long: ${what}\n${await this.tell()}`);
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    }
  }

  /** What is known, for a test that fails. */
  async tell(): Promise<string> {
    const history = (await this.#witness?.ask("history").catch(() => [])) ?? [];
    const reports = (await this.#witness?.ask("reports").catch(() => ({}))) ?? {};
    return [
      `owners ${this.owners()}, serving ${this.serving()}`,
      ...history
        .slice(-60)
        .map((e) =>
          [new Date(e.at).toISOString().slice(14, 23), e.node, e.token, e.what, e.detail].join(" | "),
        ),
      ...Object.values(reports).map((report) => JSON.stringify(report)),
    ].join("\n");
  }

  /** Loses its power: nobody hears it any more, nothing of it runs, and its kernel forgets what it had. */
  async powerOff(node: string): Promise<void> {
    const host = this.lab.host(node);
    await host.silence("both");
    await host.killAll();
    this.#off.add(node);
    await host.run("ip", ["addr", "del", `${ADDRESS}/24`, "dev", LAB_INTERFACE]);
  }

  /** Is switched on: its member of the store, and its daemon. */
  async powerOn(node: string): Promise<void> {
    const host = this.lab.host(node);
    await host.hear();
    this.members.find((member) => member.host.name === node)?.start();
    this.#off.delete(node);
    await this.startDaemon(node);
  }

  close(): Promise<void> {
    return this.lab.close();
  }
}

/** The words of a process's command, with spaces between; empty: it has ended. */
function commandOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ");
  } catch {
    return "";
  }
}
