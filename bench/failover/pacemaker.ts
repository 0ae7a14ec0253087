import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type Lab, openLab } from "../../tests/support/lab.ts";
import { hasAddress } from "../../tests/support/lab-look.ts";
import { ADDRESS, type Scenario, sleep } from "./contestant.ts";
import { startResponder } from "./lockstep.ts";

const NODE = fileURLToPath(new URL("../../tests/cluster/pacemaker-node.sh", import.meta.url));
const HOSTS = ["a", "b"] as const;
const GIVE_UP_MS = 90_000;

/** Two nodes of Debian's Pacemaker and Corosync with an address alone and a hot standby service; no fencing. */
export class PacemakerHosts {
  readonly lab: Lab;
  readonly #directory: string;

  static async open(): Promise<PacemakerHosts> {
    const hosts = new PacemakerHosts(await openLab([...HOSTS, "client"]));
    for (const name of HOSTS) hosts.#boot(name);
    return hosts;
  }

  private constructor(lab: Lab) {
    this.lab = lab;
    this.#directory = join(lab.directory, "pacemaker");
    mkdirSync(join(this.#directory, "app"), { recursive: true });
    for (const name of HOSTS) mkdirSync(join(this.#directory, `app-${name}`));
    writeFileSync(join(this.#directory, "lockstep-service"), "#!/bin/sh\nexit 5\n", { mode: 0o755 });
    const nodes = HOSTS.map(
      (name, index) =>
        ` node {\n  ring0_addr: ${lab.host(name).address}\n  name: ${name}\n  nodeid: ${index + 1}\n }`,
    );
    writeFileSync(
      join(this.#directory, "corosync.conf"),
      `totem {\n version: 2\n cluster_name: bench\n transport: udpu\n token: 3000\n crypto_cipher: none\n crypto_hash: none\n}\nlogging {\n to_syslog: no\n to_stderr: yes\n}\nquorum {\n provider: corosync_votequorum\n two_node: 1\n wait_for_all: 0\n}\nnodelist {\n${nodes.join("\n")}\n}\n`,
    );
    writeFileSync(join(this.#directory, "cib.xml"), CIB);
  }

  #boot(name: string): void {
    const own = ["--mount", "--ipc", "--pid", "--fork", "--mount-proc", "--kill-child"];
    const host = this.lab.host(name);
    host.start("unshare", [...own, "/bin/bash", NODE, name, this.#directory]);
    startResponder(host);
  }

  #owners = () => HOSTS.filter((name) => hasAddress(this.lab.host(name), ADDRESS));

  async #until(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
    for (const end = performance.now() + GIVE_UP_MS; !(await holds()); await sleep(20))
      if (performance.now() > end) throw new Error(`Pacemaker: never ${what}`);
  }

  /** Runs a program inside a node. */
  async #inside(name: string, program: string, ...args: string[]): Promise<string> {
    const host = this.lab.host(name);
    const init = host.processes().find((pid) => /^NSpid:\s+\d+\s+1$/m.test(statusOf(pid)));
    if (init === undefined) return "";
    const into = ["-t", String(init), "-m", "-u", "-i", "-n", "-p"];
    return (await host.run("nsenter", [...into, program, ...args])).stdout;
  }

  scenario(fault: "move" | "node"): Scenario {
    let owner = "";
    let off: string | null = null;
    return {
      name: fault === "move" ? "Pacemaker: moved" : "Pacemaker: node killed",
      prepare: async () => {
        if (off !== null) {
          await this.lab.host(off).hear();
          await this.lab.host(off).run("ip", ["addr", "del", `${ADDRESS}/24`, "dev", "eth0"]);
          this.#boot(off);
        }
        off = null;
        await this.#until("both online", async () =>
          /Online: \[ a b \]/.test(await this.#inside("a", "crm_mon", "-1")),
        );
        await this.#inside("a", "crm_resource", "--clear", "--resource", "IP");
        await this.#until("one owner", () => this.#owners().length === 1);
        await sleep(2_000);
        owner = this.#owners()[0] ?? "";
      },
      fault: async () => {
        const other = owner === "a" ? "b" : "a";
        if (fault === "move") {
          await this.#inside(owner, "crm_resource", "--move", "--resource", "IP", "--node", other);
          return [];
        }
        off = owner;
        const host = this.lab.host(owner);
        await host.silence("both");
        await host.killAll();
        return [owner];
      },
      settle: async () => {
        await this.#until("another owner", () => this.#owners().some((name) => name !== owner));
        await sleep(1_000);
      },
    };
  }

  close(): Promise<void> {
    return this.lab.close();
  }
}

const CIB = `<cib crm_feature_set="3.16.1" validate-with="pacemaker-3.9" epoch="1" num_updates="0" admin_epoch="1">
<configuration><crm_config><cluster_property_set id="options"><nvpair id="o1" name="stonith-enabled" value="false"/><nvpair id="o2" name="dc-deadtime" value="2s"/><nvpair id="o3" name="no-quorum-policy" value="ignore"/></cluster_property_set></crm_config><nodes/><resources>
<primitive id="IP" class="ocf" provider="heartbeat" type="IPaddr2">
<instance_attributes id="IP-values"><nvpair id="i1" name="ip" value="${ADDRESS}"/><nvpair id="i2" name="cidr_netmask" value="24"/><nvpair id="i3" name="nic" value="eth0"/></instance_attributes>
<meta_attributes id="IP-meta"><nvpair id="m1" name="resource-stickiness" value="100"/></meta_attributes>
<operations><op id="IP-monitor" name="monitor" interval="1s" timeout="20s"/></operations>
</primitive></resources><constraints/></configuration><status/></cib>
`;

function statusOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/status`, "utf8");
  } catch {
    return "";
  }
}
