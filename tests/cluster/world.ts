import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { documentOf, type Ended, ended, PROGRAM } from "../cli/lockstep.ts";
import { findProgram, type Lab, openLab, whyNoLab } from "../support/lab.ts";
import { startLabEtcd } from "../support/lab-etcd.ts";

import { findEtcd, freePorts, startEtcd } from "./etcd-cluster.ts";
import { findMarked } from "./marked-processes.ts";

/**
 * A cluster as an administrator has it, by the real commands alone: three machines, a client, a store. Where root is
 * available each machine is a host of the lab with a network of its own; else all are on loopback, and what needs
 * addresses is skipped by name.
 */
export const NODES = ["alpha", "beta", "gamma"] as const;
export type NodeName = (typeof NODES)[number];

export interface Machine {
  /** Where the others reach it. */
  readonly address: string;
  start(program: string, args: readonly string[], env: NodeJS.ProcessEnv): ChildProcess;
}

/** Why there is no cluster at all on this machine; null: there is. */
export const whyNoCluster = (): string | null => (findEtcd() === null ? "etcd is not on this machine" : null);
/** Why machines have no network of their own here; null: they have. */
export const whyNoNetwork = (): string | null => whyNoLab("etcd", "arping");

/** Slow on purpose: a busy machine must not look like a dead one, nor lose its turn. Given as an administrator would. */
const TIMES = [
  ...["trustMs=9000", "waitMs=13500", "renewMs=1000", "callMs=3900", "guardDelayMs=2000", "stopMs=2000"],
].flatMap((term) => ["--time", term]);

/** `ip netns exec` gives each program a table of mounts of its own; in it `site` is the machine's own directory. */
const OWN_SITE = 'mount --bind "$1" "$2" && shift 2 && exec "$@"';
const GIVE_UP_MS = 300_000;
const LOOK_MS = 50;
const ENTRY = "LOCKSTEP_TEST_WORLD";

export class World {
  readonly directory: string;
  readonly lab: Lab | null;
  readonly nodes: readonly NodeName[] = NODES;
  readonly #machines: ReadonlyMap<string, Machine>;
  readonly #endpoints: readonly string[];
  readonly #stopStore: () => Promise<void>;
  readonly #daemons = new Map<string, ChildProcess>();

  /** With networks of their own where that can be had, or not. */
  static async open(isNetworked: boolean): Promise<World> {
    const program = findEtcd() ?? "";
    if (!isNetworked) {
      const etcd = await startEtcd(program);
      const machine: Machine = {
        address: "127.0.0.1",
        start: (name, args, env) => spawn(name, args, { env, stdio: ["pipe", "pipe", "pipe"] }),
      };
      const machines = new Map([...NODES, "client"].map((name) => [name, machine]));
      const directory = mkdtempSync(join(tmpdir(), "lockstep-test-world-"));
      const ports = await freePorts(NODES.length);
      return new World(null, directory, machines, etcd.endpoints, ports, () => etcd.stop());
    }
    const lab = await openLab([...NODES, "client"]);
    try {
      const members = await startLabEtcd(lab, findProgram("etcd") ?? program, NODES);
      const machines = new Map(
        lab.hosts.map((host): [string, Machine] => [
          host.name,
          {
            address: host.address,
            start: (name, args, env) => {
              const own = join(lab.directory, host.name, "site");
              const inside = ["-c", OWN_SITE, "sh", own, join(lab.directory, "site"), name, ...args];
              const [first, ...rest] = host.command("/bin/sh", inside);
              return spawn(first, rest, { env, stdio: ["pipe", "pipe", "pipe"] });
            },
          },
        ]),
      );
      const endpoints = members.map(({ endpoint }) => endpoint);
      return new World(lab, lab.directory, machines, endpoints, [7420, 7420, 7420], () => lab.close());
    } catch (error) {
      await lab.close();
      throw error;
    }
  }

