import { type ChildProcess, execFile, spawn } from "node:child_process";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { chmod, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { freePorts } from "./etcd-cluster.ts";

/** A real BIND on a free port of 127.0.0.1, with zones that a key may change. */
export interface NameServerProcess {
  readonly port: number;
  /** As `tsig-keygen` writes it, for nobody else to read. */
  readonly keyFile: string;
  readonly directory: string;
  /** The answer of the server, record by record. */
  dig(name: string, type: string): Promise<string[]>;
  signal(signal: NodeJS.Signals): void;
  kill(): Promise<void>;
  start(): Promise<void>;
  stop(): Promise<void>;
}

const run = promisify(execFile);
/** Only so that a test ends whose server cannot begin. */
const READY_MS = 180_000;
/** An answer is waited for although the server stands still; one that is not there refuses at once. */
const ANSWER_SECONDS = 60;
const ZONES = ["example.test", "77.10.in-addr.arpa", "7.7.d.f.ip6.arpa"];
/** Known to the server, and not to be changed by anybody. */
const FROZEN = "frozen.test";

export async function startNameServer(): Promise<NameServerProcess> {
  const directory = await mkdtemp(join(tmpdir(), "lockstep-test-named-"));
  const keyFile = join(directory, "update.key");
  const port = await freePort();
  const { stdout: key } = await run("/usr/sbin/tsig-keygen", ["-a", "hmac-sha256", "update-key"]);
  await writeFile(keyFile, key, { mode: 0o600 });
  await mkdir(join(directory, "zones"));
  for (const zone of [...ZONES, FROZEN])
    await writeFile(
      join(directory, "zones", zone),
      `$TTL 60\n@ IN SOA ns.${zone}. admin.${zone}. 1 60 60 600 60\n@ IN NS ns.${zone}.\nns IN A 127.0.0.1\n`,
    );
  const zone = (name: string, policy: string) =>
    `zone "${name}" { type primary; file "zones/${name}"; allow-update { ${policy}; }; };`;
  await writeFile(
    join(directory, "named.conf"),
    `${key}
options { directory "${directory}"; pid-file "named.pid"; session-keyfile "session.key"; lock-file none;
  listen-on port ${port} { 127.0.0.1; }; listen-on-v6 { none; }; recursion no; dnssec-validation no; notify no; };
controls { };
${ZONES.map((name) => zone(name, 'key "update-key"')).join("\n")}
${zone(FROZEN, "none")}
`,
  );
  await chmod(directory, 0o700);
  let child: ChildProcess | null = null;
  const dig = async (name: string, type: string) => {
    const { stdout } = await run("/usr/bin/dig", [
      ...["@127.0.0.1", "-p", String(port), "+short", "+tries=1", `+time=${ANSWER_SECONDS}`, name, type],
    ]);
    return stdout
      .split("\n")
      .filter((line) => line !== "")
      .sort();
  };
  const signal = (name: NodeJS.Signals) => void child?.kill(name);
  const kill = async () => {
    if (child !== null && child.exitCode === null && child.signalCode === null) {
      child.kill("SIGKILL");
      await once(child, "exit");
    }
    child = null;
  };
  const start = async () => {
    child = spawn("/usr/sbin/named", ["-g", "-n", "1", "-c", join(directory, "named.conf")], {
      stdio: "ignore",
    });
    for (const until = performance.now() + READY_MS; ; ) {
      const found = await dig("ns.example.test", "A").catch(() => []);
      if (found.length === 1) return;
      if (performance.now() > until || child.exitCode !== null) throw new Error("named is not ready");
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  };
  const stop = async () => {
    await kill();
    await rm(directory, { recursive: true, force: true, maxRetries: 10 });
  };
  try {
    await start();
  } catch (error) {
    await stop();
    throw error;
  }
  return { port, keyFile, directory, dig, signal, kill, start, stop };
}

/** A port that is free both for TCP and for UDP, and that a test which kills the server has again afterwards. */
async function freePort(): Promise<number> {
  for (;;) {
    const [port = 0] = await freePorts(1);
    const server = createServer().listen(port, "127.0.0.1");
    await once(server, "listening");
    const socket = createSocket("udp4");
    const isFree = await new Promise<boolean>((resolve) => {
      socket.once("error", () => resolve(false));
      socket.bind(port, "127.0.0.1", () => resolve(true));
    });
    if (isFree) socket.close();
    server.close();
    await once(server, "close");
    if (isFree) return port;
  }
}
