import { readlinkSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Lab, openLab } from "../../tests/support/lab.ts";
import { hasAddress, listenersOn } from "../../tests/support/lab-look.ts";
import { ADDRESS, PORT, PRIORITY, type Scenario, sleep } from "./contestant.ts";
import { startResponder } from "./lockstep.ts";

const HOSTS = ["a", "b"] as const;
const GIVE_UP_MS = 30_000;

/** Two hosts with a hot standby service, `a` preferred, as anchors of the comparison say. */
export class KeepalivedHosts {
  readonly lab: Lab;
  readonly #advertSeconds: number;

  static async open(advertSeconds: number): Promise<KeepalivedHosts> {
    return new KeepalivedHosts(await openLab([...HOSTS, "client"]), advertSeconds);
  }

  private constructor(lab: Lab, advertSeconds: number) {
    this.lab = lab;
    this.#advertSeconds = advertSeconds;
  }

  #start(name: string): void {
    const file = join(this.lab.directory, `${name}.conf`);
    const preferred = name === "a";
    writeFileSync(
      file,
      `global_defs {\n router_id ${name}\n}\nvrrp_instance VI {\n state BACKUP\n interface eth0\n virtual_router_id 51\n priority ${preferred ? 150 : 100}\n advert_int ${this.#advertSeconds}\n virtual_ipaddress {\n  ${ADDRESS}/24 dev eth0\n }\n}\n`,
    );
    const pid = (kind: string) => join(this.lab.directory, `${name}-${kind}.pid`);
    // What was killed leaves them, and its number may be somebody's by now.
    for (const kind of ["main", "vrrp"]) rmSync(pid(kind), { force: true });
    this.lab
      .host(name)
      .start("chrt", [
        ...["--rr", String(PRIORITY), "keepalived", "--vrrp", "--dont-fork", "--use-file", file],
        ...["--pid", pid("main"), "--vrrp_pid", pid("vrrp")],
      ]);
  }

  #pids(name: string): number[] {
    return this.lab.host(name).processes().filter(isKeepalived);
  }

  async #untilOwner(name: string): Promise<void> {
    const owners = () => HOSTS.filter((each) => hasAddress(this.lab.host(each), ADDRESS)).join();
    for (const end = performance.now() + GIVE_UP_MS; owners() !== name; await sleep(20))
      if (performance.now() > end)
        throw new Error(
          `keepalived: not ${name} but ${owners() || "nobody"} has the address; processes: ${HOSTS.map((each) => `${each} ${this.#pids(each).length}`).join(", ")}`,
        );
  }

  scenario(fault: "stop" | "daemon" | "node"): Scenario {
    const a = this.lab.host("a");
    return {
      name: `keepalived, adverts every ${this.#advertSeconds} s: ${{ stop: "told to end", daemon: "keepalived killed", node: "node killed" }[fault]}`,
      prepare: async () => {
        await a.hear();
        for (const name of HOSTS) {
          if (listenersOn(this.lab.host(name), [PORT]).length === 0) startResponder(this.lab.host(name));
          if (this.#pids(name).length === 0) {
            await this.lab.host(name).run("ip", ["addr", "del", `${ADDRESS}/24`, "dev", "eth0"]);
            this.#start(name);
          }
        }
        await this.#untilOwner("a");
        await sleep(1_000);
      },
      fault: async () => {
        if (fault === "node") {
          await a.silence("both");
          await a.killAll();
          return ["a"];
        }
        for (const pid of this.#pids("a")) process.kill(pid, fault === "stop" ? "SIGTERM" : "SIGKILL");
        return [];
      },
      settle: async () => {
        for (
          const end = performance.now() + GIVE_UP_MS;
          !hasAddress(this.lab.host("b"), ADDRESS);
          await sleep(10)
        )
          if (performance.now() > end) throw new Error("keepalived: the other one does not take over");
        // It takes a while to end, and must not be taken for one that runs.
        while (this.#pids("a").length > 0) await sleep(20);
        await sleep(500);
      },
    };
  }

  close(): Promise<void> {
    return this.lab.close();
  }
}

function isKeepalived(pid: number): boolean {
  try {
    return readlinkSync(`/proc/${pid}/exe`).endsWith("/keepalived");
  } catch {
    return false;
  }
}