  private constructor(
    lab: Lab | null,
    directory: string,
    machines: ReadonlyMap<string, Machine>,
    endpoints: readonly string[],
    ports: readonly number[],
    stopStore: () => Promise<void>,
  ) {
    this.lab = lab;
    this.directory = directory;
    this.#machines = machines;
    this.#endpoints = endpoints;
    this.#stopStore = stopStore;
    for (const shared of ["site", "bin"]) mkdirSync(this.path(shared), { recursive: true });
    for (const [index, name] of [...NODES, "client"].entries()) {
      mkdirSync(this.path(name, "site"), { recursive: true });
      const address = `${this.machine(name).address}:${ports[index] ?? 1}`;
      const store = `prefix = "/lockstep/test/"\nendpoints = [${endpoints.map((each) => JSON.stringify(each)).join(", ")}]`;
      writeFileSync(
        this.path(name, "node.toml"),
        `name = "${name}"\naddress = "${address}"\ndata = "data"\n[key]\nfile = "cluster.key"\n[coordination]\n${store}\n`,
      );
    }
  }

  path = (...parts: readonly string[]): string => join(this.directory, ...parts);
  /** By this path each machine has a directory of its own, where machines are hosts. */
  get site(): string {
    return this.path("site");
  }
  /** The same directory of one machine, as the test reaches it. */
  siteOf = (name: string): string => (this.lab === null ? this.site : this.path(name, "site"));
  get endpoints(): readonly string[] {
    return this.#endpoints;
  }

  machine(name: string): Machine {
    const machine = this.#machines.get(name);
    if (machine === undefined) throw new Error(`no machine ${name}`);
    return machine;
  }

  #environment(name: string): NodeJS.ProcessEnv {
    const { PATH = "", HOME = "" } = process.env;
    // What a test puts into `bin` stands before the machine's own programs.
    return {
      PATH: `${this.path("bin")}:${PATH}`,
      HOME,
      [ENTRY]: this.directory,
      LOCKSTEP_NODE_CONFIG: this.path(name, "node.toml"),
    };
  }

  /** Leaves a program running on a machine. */
  begin(name: string, program: string, ...args: readonly string[]): ChildProcess {
    return this.machine(name).start(program, args, this.#environment(name));
  }

  async run(name: string, program: string, ...args: readonly string[]): Promise<Ended> {
    const child = this.begin(name, program, ...args);
    child.stdin?.end();
    return await ended(child);
  }

  /** `lockstep ARGS` on a machine. */
  lockstep(name: string, ...args: readonly string[]): Promise<Ended> {
    return this.run(name, process.execPath, PROGRAM, ...args);
  }

  /** The document of `lockstep cluster ARGS --json`; fails unless the exit status is the wanted one. */
  async ask<T>(name: string, args: readonly string[], status = 0): Promise<T> {
    const run = await this.lockstep(name, "cluster", ...args, "--json");
    assert.equal(run.status, status, `${args.join(" ")}\n${run.stdout}\n${run.stderr}`);
    return documentOf<T>(run);
  }

  /** Founds the cluster and lets every node join; then their daemons run. */
  async found(): Promise<void> {
    await this.ask("alpha", ["init", ...TIMES]);
    for (const name of ["beta", "gamma", "client"]) {
      copyFileSync(this.path("alpha", "cluster.key"), this.path(name, "cluster.key"));
      chmodSync(this.path(name, "cluster.key"), 0o600);
    }
    for (const name of NODES) await this.ask(name, ["join"]);
    await Promise.all(NODES.map((name) => this.startDaemon(name)));
    await this.until("all well", async () =>
      (await this.lockstep("alpha", "cluster", "status")).status === 0 ? true : null,
    );
  }

  async startDaemon(name: NodeName): Promise<void> {
    const daemon = this.begin(
      name,
      process.execPath,
      ...[PROGRAM, "node", "--config", this.path(name, "node.toml"), "--log-level", "warn"],
    );
    this.#daemons.set(name, daemon);
    daemon.stderr?.resume();
    assert.ok(daemon.stdout !== null);
    const [line] = (await once(createInterface({ input: daemon.stdout }), "line")) as [string];
    assert.match(line, new RegExp(`^ready ${name} `));
  }

  /** SIGKILL, also to what a drill has started in its place. */
  async killDaemon(name: NodeName): Promise<void> {
    const killed = new Set<number>();
    // Its port is free for the next one when the kernel is done with all of it.
    await this.until(`no daemon of ${name}`, () => {
      const found = this.daemonsOf(name);
      for (const pid of found) send(pid);
      for (const pid of found) killed.add(pid);
      return found.length === 0 && [...killed].every(isGone) ? true : null;
    });
  }

  /** The processes that are a node's daemon now. */
  daemonsOf(name: NodeName): number[] {
    const found = findMarked(this.path(name, "node.toml"), "LOCKSTEP_NODE_CONFIG").filter((pid) =>
      /^[^\0]*node\0.*\0node\0--config\0/.test(commandOf(pid)),
    );
    // What a daemon has just forked looks like it until it is another program.
    return found.filter((pid) => !found.includes(parentOf(pid)));
  }

  /** On which nodes a program runs that belongs to a virtual server's service. */
  servingOn(server: string): string[] {
    const found = new Set<string>();
    for (const pid of findMarked(server, "LOCKSTEP_VIRTUAL_SERVER")) {
      const entries = entriesOf(pid);
      if (!entries.some((entry) => entry.includes(this.directory))) continue;
      const node = entries.find((entry) => entry.startsWith("LOCKSTEP_NODE="))?.slice(14);
      if (node !== undefined) found.add(node);
    }
    return [...found].sort();
  }

  async status(): Promise<WorldStatus> {
    return this.until("a status", async () => {
      const run = await this.lockstep("client", "cluster", "status", "--json");
      // Where the store is slow for a moment it says so, and that is no status.
      return run.status === 0 || run.status === 10 ? documentOf<WorldStatus>(run) : null;
    });
  }

  /** The owner, once everything of it is online. */
  async owner(server: string): Promise<NodeName> {
    return this.until(`${server} online`, async () => {
      const found = (await this.status()).virtualServers.find(({ name }) => name === server);
      const owner = NODES.find((node) => node === found?.owner);
      return found?.state === "online" && owner !== undefined ? owner : null;
    });
  }

  async until<T>(what: string, look: () => T | null | Promise<T | null>): Promise<T> {
    for (const end = performance.now() + GIVE_UP_MS; ; ) {
      const found = await look();
      if (found !== null) return found;
      if (performance.now() > end) {
        const history = await this.lockstep("client", "cluster", "history", "--last", "60");
        throw new Error(`waited too long for: ${what}\n${history.stdout}`);
      }
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    }
  }

  async close(): Promise<void> {
    const daemons = NODES.flatMap((name) => this.daemonsOf(name));
    for (const pid of daemons) send(pid);
    for (const end = performance.now() + GIVE_UP_MS; findMarked(this.directory, ENTRY).length > 0; ) {
      if (performance.now() > end) throw new Error("something still runs");
      // Guards end their services by themselves; commands that a failing test has left do not.
      if (performance.now() > end - GIVE_UP_MS / 2)
        for (const pid of findMarked(this.directory, ENTRY)) send(pid);
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    }
    await this.#stopStore();
    rmSync(this.directory, { recursive: true, force: true, maxRetries: 3 });
  }
}

