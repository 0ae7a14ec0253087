import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { hasEnded, isStopped, processesIn } from "./lab-namespaces.ts";

export interface RunAnswer {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Seen from the host: `in` is what it hears, `out` what it says. */
export type Direction = "in" | "out" | "both";

export interface HostPlace {
  readonly name: string;
  readonly namespace: string;
  /** The namespace of the switch, and the name of this host's port there. */
  readonly switchNamespace: string;
  readonly port: string;
  readonly address: string;
  readonly address6: string;
}

/** Its own host name, as a machine has one, without a word of the test reaching a shell. */
const AS_HOST = 'hostname "$0" && exec "$@"';
/** Only so that a test ends whose program hangs. */
const RUN_MS = 300_000;
export const LAB_INTERFACE = "eth0";

/** One machine of a lab: a network namespace, and a cable to the switch. */
export class LabHost implements HostPlace {
  readonly name: string;
  readonly namespace: string;
  readonly switchNamespace: string;
  readonly port: string;
  readonly address: string;
  readonly address6: string;
  /** Keeps `/proc/PID/net` of this host readable from outside; is none of the host's own processes. */
  readonly anchor: number;

  constructor(place: HostPlace, anchor: number) {
    this.name = place.name;
    this.namespace = place.namespace;
    this.switchNamespace = place.switchNamespace;
    this.port = place.port;
    this.address = place.address;
    this.address6 = place.address6;
    this.anchor = anchor;
  }

  /** What to start, and with what, so that it runs on this host: with its network, its host name and its own `/sys`. */
  command(program: string, args: readonly string[]): readonly [string, ...string[]] {
    const inside = ["unshare", "--uts", "--", "/bin/sh", "-c", AS_HOST, this.name, program, ...args];
    return ["ip", "netns", "exec", this.namespace, ...inside];
  }

  /** Starts a program on this host. The process id is the program's own: everything before it replaces itself. */
  start(
    program: string,
    args: readonly string[],
    options: { readonly env?: NodeJS.ProcessEnv; readonly output?: "pipe" | "inherit" | "ignore" } = {},
  ): ChildProcess {
    const [first, ...rest] = this.command(program, args);
    const output = options.output ?? "ignore";
    const child = spawn(first, rest, {
      stdio: ["pipe", output, output === "ignore" ? "ignore" : "inherit"],
      env: options.env ?? process.env,
    });
    child.stdin?.on("error", () => {});
    return child;
  }

  /** Runs a program on this host to its end. `input` is what it reads. */
  async run(program: string, args: readonly string[], input = ""): Promise<RunAnswer> {
    const [first, ...rest] = this.command(program, args);
    return await runToEnd(first, rest, input);
  }

  /** The same, and throws unless it ended well. */
  async must(program: string, ...args: string[]): Promise<string> {
    const answer = await this.run(program, args);
    if (answer.status !== 0) throw new Error(`${this.name}: ${program} ${args.join(" ")}: ${answer.stderr}`);
    return answer.stdout;
  }

  /** The hardware address of its interface. */
  async mac(): Promise<string> {
    const links = JSON.parse(await this.must("ip", "-j", "link", "show", "dev", LAB_INTERFACE)) as {
      address: string;
    }[];
    return links[0]?.address ?? "";
  }

  /** The hardware address at which this host would look for a neighbour; null: it would have to ask. */
  async neighbour(address: string): Promise<string | null> {
    const entries = JSON.parse((await this.must("ip", "-j", "neigh", "show", address)) || "[]") as {
      lladdr?: string;
    }[];
    return entries[0]?.lladdr ?? null;
  }

  /** Pulls the cable out: the host sees that it has no carrier. */
  async unplug(): Promise<void> {
    await this.#switch("ip", ["link", "set", this.port, "down"]);
  }

  async plug(): Promise<void> {
    await this.#switch("ip", ["link", "set", this.port, "up"]);
  }

  /** The switch swallows what this host says, or what it should hear, or both; its carrier stays. */
  async silence(direction: Direction): Promise<void> {
    const hooks = [
      ["out", "ingress"],
      ["in", "egress"],
    ].filter(([name]) => direction === "both" || direction === name);
    const rules = hooks.flatMap(([name, hook]) => [
      `add chain netdev ${this.port} ${name} { type filter hook ${hook} device "${this.port}" priority 0; policy drop; }`,
    ]);
    await this.#switch("nft", ["-f", "-"], [`add table netdev ${this.port}`, ...rules, ""].join("\n"));
  }

  /** Ends every silence. */
  async hear(): Promise<void> {
    const table = `netdev ${this.port}`;
    await this.#switch("nft", ["-f", "-"], `add table ${table}\ndelete table ${table}\n`);
  }

  async #switch(program: string, args: readonly string[], input = ""): Promise<void> {
    const answer = await runToEnd("ip", ["netns", "exec", this.switchNamespace, program, ...args], input);
    if (answer.status !== 0) throw new Error(`switch: ${program} ${args.join(" ")}: ${answer.stderr}`);
  }

  /** Its processes that are alive, without the anchor. */
  processes(): number[] {
    return processesIn(this.namespace).filter((pid) => pid !== this.anchor);
  }

  /** The machine dies: every process at once, and what they fork meanwhile. */
  async killAll(): Promise<void> {
    // On its way to its end a process is in no namespace any more, and may still hold a socket.
    const killed = new Set<number>();
    for (;;) {
      const haveEnded = [...killed].every(hasEnded);
      const pids = this.processes();
      if (haveEnded && pids.length === 0) return;
      for (const pid of pids) {
        send(pid, "SIGKILL");
        killed.add(pid);
      }
      await pause();
    }
  }

  /** The machine stands still; nothing of it runs until `thawAll`. */
  async freezeAll(): Promise<void> {
    for (;;) {
      const running = this.processes().filter((pid) => !isStopped(pid));
      if (running.length === 0) return;
      for (const pid of running) send(pid, "SIGSTOP");
      await pause();
    }
  }

  thawAll(): void {
    for (const pid of this.processes()) send(pid, "SIGCONT");
  }

  /** Gives this host an address that is not its own, as a stranger would: nobody is asked and nobody is told. */
  async plant(cidr: string): Promise<void> {
    await this.must(
      "ip",
      "addr",
      "add",
      cidr,
      "dev",
      LAB_INTERFACE,
      ...(cidr.includes(":") ? ["nodad"] : []),
    );
  }

  async unplant(cidr: string): Promise<void> {
    await this.must("ip", "addr", "del", cidr, "dev", LAB_INTERFACE);
  }
}

const pause = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 2));

function send(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // It has ended.
  }
}

/** Runs a program to its end; a null status: it was killed, by the time limit for one. */
export async function runToEnd(program: string, args: readonly string[], input: string): Promise<RunAnswer> {
  const child = spawn(program, args, {
    stdio: ["pipe", "pipe", "pipe"],
    timeout: RUN_MS,
    killSignal: "SIGKILL",
  });
  let [stdout, stderr] = ["", ""];
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    stderr += text;
  });
  child.stdin.on("error", () => {});
  child.stdin.end(input);
  const [status] = (await once(child, "close")) as [number | null];
  return { status, stdout, stderr };
}
