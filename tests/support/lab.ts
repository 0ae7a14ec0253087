import { spawn } from "node:child_process";
import { accessSync, constants, existsSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { LAB_INTERFACE, LabHost, runToEnd } from "./lab-host.ts";
import {
  labPrefix,
  processesIn,
  type Reaper,
  removeLab,
  sweepDeadLabs,
  watchOverLab,
} from "./lab-namespaces.ts";

/**
 * Real hosts on a real switch, on one machine: network namespaces, each with one cable (a veth pair) to a bridge that
 * stands in a namespace of its own, so that nothing of it is to be seen in the machine's own network.
 *
 *     const reason = whyNoLab();                     // null, or why the test is to be skipped
 *     const lab = await openLab(["a", "b", "client"]);
 *     t.after(() => lab.close());
 *     const a = lab.host("a");                       // eth0: 10.77.0.1/24, fd77::1/64, no default route
 *     await a.must("ip", "addr");                    // to its end; `start` for what goes on
 *     await a.unplug();  await a.plug();             // with loss of carrier
 *     await a.silence("out");  await a.hear();       // without: one direction, or both
 *     await a.killAll();  await a.freezeAll();  a.thawAll();
 *     await lab.host("client").plant("10.77.0.50/24");   // a foreign owner
 *
 * Beside it: lab-truth.ts (who has an address, who listens, every 20 ms), lab-probe.ts (what a client sees, every 5 ms),
 * lab-etcd.ts (a store on the hosts). All speak one clock, `labNow`.
 *
 * The test itself is not in the lab: it reaches no address of it. Whatever has to, is started on a host. File systems and
 * process ids are the machine's own. How things end is told in lab-namespaces.ts.
 */
export class Lab {
  /** Private to this lab, in memory where that can be had; removed with it. */
  readonly directory: string;
  readonly #hosts: ReadonlyMap<string, LabHost>;
  readonly #prefix: string;
  readonly #reaper: Reaper;

  constructor(prefix: string, directory: string, hosts: ReadonlyMap<string, LabHost>, reaper: Reaper) {
    this.#prefix = prefix;
    this.directory = directory;
    this.#hosts = hosts;
    this.#reaper = reaper;
  }

  get hosts(): LabHost[] {
    return [...this.#hosts.values()];
  }

  host(name: string): LabHost {
    const host = this.#hosts.get(name);
    if (host === undefined) throw new Error(`no host ${name} in the lab`);
    return host;
  }

  /** Ends every process, removes every namespace and the directory. */
  async close(): Promise<void> {
    await removeLab(this.#prefix, this.directory);
    this.#reaper.release();
  }
}

/** Milliseconds on the clock that all processes of this machine share (CLOCK_MONOTONIC). */
export function labNow(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}

/** Why there can be no lab here, in words for a skipped test; null: there can. */
export function whyNoLab(...more: readonly string[]): string | null {
  if (process.platform !== "linux") return "needs network namespaces, which are Linux's";
  if (process.getuid?.() !== 0) return "needs root, to make network namespaces";
  const missing = ["ip", "nft", "unshare", ...more].filter((program) => findProgram(program) === null);
  return missing.length === 0 ? null : `needs ${missing.join(", ")}, not on this machine`;
}

/** Where a program is, also one for administrators, which a user's PATH may lack. */
export function findProgram(program: string): string | null {
  const directories = `${process.env.PATH ?? ""}${delimiter}/usr/sbin${delimiter}/sbin`.split(delimiter);
  return (
    directories
      .map((directory) => join(directory, program))
      .find((path) => {
        try {
          accessSync(path, constants.X_OK);
          return true;
        } catch {
          return false;
        }
      }) ?? null
  );
}

let opened = 0;

/** Makes a lab with these hosts; names of at most 10 letters and digits. */
export async function openLab(names: readonly string[]): Promise<Lab> {
  const parent = existsSync("/dev/shm") ? "/dev/shm" : tmpdir();
  await sweepDeadLabs(parent);
  const prefix = labPrefix(opened++);
  const directory = join(parent, prefix);
  const reaper = watchOverLab(prefix, directory);
  try {
    await mkdir(directory, { mode: 0o700 });
    const places = names.map((name, index) => ({
      name,
      namespace: `${prefix}-${name}`,
      switchNamespace: `${prefix}-switch`,
      port: `to-${name}`,
      address: `10.77.0.${index + 1}`,
      address6: `fd77::${(index + 1).toString(16)}`,
    }));
    const switchNamespace = `${prefix}-switch`;
    await batch([], [switchNamespace, ...places.map((place) => place.namespace)].map(addNamespace));
    await batch(
      ["-n", switchNamespace],
      [
        "link add switch type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
        "link set switch up",
        ...places.flatMap(({ port, namespace }) => [
          `link add ${port} type veth peer name ${LAB_INTERFACE} netns ${namespace}`,
          `link set ${port} master switch up`,
        ]),
      ],
    );
    const hosts = new Map<string, LabHost>();
    for (const place of places) {
      const anchor = spawn("ip", ["netns", "exec", place.namespace, "sleep", "infinity"], {
        stdio: "ignore",
      });
      anchor.on("error", () => {});
      anchor.unref();
      if (anchor.pid === undefined) throw new Error("cannot start a process in a namespace");
      for (const { pid } = anchor; !processesIn(place.namespace).includes(pid); ) await pause();
      const host = new LabHost(place, anchor.pid);
      hosts.set(place.name, host);
      // Or the address for the link itself cannot be used for a second and more.
      await host.must("/bin/sh", "-c", "echo 0 > /proc/sys/net/ipv6/conf/all/accept_dad");
      await batch(
        ["-n", place.namespace],
        [
          "link set lo up",
          `link set ${LAB_INTERFACE} up`,
          `addr add ${place.address}/24 dev ${LAB_INTERFACE}`,
          `addr add ${place.address6}/64 dev ${LAB_INTERFACE} nodad`,
        ],
      );
    }
    return new Lab(prefix, directory, hosts, reaper);
  } catch (error) {
    await removeLab(prefix, directory);
    reaper.release();
    throw error;
  }
}

const pause = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 1));

const addNamespace = (name: string): string => `netns add ${name}`;

async function batch(options: readonly string[], lines: readonly string[]): Promise<void> {
  const { status, stderr } = await runToEnd("ip", [...options, "-batch", "-"], `${lines.join("\n")}\n`);
  if (status !== 0) throw new Error(`the lab cannot be made: ${stderr}`);
}
