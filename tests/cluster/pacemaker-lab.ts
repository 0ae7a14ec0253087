import { cpSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type Lab, openLab } from "../support/lab.ts";
import type { LabHost, RunAnswer } from "../support/lab-host.ts";

const NODE = fileURLToPath(new URL("pacemaker-node.sh", import.meta.url));
const AGENT = fileURLToPath(new URL("../../packages/cluster/ocf/lockstep-service", import.meta.url));
const MAIN = fileURLToPath(new URL("../../packages/cli/src/main.ts", import.meta.url));
const PATIENCE_MS = 600_000;
const LOOK_MS = 200;

/**
 * A cluster of Debian's Pacemaker and Corosync on hosts of a lab. Each node has mounts, processes, messages and a host name
 * of its own, so that several live on one machine; killing its first process is a loss of power.
 */
export class PacemakerLab {
  readonly lab: Lab;
  readonly names: readonly string[];
  readonly directory: string;
  readonly #inits = new Map<string, number>();

  static async open(names: readonly string[]): Promise<PacemakerLab> {
    const pacemaker = new PacemakerLab(await openLab(names), names);
    pacemaker.#write();
    for (const name of names) pacemaker.boot(name);
    return pacemaker;
  }

  private constructor(lab: Lab, names: readonly string[]) {
    this.lab = lab;
    this.names = names;
    this.directory = join(lab.directory, "pacemaker");
  }

  /** The service's configuration on one node. */
  configFile = (name: string) => join(this.directory, `app-${name}`, "JobService.toml");

  #write(): void {
    mkdirSync(join(this.directory, "app"), { recursive: true });
    cpSync(AGENT, join(this.directory, "lockstep-service"));
    const program = join(this.directory, "lockstep");
    writeFileSync(program, `#!/bin/sh\nexec '${process.execPath}' '${MAIN}' "$@"\n`, { mode: 0o755 });
    for (const name of this.names) {
      mkdirSync(join(this.directory, `app-${name}`));
      writeFileSync(
        this.configFile(name),
        '[JobProvider]\nHub = "http://127.0.0.1:9"\n[[JobServiceDestination]]\nQueue = "JOBS"\n[FileLogWriter]\nOutPutFile = "JobService.log"\n[HTTPStatus]\nPort = 0\n',
      );
    }
    writeFileSync(
      join(this.directory, "corosync.conf"),
      corosyncConf(this.names.map((name) => this.lab.host(name))),
    );
    writeFileSync(join(this.directory, "cib.xml"), cib("/mnt/app/JobService.toml", "/mnt/lockstep"));
  }

  /** Switches a node on. */
  boot(name: string): void {
    // What others unmount outside goes here too: it would keep its device until this node ends.
    const own = [
      "--mount",
      "--propagation",
      "slave",
      "--ipc",
      "--pid",
      "--fork",
      "--mount-proc",
      "--kill-child",
    ];
    this.lab.host(name).start("unshare", [...own, "/bin/bash", NODE, name, this.directory]);
  }

  /** The first process of a node, as this machine numbers it. */
  #init(name: string): number {
    const known = this.#inits.get(name);
    if (known !== undefined) return known;
    const found = this.lab
      .host(name)
      .processes()
      .find((pid) => /^NSpid:\s+\d+\s+1$/m.test(statusOf(pid)));
    if (found === undefined) throw new Error(`${name} has no first process`);
    this.#inits.set(name, found);
    return found;
  }

  /** Runs a program inside a node. */
  run(name: string, program: string, ...args: string[]): Promise<RunAnswer> {
    const into = ["-t", String(this.#init(name)), "-m", "-u", "-i", "-n", "-p"];
    return this.lab.host(name).run("nsenter", [...into, program, ...args]);
  }

  /** Processes of the job service on a node. */
  serving(name: string): number[] {
    return this.lab
      .host(name)
      .processes()
      .filter((pid) => commandOf(pid).includes(" service run "));
  }

  /** Loses its power. */
  async kill(name: string): Promise<void> {
    await this.lab.host(name).killAll();
    this.#inits.delete(name);
  }

  async until<T>(what: string, look: () => Promise<T | null> | T | null): Promise<T> {
    for (const end = performance.now() + PATIENCE_MS; ; ) {
      const found = await look();
      if (found !== null) return found;
      if (performance.now() > end) throw new Error(`never: ${what}\n${await this.#state()}`);
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    }
  }

  /** What each node says of the cluster, and what it runs. */
  async #state(): Promise<string> {
    const said: string[] = [];
    for (const name of this.names) {
      const { stdout } = await this.run(name, "crm_mon", "-1", "-r", "-f");
      const log = await this.run(name, "tail", "-n", "40", "/var/log/pacemaker/pacemaker.log");
      said.push(`${name}: ${stdout}`, this.lab.host(name).processes().map(commandOf).join("\n"), log.stdout);
    }
    return said.join("\n");
  }

  close(): Promise<void> {
    return this.lab.close();
  }
}

function corosyncConf(hosts: readonly LabHost[]): string {
  const nodes = hosts.map(
    ({ name, address }, index) =>
      ` node {\n  ring0_addr: ${address}\n  name: ${name}\n  nodeid: ${index + 1}\n }\n`,
  );
  return `totem {
 version: 2
 cluster_name: lab
 transport: udpu
 token: 10000
 crypto_cipher: none
 crypto_hash: none
}
logging {
 to_syslog: no
 to_stderr: yes
}
quorum {
 provider: corosync_votequorum
 two_node: 1
 wait_for_all: 0
}
nodelist {
${nodes.join("")}}
`;
}

/**
 * What docs/operating/pacemaker.md says in commands. No fencing: nothing here has a power switch, so a slow token keeps a
 * node that stands still for seconds from being taken for dead.
 */
function cib(config: string, program: string): string {
  const set = (id: string, values: Readonly<Record<string, string>>) =>
    Object.entries(values)
      .map(([name, value]) => `<nvpair id="${id}-${name}" name="${name}" value="${value}"/>`)
      .join("");
  return `<cib crm_feature_set="3.0.14" validate-with="pacemaker-3.0" epoch="1" num_updates="0" admin_epoch="1">
<configuration><crm_config><cluster_property_set id="options">${set("options", {
    "stonith-enabled": "false",
    "dc-deadtime": "2s",
    "no-quorum-policy": "ignore",
  })}</cluster_property_set></crm_config><nodes/><resources>
<primitive id="JOBS" class="ocf" provider="lockstep" type="lockstep-service">
<instance_attributes id="JOBS-values">${set("JOBS", { config, queue: "JOBS", command: program })}</instance_attributes>
<meta_attributes id="JOBS-meta">${set("JOBS-meta", { "resource-stickiness": "100", "migration-threshold": "10" })}</meta_attributes>
<operations>
<op id="JOBS-start" name="start" interval="0" timeout="120s"/><op id="JOBS-stop" name="stop" interval="0" timeout="60s"/>
<op id="JOBS-monitor" name="monitor" interval="2s" timeout="30s"/>
<op id="JOBS-check" name="monitor" interval="7s" timeout="60s"><instance_attributes id="JOBS-deep">${set("JOBS-deep", { OCF_CHECK_LEVEL: "10" })}</instance_attributes></op>
</operations></primitive></resources><constraints/></configuration><status/></cib>
`;
}

function readText(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

const statusOf = (pid: number) => readText(`/proc/${pid}/status`);
const commandOf = (pid: number) => ` ${readText(`/proc/${pid}/cmdline`).replaceAll("\0", " ")} `;
