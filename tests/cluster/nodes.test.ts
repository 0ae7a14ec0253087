import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { suite, type TestContext, test } from "node:test";
import { fileURLToPath } from "node:url";
import { type CoordinationConfig, openCoordination } from "@lockstep/cluster";
import { isProven, type LeaseTimes, proveLease } from "@lockstep/core";
import { systemClock } from "@lockstep/platform";
import { usePostgres } from "../support/postgres.ts";
import { sendSignal } from "../support/send-signal.ts";
import { urlOf } from "./database-url.ts";
import { findEtcd, startEtcd } from "./etcd-cluster.ts";
import { findMarked } from "./marked-processes.ts";
import type { NodeConfig } from "./node-process.ts";
import { defineResource, defineServer } from "./server-definition.ts";

// Three real daemons with their guards and services on a real store. What runs where is looked up in the process table,
// all the time, whatever the daemons believe.
const NODE = fileURLToPath(new URL("./node-process.ts", import.meta.url));
const SERVICE = "trap '' TERM; while :; do sleep 1000; done";
const SAMPLE_MS = 15;
/** Slow on purpose: a busy machine must not look like a dead one. */
const TIMES: LeaseTimes = {
  trustMs: 6000,
  waitMs: 12_500,
  renewMs: 1000,
  callMs: 2400,
  guardDelayMs: 3000,
  stopMs: 3000,
  clockError: 0.001,
};

class Lab {
  readonly #daemons = new Map<string, ChildProcess>();
  readonly #run = randomUUID();
  readonly #coordination: CoordinationConfig;
  readonly #names = ["a", "b", "c"];
  readonly #directory = mkdtempSync(join(tmpdir(), "lockstep-test-nodes-"));
  #isSampling = true;
  readonly #sampling: Promise<void>;
  readonly together: string[] = [];
  samples = 0;

