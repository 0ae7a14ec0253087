import { closeSync, existsSync, openSync, rmSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import type { Direction } from "../support/lab-host.ts";
import { ADDRESS, type ClusterHosts, type HostsOptions, NODES } from "./hosts-lab.ts";

/** A fault that was made. */
export interface Strike {
  readonly what: string;
  readonly node: string;
  /** The node stands still or has no power until it is healed. */
  readonly isAbsent?: boolean;
  heal(): Promise<void>;
}

export interface Nemesis {
  readonly name: string;
  /** Part of `npm test`. */
  readonly isQuick?: boolean;
  readonly hosts?: HostsOptions;
  /** Null: it can be had here; else why not. */
  readonly whyNot?: () => string | null;
  strike(hosts: ClusterHosts, owner: string, random: () => number): Promise<Strike>;
}

const STRANGER = "stranger";
const FAKE_TIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
const FSYNC_DELAY_US = 100_000;

const pick = <T>(from: readonly T[], random: () => number): T =>
  from[Math.floor(random() * from.length)] ?? (from[0] as T);
const others = (owner: string) => NODES.filter((node) => node !== owner);

/** A signal to one kind of process on a node; a node is all of them and its network. */
const KILLS: readonly Nemesis[] = (["daemon", "service", "guard", "store"] as const).flatMap((what) => [
  {
    name: `${what}-kill`,
    isQuick: what === "daemon",
    async strike(hosts: ClusterHosts, owner: string, random: () => number): Promise<Strike> {
      const node = what === "store" ? pick(NODES, random) : owner;
      hosts.kill(node, what, "SIGKILL");
      const heal = async () => {
        if (what === "daemon") await hosts.startDaemon(node);
        if (what === "store") hosts.members.find((member) => member.host.name === node)?.start();
      };
      return { what: `SIGKILL of ${what}`, node, heal };
    },
  },
  {
    name: `${what}-stop`,
    async strike(hosts: ClusterHosts, owner: string, random: () => number): Promise<Strike> {
      const node = what === "store" ? pick(NODES, random) : owner;
      const pids = hosts.kill(node, what, "SIGSTOP");
      return { what: `SIGSTOP of ${what}`, node, heal: async () => wake(pids) };
    },
  },
]);

function wake(pids: readonly number[]): void {
  for (const pid of pids) {
    try {
      process.kill(pid, "SIGCONT");
    } catch {
      // Somebody has killed it meanwhile, as somebody should.
    }
  }
}

const NODES_LOST: readonly Nemesis[] = [
  {
    name: "node-kill",
    async strike(hosts, owner) {
      await hosts.powerOff(owner);
      return { what: "node without power", node: owner, isAbsent: true, heal: () => hosts.powerOn(owner) };
    },
  },
  {
    name: "node-stop",
    async strike(hosts, owner) {
      const host = hosts.lab.host(owner);
      // A kernel that stands still answers nobody; this one would.
      await host.silence("both");
      await host.freezeAll();
      const heal = async () => {
        host.thawAll();
        await host.hear();
      };
      return { what: "node stood still", node: owner, isAbsent: true, heal };
    },
  },
];

const silence = (name: string, direction: Direction): Nemesis => ({
  name,
  isQuick: direction === "both",
  async strike(hosts, owner) {
    const host = hosts.lab.host(owner);
    await host.silence(direction);
    return { what: `cable lost ${direction}`, node: owner, heal: () => host.hear() };
  },
});

const CABLES: readonly Nemesis[] = [
  {
    name: "cable-carrier",
    async strike(hosts, owner) {
      const host = hosts.lab.host(owner);
      await host.unplug();
      return { what: "cable pulled", node: owner, heal: () => host.plug() };
    },
  },
  silence("cable-silent", "both"),
  silence("loss-out", "out"),
  silence("loss-in", "in"),
];

const AROUND: readonly Nemesis[] = [
  {
    name: "store-majority",
    async strike(hosts, _, random) {
      const kept = pick(NODES, random);
      for (const node of others(kept)) hosts.kill(node, "store", "SIGKILL");
      const heal = async () => {
        for (const { host, start } of hosts.members) if (host.name !== kept) start();
      };
      return { what: "majority of the store lost", node: kept, heal };
    },
  },
  {
    name: "slow-fsync",
    whyNot: () => (existsSync("/usr/bin/strace") ? null : "strace is not on this machine"),
    async strike(hosts) {
      const inject = `inject=fsync,fdatasync:delay_exit=${FSYNC_DELAY_US}`;
      const tracers = NODES.flatMap((node) =>
        hosts
          .pids(node, "store")
          .map((pid) =>
            hosts.lab
              .host(node)
              .start("strace", [
                "-f",
                "-qq",
                "-o",
                "/dev/null",
                "-e",
                "fsync,fdatasync",
                "-e",
                inject,
                "-p",
                `${pid}`,
              ]),
          ),
      );
      const heal = async () => {
        const ended = tracers.map((tracer) => new Promise((resolve) => tracer.once("exit", resolve)));
        for (const tracer of tracers) tracer.kill("SIGINT");
        await Promise.all(ended);
      };
      return { what: `every fsync of the store ${FSYNC_DELAY_US / 1000} ms later`, node: NODES[0], heal };
    },
  },
  {
    name: "disk-full",
    hosts: { dataBytes: 4 * 1024 * 1024 },
    async strike(hosts, owner, random) {
      const file = join(hosts.dataOf(owner), "filling");
      fill(file);
      // Sometimes it has to give away what it has, on a disk that takes nothing.
      if (random() < 0.5) await hosts.witness.ask("order", null);
      return { what: "disk full", node: owner, heal: async () => rmSync(file, { force: true }) };
    },
  },
  {
    name: "foreign-owner",
    hosts: { strangers: [STRANGER] },
    async strike(hosts, owner) {
      const stranger = hosts.lab.host(STRANGER);
      await stranger.plant(`${ADDRESS}/24`);
      await stranger.run("arping", ["-U", "-c", "1", "-I", "eth0", ADDRESS]);
      return {
        what: "a stranger has the address",
        node: owner,
        heal: () => stranger.unplant(`${ADDRESS}/24`),
      };
    },
  },
  {
    name: "wall-clock",
    whyNot: () => (existsSync(FAKE_TIME) ? null : "faketime is not on this machine"),
    hosts: {
      wrapper: (node, directory) => [
        ...["env", `LD_PRELOAD=${FAKE_TIME}`, "DONT_FAKE_MONOTONIC=1", "FAKETIME_NO_CACHE=1"],
        `FAKETIME_TIMESTAMP_FILE=${setClock(directory, node, 0)}`,
      ],
    },
    async strike(hosts, owner, random) {
      const seconds = Math.round((random() - 0.5) * 200_000);
      setClock(hosts.lab.directory, owner, seconds);
      const heal = async () => void setClock(hosts.lab.directory, owner, 0);
      return { what: `wall clock moved by ${seconds} s`, node: owner, heal };
    },
  },
  {
    name: "move-to-the-cut",
    async strike(hosts, owner, random) {
      const target = pick(others(owner), random);
      const host = hosts.lab.host(target);
      const cut = host.silence("both");
      if (random() < 0.5) await cut;
      await hosts.witness.ask("order", target);
      await cut;
      return { what: "move to a node that is cut off", node: target, heal: () => host.hear() };
    },
  },
];

export const NEMESES: readonly Nemesis[] = [...KILLS, ...NODES_LOST, ...CABLES, ...AROUND];

/** Until the file system takes no more. */
function fill(file: string): void {
  const block = Buffer.alloc(64 * 1024);
  const handle = openSync(file, "w");
  try {
    for (;;) writeSync(handle, block);
  } catch {
    closeSync(handle);
  }
}

function setClock(directory: string, node: string, seconds: number): string {
  const file = join(directory, `clock-${node}`);
  writeFileSync(file, `${seconds < 0 ? "" : "+"}${seconds}\n`);
  return file;
}
