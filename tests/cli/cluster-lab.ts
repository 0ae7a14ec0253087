import assert from "node:assert/strict";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { systemClock } from "@lockstep/platform";
import { CALM_ELECTION, type EtcdCluster, freePorts, startEtcd } from "../cluster/etcd-cluster.ts";
import { documentOf, type Ended, lockstep, start } from "./lockstep.ts";

const LOOK_MS = 50;

/** Slow on purpose: a busy machine must not look like a dead one, nor lose its turn. Given as an administrator would. */
const TIMES = [
  ...["trustMs=12000", "waitMs=16500", "renewMs=1500", "callMs=5000", "guardDelayMs=2000", "stopMs=2000"],
].flatMap((term) => ["--time", term]);

/**
 * What an administrator has before there is a cluster: an etcd, three machines (here directories and ports), and the
 * command. Everything is done by the command; nothing looks into the store behind its back.
 */
export class ClusterLab {
  readonly directory: string;
  readonly etcd: EtcdCluster;
  readonly nodes: readonly string[];
  readonly times = TIMES;
  readonly #daemons = new Map<string, ChildProcess>();

  static async open(etcd: string, nodes: readonly string[]): Promise<ClusterLab> {
    const ports = await freePorts(nodes.length);
    return new ClusterLab(await startEtcd(etcd, null, CALM_ELECTION), nodes, ports);
  }

  private constructor(etcd: EtcdCluster, nodes: readonly string[], ports: readonly number[]) {
    this.etcd = etcd;
    this.nodes = nodes;
    this.directory = mkdtempSync(join(tmpdir(), "lockstep-test-cluster-"));
    for (const [index, node] of nodes.entries()) {
      mkdirSync(join(this.directory, node));
      writeFileSync(this.configOf(node), this.configText(node, `127.0.0.1:${ports[index]}`));
    }
  }

  configText(node: string, address: string, prefix = "/lockstep/test/"): string {
    const endpoints = this.etcd.endpoints.map((each) => JSON.stringify(each)).join(", ");
    return `name = "${node}"\naddress = "${address}"\ndata = "data"\n[key]\nfile = "cluster.key"\n[coordination]\nprefix = "${prefix}"\nendpoints = [${endpoints}]\n`;
  }

  configOf = (node: string): string => join(this.directory, node, "node.toml");
  keyOf = (node: string): string => join(this.directory, node, "cluster.key");
  pathOf = (name: string): string => join(this.directory, name);

  /** `lockstep cluster ARGS`, as if called on that node. */
  run(node: string, ...args: readonly string[]): Promise<Ended> {
    return lockstep(["cluster", ...args], { env: { LOCKSTEP_NODE_CONFIG: this.configOf(node) } });
  }

  /** The same with `--json`; fails unless the exit status is the wanted one. */
  async ask<T>(node: string, args: readonly string[], status = 0): Promise<T> {
    const ended = await this.run(node, ...args, "--json");
    assert.equal(ended.status, status, `${args.join(" ")}\n${ended.stdout}\n${ended.stderr}`);
    return documentOf<T>(ended);
  }

  /** Leaves the command running. */
  begin(node: string, ...args: readonly string[]): ChildProcess {
    return start(["cluster", ...args], { env: { LOCKSTEP_NODE_CONFIG: this.configOf(node) } });
  }

  copyKey(from: string, to: string): void {
    copyFileSync(this.keyOf(from), this.keyOf(to));
    chmodSync(this.keyOf(to), 0o600);
  }

  /** Starts a node's daemon, and waits until it says that it is ready. */
  async startDaemon(node: string): Promise<void> {
    const daemon = start(["node", "--config", this.configOf(node), "--log-level", "warn"]);
    this.#daemons.set(node, daemon);
    let said = "";
    daemon.stderr?.setEncoding("utf8").on("data", (text: string) => {
      said += text;
    });
    assert.ok(daemon.stdout !== null);
    // One that ends says nothing any more: then all that it said.
    const line = await Promise.race([
      once(createInterface({ input: daemon.stdout }), "line").then(([text]) => String(text)),
      once(daemon, "close").then(() => said),
    ]);
    assert.match(line, new RegExp(`^ready ${node} `));
  }

  async endDaemon(node: string, signal: NodeJS.Signals): Promise<void> {
    const daemon = this.#daemons.get(node);
    if (daemon === undefined || daemon.exitCode !== null || daemon.signalCode !== null) return;
    const ended = once(daemon, "exit");
    daemon.kill(signal);
    await ended;
  }

  /** A service that says where it runs, in a file of its own, and ends when it is told to. */
  writeService(name: string): string {
    const program = this.pathOf(`${name}.sh`);
    const text = `#!/bin/sh\necho "$LOCKSTEP_NODE" >> ${this.pathOf(`${name}.runs`)}\ntrap 'exit 0' TERM\nwhile :; do sleep 0.2; done\n`;
    writeFileSync(program, text, { mode: 0o755 });
    return program;
  }

  /** On which nodes it was started, in that order, as soon as it was so often: who is online may not have said so yet. */
  async runsOf(name: string, count: number): Promise<string[]> {
    for (;;) {
      const said = existsSync(this.pathOf(`${name}.runs`))
        ? readFileSync(this.pathOf(`${name}.runs`), "utf8")
            .split("\n")
            .slice(0, -1)
        : [];
      if (said.length >= count) return said;
      await systemClock.sleep(LOOK_MS);
    }
  }

  /** Until every member of the store says that it has a leader. */
  async untilStoreWell(): Promise<void> {
    const health = (endpoint: string) =>
      fetch(`${endpoint}/health`).then(
        (answer) => answer.text(),
        () => "",
      );
    for (const endpoint of this.etcd.endpoints)
      while (!/"health":"true"/.test(await health(endpoint))) await systemClock.sleep(LOOK_MS);
  }

  async close(): Promise<void> {
    await Promise.all(this.nodes.map((node) => this.endDaemon(node, "SIGTERM")));
    await this.etcd.stop();
    rmSync(this.directory, { recursive: true, force: true, maxRetries: 3 });
  }
}
