import { resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { ClusterHosts, NODES, SERVER } from "../../tests/cluster/hosts-lab.ts";
import type { LabHost } from "../../tests/support/lab-host.ts";
import { PORT, PRIORITY, type Scenario } from "./contestant.ts";

const MAIN = resolve(import.meta.dirname, "../../dist/bin/lockstep.mjs");
const RESPONDER = fileURLToPath(new URL("../../tests/support/lab-responder.ts", import.meta.url));
const SERVICE = fileURLToPath(new URL("../../tests/cluster/hosts-service.ts", import.meta.url));

/** What operating/cluster.md recommends of etcd for a lease of one second. */
const FAST_ELECTION = { heartbeatMs: 50, electionMs: 500 };

/**
 * A cluster of three nodes from what ships. Warm: a virtual server of an address alone, the service on every node. The
 * store elects by etcd's own settings, or as is recommended for the fast profile.
 */
export async function openLockstep(
  profile: "default" | "fast",
  isWarm: boolean,
  election: "etcd's own" | "fast" = "etcd's own",
): Promise<ClusterHosts> {
  const service = [
    ...["--service", process.execPath, "--argument", SERVICE, "--argument", String(PORT)],
    ...["--set", `service.probeTcp=127.0.0.1:${PORT}`, "--policy", "service.restartThreshold=1000"],
  ];
  const hosts = await ClusterHosts.open({
    init: ["--profile", profile],
    add: isWarm ? [] : service,
    main: MAIN,
    priority: PRIORITY,
    ...(election === "fast" ? { election: FAST_ELECTION } : {}),
    wrapper: () => ["chrt", "--reset-on-fork", "--rr", String(PRIORITY)],
  });
  try {
    if (isWarm) for (const host of hosts.nodes) startResponder(host);
    await hosts.addServer(["--failover-limit", "1000/1"]);
    return hosts;
  } catch (error) {
    await hosts.close();
    throw error;
  }
}

export function startResponder(host: LabHost): void {
  host.start(process.execPath, [RESPONDER, String(PORT)]);
}

/** The node whose member of the store leads. */
async function findLeader(hosts: ClusterHosts): Promise<string> {
  const ids = new Map<string, string>();
  let leader = "";
  for (const { host, endpoint } of hosts.members) {
    const text = await hosts.client.must("curl", "-s", "-d", "{}", `${endpoint}/v3/maintenance/status`);
    const status = JSON.parse(text) as { header: { member_id: string }; leader: string };
    ids.set(status.header.member_id, host.name);
    leader = status.leader;
  }
  return ids.get(leader) ?? "";
}

export type LockstepFault = "move" | "daemon" | "node" | "node and leader" | "service";

export function lockstepScenario(
  hosts: ClusterHosts,
  name: string,
  fault: LockstepFault,
  isWarm: boolean,
): Scenario {
  let owner = "";
  return {
    name,
    async prepare(random) {
      for (const { name: node } of hosts.nodes) {
        const isOff = hosts.pids(node, "store").length === 0;
        if (isOff) await hosts.powerOn(node);
        else if (hosts.pids(node, "daemon").length === 0) await hosts.startDaemon(node);
        if (isOff && isWarm) startResponder(hosts.lab.host(node));
      }
      for (const node of NODES) await hosts.untilTakesPart(node);
      await hosts.witness.ask("forgive");
      owner = await hosts.untilServing();
      if (fault.startsWith("node")) {
        const leader = await findLeader(hosts);
        const followers = NODES.filter((node) => node !== leader);
        const wanted = fault === "node" ? (followers[Math.floor(random() * 2)] ?? leader) : leader;
        if (owner !== wanted) await hosts.must(owner, "move", SERVER, "--to", wanted);
        owner = await hosts.untilServing((node) => node === wanted);
      }
    },
    async fault() {
      if (fault === "move") await hosts.witness.ask("order", null);
      if (fault === "daemon") hosts.kill(owner, "daemon", "SIGKILL");
      if (fault === "service") hosts.kill(owner, "service", "SIGKILL");
      if (fault.startsWith("node")) {
        await hosts.powerOff(owner);
        return [owner];
      }
      return [];
    },
    async settle() {
      if (fault === "service") {
        await hosts.until("the service ends", () =>
          hosts.pids(owner, "service").length === 0 ? true : null,
        );
        await hosts.untilServing();
      } else await hosts.untilServing((node) => node !== owner);
    },
  };
}

/** How often a virtual server changed its owner by itself while something else went on; nothing should. */
export async function countMoves(
  hosts: ClusterHosts,
  minutes: number,
  load: "busy cores" | "slow fsync",
): Promise<number> {
  const took = async () => (await hosts.witness.ask("history")).filter(({ what }) => what === "took").length;
  const before = await took();
  const busy = ["-e", "for (;;);"];
  const inject = "inject=fsync,fdatasync:delay_exit=100000";
  const children =
    load === "busy cores"
      ? [1, 2, 3, 4].map(() => hosts.client.start(process.execPath, busy))
      : NODES.flatMap((node) =>
          hosts.pids(node, "store").map((pid) => {
            const trace = ["-f", "-qq", "-o", "/dev/null", "-e", "fsync,fdatasync", "-e", inject];
            return hosts.lab.host(node).start("strace", [...trace, "-p", String(pid)]);
          }),
        );
  await new Promise((done) => setTimeout(done, minutes * 60_000));
  const ended = children.map((child) => new Promise((done) => child.once("exit", done)));
  for (const child of children) child.kill(load === "busy cores" ? "SIGKILL" : "SIGINT");
  await Promise.all(ended);
  return (await took()) - before;
}

/** How long the service needs by itself from its start until it listens. */
export async function ownStart(hosts: ClusterHosts): Promise<number> {
  const script = `const began = performance.now(); const { spawn } = require("node:child_process");
const child = spawn(process.execPath, [${JSON.stringify(SERVICE)}, "8999"]);
const look = () => require("node:net").connect(8999, "127.0.0.1").on("connect", () => { console.log(performance.now() - began); child.kill("SIGKILL"); process.exit(0); }).on("error", () => setTimeout(look, 2));
look();`;
  const times: number[] = [];
  for (let run = 0; run < 5; run++)
    times.push(Number(await hosts.client.must(process.execPath, "-e", script)));
  return times.sort((a, b) => a - b)[2] ?? 0;
}