export interface WorldStatus {
  readonly healthy: boolean;
  readonly problems: readonly string[];
  readonly nodes: readonly {
    readonly node: string;
    readonly state: string;
    readonly owns: readonly string[];
  }[];
  readonly virtualServers: readonly {
    readonly name: string;
    readonly state: string;
    readonly owner: string | null;
    readonly token: number | null;
    readonly settings: { readonly state: string; readonly number: number | null } | null;
  }[];
}

function send(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // It has ended.
  }
}

/** Behind the name, which may hold anything: state, parent and so on (proc(5)). */
function statOf(pid: number): string[] {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    return stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  } catch {
    return [];
  }
}

const parentOf = (pid: number): number => Number(statOf(pid)[1] ?? 0);

/** Whether nothing of a process is left that could hold anything: the first thread may be a zombie before the others are. */
function isGone(pid: number): boolean {
  const [state] = statOf(pid);
  if (state === undefined) return true;
  try {
    return (state === "Z" || state === "X") && readdirSync(`/proc/${pid}/task`).length < 2;
  } catch {
    return true;
  }
}

function entriesOf(pid: number): string[] {
  try {
    return readFileSync(`/proc/${pid}/environ`, "latin1").split("\0");
  } catch {
    return [];
  }
}

function commandOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "latin1");
  } catch {
    return "";
  }
}