  constructor(coordination: CoordinationConfig) {
    this.#coordination = coordination;
    for (const name of this.#names) this.start(name);
    this.#sampling = this.#sample();
  }

  #mark = (name: string) => `${this.#run}.${name}`;
  #address = (name: string) => join(this.#directory, `address.${name}`);

  start(name: string): void {
    const config: NodeConfig = {
      node: name,
      others: this.#names.filter((other) => other !== name),
      rank: this.#names.indexOf(name),
      times: TIMES,
      coordination: this.#coordination,
      directory: join(this.#directory, name),
      definition: defineServer([
        defineResource("address", "ip-address", { file: this.#address(name) }),
        defineResource(
          "service",
          "generic-service",
          {
            program: "/bin/sh",
            arguments: ["-c", SERVICE],
            environment: [`LOCKSTEP_TEST_MARK=${this.#mark(name)}`],
            stopMs: 500,
          },
          { dependency: [["address"]] },
        ),
      ]),
    };
    const daemon = spawn(process.execPath, [NODE, JSON.stringify(config)], {
      stdio: ["pipe", "ignore", "inherit"],
    });
    daemon.stdin.on("error", () => {});
    this.#daemons.set(name, daemon);
  }

  daemon(name: string): ChildProcess {
    const daemon = this.#daemons.get(name);
    if (daemon === undefined) throw new Error(`no daemon ${name}`);
    return daemon;
  }

  /** Those who have anything of the virtual server, and those who have its service. */
  having(): string[] {
    return this.#names.filter((name) => existsSync(this.#address(name)) || this.#runs(name));
  }

  serving(): string[] {
    return this.#names.filter((name) => this.#runs(name));
  }

  #runs(name: string): boolean {
    return findMarked(this.#mark(name)).length > 0;
  }

  /** Kills a guard of this node; another one takes its place. */
  killGuard(name: string): void {
    const noted = readFileSync(join(this.#directory, name, "guard.json"), "utf8");
    const [guard] = JSON.parse(noted) as { readonly pid: number }[];
    assert.ok(guard !== undefined);
    sendSignal(guard.pid, "SIGKILL");
  }

  /** Ends what a node serves with, and waits until it is started again. */
  async kill(name: string): Promise<void> {
    const before = findMarked(this.#mark(name));
    // The end of the first may have ended the others already.
    for (const pid of before) sendSignal(pid, "SIGKILL");
    while (findMarked(this.#mark(name)).every((pid) => before.includes(pid)))
      await systemClock.sleep(SAMPLE_MS);
  }

  async #sample(): Promise<void> {
    while (this.#isSampling) {
      const having = this.having();
      this.samples += 1;
      // One look is not one moment: the one may have ended before the other began. So both are looked at again.
      if (having.length > 1 && this.having().length > 1) this.together.push(having.join(" and "));
      await systemClock.sleep(SAMPLE_MS);
    }
  }

  /** The one that serves, other than `former`. */
  async owner(former: string | null = null): Promise<string> {
    for (;;) {
      const [first, ...others] = this.serving();
      if (first !== undefined && others.length === 0 && first !== former) return first;
      await systemClock.sleep(SAMPLE_MS);
    }
  }

  async end(): Promise<void> {
    this.#isSampling = false;
    await this.#sampling;
    for (const daemon of this.#daemons.values()) {
      daemon.kill("SIGCONT");
      daemon.stdin?.end();
      if (daemon.exitCode === null && daemon.signalCode === null) await once(daemon, "exit");
    }
    for (const name of this.#names)
      for (const pid of findMarked(this.#mark(name))) sendSignal(pid, "SIGKILL");
    rmSync(this.#directory, { recursive: true, force: true });
  }
}

async function tellStory(t: TestContext, coordination: CoordinationConfig): Promise<void> {
  assert.ok(isProven(proveLease(TIMES)));
  const lab = new Lab(coordination);
  t.after(() => lab.end());
  // Its own look at the store may take longer than a daemon's.
  const store = await openCoordination({ ...coordination, callMs: 120_000 }, systemClock);
  t.after(() => store.close());
  const token = async () => (await store.read("JOBS")).record?.token ?? 0;

  const first = await lab.owner();
  const before = await token();

  // A daemon that is killed: its guard ends the service and gives the lease back.
  lab.daemon(first).kill("SIGKILL");
  const second = await lab.owner(first);
  assert.ok((await token()) > before);
  lab.start(first);

  // A daemon that freezes: it can neither renew nor stop anything. Its guard has taken everything away meanwhile.
  lab.daemon(second).kill("SIGSTOP");
  const third = await lab.owner(second);
  assert.ok(!lab.having().includes(second));
  lab.daemon(second).kill("SIGCONT");

  // Moved on purpose.
  lab.daemon(third).stdin?.write("leave\n");
  const fourth = await lab.owner(third);
  lab.daemon(third).stdin?.write("take\n");

  // A service that dies is started again in place.
  const present = await token();
  await lab.kill(fourth);
  assert.equal(await lab.owner(), fourth);
  assert.equal(await token(), present);

  // A guard that is killed takes everything along; its daemon, or another one, takes the lease anew.
  lab.killGuard(fourth);
  while ((await token()) === present) await systemClock.sleep(SAMPLE_MS);
  await lab.owner();

  assert.deepEqual(lab.together, []);
  t.diagnostic(`${lab.samples} looks at what runs: never two; ${first}, ${second}, ${third}, ${fourth}`);
}

suite("three real nodes", { skip: process.platform !== "linux" && "reads /proc" }, () => {
  const server = usePostgres();

  test("on PostgreSQL: one serves, whatever is killed, frozen or moved, and never two", async (t) => {
    const { address } = await server.database(t, { empty: true });
    await tellStory(t, { store: "postgres", url: urlOf(address), callMs: TIMES.callMs, watchMs: 50 });
  });

  const program = findEtcd();
  test("on etcd: one serves, whatever is killed, frozen or moved, and never two", {
    skip: program === null && "etcd is not on this machine (Debian package etcd-server)",
  }, async (t) => {
    const etcd = await startEtcd(program ?? "");
    t.after(() => etcd.stop());
    await tellStory(t, { store: "etcd", endpoints: etcd.endpoints, callMs: TIMES.callMs });
  });
});
