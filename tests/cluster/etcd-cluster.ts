import { type ChildProcess, spawn } from "node:child_process";
import { randomInt } from "node:crypto";
import { once } from "node:events";
import { accessSync, constants, existsSync } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { get, type IncomingMessage } from "node:http";
import { get as getSecurely } from "node:https";
import { type AddressInfo, createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";

/** A real etcd of three members on loopback addresses, with data in memory where that can be had. */
export interface EtcdMember {
  readonly name: string;
  readonly endpoint: string;
  kill(signal: NodeJS.Signals): void;
  /** Starts it again with its data, after it has ended. */
  restart(): Promise<void>;
}

export interface EtcdCluster {
  readonly members: readonly [EtcdMember, EtcdMember, EtcdMember];
  readonly endpoints: readonly string[];
  stop(): Promise<void>;
}

/** The etcd of this machine, or null. */
export function findEtcd(): string | null {
  for (const directory of (process.env.PATH ?? "").split(delimiter)) {
    try {
      const program = join(directory, "etcd");
      accessSync(program, constants.X_OK);
      return program;
    } catch {
      // Not there; the next one.
    }
  }
  return null;
}

/** Only so that a test ends whose etcd cannot begin. */
const READY_MS = 180_000;

class Member implements EtcdMember {
  readonly name: string;
  readonly endpoint: string;
  readonly #program: string;
  readonly #args: readonly string[];
  #process: ChildProcess | null = null;

  constructor(program: string, name: string, endpoint: string, args: readonly string[]) {
    this.#program = program;
    this.name = name;
    this.endpoint = endpoint;
    this.#args = args;
  }

  start(): void {
    this.#process = spawn(this.#program, this.#args, { stdio: "ignore" });
  }

  kill(signal: NodeJS.Signals): void {
    this.#process?.kill(signal);
  }

  async ended(): Promise<void> {
    const process = this.#process;
    if (process !== null && process.exitCode === null && process.signalCode === null)
      await once(process, "exit");
    this.#process = null;
  }

  async restart(): Promise<void> {
    await this.ended();
    this.start();
  }
}

/** How clients are let in: TLS by this certificate, which signs itself, and for how long a login lasts. */
export interface EtcdAccess {
  readonly certFile: string;
  readonly keyFile: string;
  readonly tokenSeconds: number;
}

/** etcd's own settings, milliseconds. */
const ELECTION = { heartbeatMs: 100, electionMs: 1_000 };
/** For tests that are not about the loss of a leader: one that stands still for seconds remains the leader. */
export const CALM_ELECTION = { heartbeatMs: 250, electionMs: 10_000 };

/** Three members that have a leader. */
export async function startEtcd(
  program: string,
  access: EtcdAccess | null = null,
  { heartbeatMs, electionMs }: typeof ELECTION = ELECTION,
): Promise<EtcdCluster> {
  const directory = await mkdtemp(
    join(existsSync("/dev/shm") ? "/dev/shm" : tmpdir(), "lockstep-test-etcd-"),
  );
  const ports = await freePorts(6);
  const peers = [0, 1, 2].map((index) => `http://127.0.0.1:${ports[index]}`);
  const clients = [3, 4, 5].map(
    (index) => `${access === null ? "http" : "https"}://127.0.0.1:${ports[index]}`,
  );
  const initial = peers.map((peer, index) => `m${index}=${peer}`).join(",");
  const member = (index: 0 | 1 | 2): Member => {
    const [peer = "", client = ""] = [peers[index], clients[index]];
    return new Member(program, `m${index}`, client, [
      ...["--name", `m${index}`, "--data-dir", join(directory, `m${index}`)],
      ...["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer],
      ...["--listen-client-urls", client, "--advertise-client-urls", client],
      ...["--initial-cluster", initial, "--initial-cluster-token", directory],
      ...(access === null
        ? []
        : [
            ...["--cert-file", access.certFile, "--key-file", access.keyFile],
            ...["--auth-token-ttl", String(access.tokenSeconds)],
          ]),
      ...["--heartbeat-interval", String(heartbeatMs), "--election-timeout", String(electionMs)],
      ...["--log-level", "error"],
    ]);
  };
  const members = [member(0), member(1), member(2)] as const;
  for (const each of members) each.start();
  const stop = async () => {
    for (const each of members) {
      each.kill("SIGCONT");
      each.kill("SIGKILL");
    }
    await Promise.all(members.map((each) => each.ended()));
    await rm(directory, { recursive: true, force: true });
  };
  try {
    const ca = access === null ? null : await readFile(access.certFile, "utf8");
    await Promise.all(clients.map((client) => untilHealthy(client, ca)));
    return { members, endpoints: clients, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

async function untilHealthy(endpoint: string, ca: string | null): Promise<void> {
  for (const until = performance.now() + READY_MS; ; ) {
    if (/"health":"true"/.test(await readHealth(endpoint, ca))) return;
    if (performance.now() > until) throw new Error(`etcd at ${endpoint} is not ready`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** What the member says of itself; empty when it says nothing. */
async function readHealth(endpoint: string, ca: string | null): Promise<string> {
  try {
    const request = (ca === null ? get : getSecurely)(`${endpoint}/health`, {
      timeout: 2000,
      ...(ca === null ? {} : { ca }),
    });
    const [response] = (await once(request, "response")) as [IncomingMessage];
    return Buffer.concat(await response.toArray()).toString();
  } catch {
    return "";
  }
}

/** Below the ports that the system gives to whoever asks for any: nobody is given one of these between two uses. */
const [PORT_FIRST, PORT_LAST] = [10_240, 32_000] as const;

/** Ports that nobody has at the moment. Held together until all are found, so that they differ. */
export async function freePorts(count: number): Promise<number[]> {
  const servers: Server[] = [];
  while (servers.length < count) {
    const server = createServer();
    server.listen(randomInt(PORT_FIRST, PORT_LAST), "127.0.0.1");
    try {
      await once(server, "listening");
      servers.push(server);
    } catch {
      // Somebody has it; another one.
    }
  }
  const ports = servers.map((server) => (server.address() as AddressInfo).port);
  for (const server of servers) {
    server.close();
    await once(server, "close");
  }
  return ports;
}
