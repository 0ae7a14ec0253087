import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import type { Lab } from "./lab.ts";
import type { LabHost } from "./lab-host.ts";

const READY_MS = 300_000;
const HEALTH = `fetch(process.argv[1] + "/health", { signal: AbortSignal.timeout(2000) })
  .then((answer) => answer.text()).then((text) => console.log(text), () => console.log("not there"));`;

export interface LabEtcdMember {
  readonly host: LabHost;
  /** As the other hosts reach it. */
  readonly endpoint: string;
  /** Starts it again with its data, after whatever ended it. */
  start(): void;
}

/** etcd's own settings. */
const ELECTION = { heartbeatMs: 100, electionMs: 1_000 };

/**
 * An etcd with one member on each of these hosts; its data in the lab's directory. A member is one of its host's
 * processes: it freezes and dies with the host.
 */
export async function startLabEtcd(
  lab: Lab,
  program: string,
  names: readonly string[],
  { heartbeatMs, electionMs }: typeof ELECTION = ELECTION,
): Promise<LabEtcdMember[]> {
  const directory = join(lab.directory, "etcd");
  await mkdir(directory, { recursive: true });
  const hosts = names.map((name) => lab.host(name));
  const peer = (host: LabHost) => `http://${host.address}:2380`;
  const initial = hosts.map((host) => `${host.name}=${peer(host)}`).join(",");
  const members = hosts.map((host) => {
    const endpoint = `http://${host.address}:2379`;
    const args = [
      ...["--name", host.name, "--data-dir", join(directory, host.name)],
      ...["--listen-peer-urls", peer(host), "--initial-advertise-peer-urls", peer(host)],
      ...["--listen-client-urls", endpoint, "--advertise-client-urls", endpoint],
      ...["--initial-cluster", initial, "--initial-cluster-token", directory],
      ...["--heartbeat-interval", String(heartbeatMs), "--election-timeout", String(electionMs)],
      ...["--log-level", "error"],
    ];
    return { host, endpoint, start: () => void host.start(program, args) };
  });
  for (const member of members) member.start();
  const until = performance.now() + READY_MS;
  for (const { host, endpoint } of members) {
    while (!/"health":"true"/.test((await host.run(process.execPath, ["-e", HEALTH, endpoint])).stdout))
      if (performance.now() > until) throw new Error(`etcd at ${endpoint} is not ready`);
  }
  return members;
}
