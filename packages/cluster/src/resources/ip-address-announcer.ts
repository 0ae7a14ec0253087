import { type ChildProcess, spawn } from "node:child_process";
import { connect } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { refusalText, startOrRefusal } from "../refused-start.ts";
import { BARE_ENVIRONMENT, runBounded } from "./bounded-command.ts";
import { letGo } from "./ip-address-link.ts";
import type { AddressPeer, IpAddressSettings } from "./ip-address-settings.ts";

/**
 * Tells the neighbours where an address is now: gratuitous ARP (RFC 5227, 3; RFC 826) or an unsolicited neighbour
 * advertisement (RFC 4861, 7.2.6), and asks whether they have understood and who else answers for it.
 *
 * One program sends one packet and no more: a program that repeats by itself outlives the ownership and pulls clients
 * back. The next one is always started in advance and waits for a line to be released, since starting a program takes
 * longer than the packet; without its line it does nothing, and it ends with us.
 *
 * The kernel announces nothing here by itself: not an IPv4 address at all, and not an IPv6 address without duplicate
 * detection, which would cost a second (`ndisc_notify` tried, Linux 6.18).
 */
const HELD = {
  4: 'IFS= read -r device && exec "$0" -q "$2" -c 1 -w 1 -I "$device" "$1"',
  6: 'IFS= read -r device && exec "$0" -t na -U -i "$device" -T "$1" send',
} as const;
const REFILL_MS = 20;

export class Announcer {
  readonly #program: string;
  readonly #settings: IpAddressSettings;
  #held: ChildProcess | null = null;
  /** Released and not ended yet. */
  readonly #sending = new Set<ChildProcess>();
  #count = 0;

  /** `program`: `arping` for IPv4, `ndptool` for IPv6. */
  constructor(program: string, settings: IpAddressSettings) {
    this.#program = program;
    this.#settings = settings;
  }

  warm(): void {
    if (this.#held !== null) return;
    const child = this.#start();
    // Tried again when something is to be announced, and told then.
    this.#held = child instanceof Error ? null : child;
  }

  /** Sends one announcement; the packet leaves at once. Resolves with what went wrong, or null, when the program ends. */
  announce(device: string): Promise<string | null> {
    const child = this.#held ?? this.#start();
    this.#held = null;
    if (child instanceof Error) return Promise.resolve(refusalText(child));
    this.#sending.add(child);
    let said = "";
    child.stderr?.setEncoding("utf8").on("data", (text: string) => {
      said += text;
    });
    const ended = new Promise<string | null>((resolve) => {
      child.once("error", (error) => resolve(refusalText(error)));
      child.once("close", (status) =>
        resolve(status === 0 ? null : said.trim().replace(/\s*\n\s*/g, "; ") || `status ${status}`),
      );
    });
    child.stdin?.end(`${device}\n`);
    setTimeout(() => this.warm(), REFILL_MS).unref();
    return ended;
  }

  /** What has not been sent by now must not be: on a busy machine it would come after the next owner's. */
  silence(): void {
    for (const child of this.#sending) child.kill("SIGKILL");
  }

  close(): void {
    this.#held?.stdin?.end();
    this.#held = null;
  }

  #start(): ChildProcess | Error {
    const { family, address } = this.#settings;
    // Some devices learn from questions only, others from answers only.
    const kind = this.#count++ % 2 === 0 ? "-U" : "-A";
    const child = startOrRefusal(
      (): ChildProcess =>
        spawn("/bin/sh", ["-c", HELD[family], this.#program, address, kind], {
          cwd: "/",
          env: BARE_ENVIRONMENT,
          stdio: ["pipe", "ignore", "pipe"],
          detached: true,
        }),
    );
    if (child instanceof Error) return child;
    letGo(child);
    child.on("error", () => {});
    child.stdin?.on("error", () => {});
    child.once("exit", () => {
      this.#sending.delete(child);
      if (this.#held === child) this.#held = null;
    });
    return child;
  }

  /** Who else answers for the address on this cable: a hardware address, or for IPv6 the address; null: nobody in time. */
  async findForeignOwner(device: string): Promise<string | null> {
    const { family, address, probeMs } = this.#settings;
    if (family === 6) return await this.#hearsAdvertisement(device);
    const probe = ["-D", "-c", "1", "-w", String(Math.ceil(probeMs / 1000)), "-I", device, address];
    const { output } = await runBounded(this.#program, probe, { limitMs: probeMs });
    return /reply from \S+ \[([0-9A-Fa-f:]+)\]/.exec(output)?.[1]?.toLowerCase() ?? null;
  }

  /** Asks for the address and listens; we do not hear ourselves say that it is ours. */
  async #hearsAdvertisement(device: string): Promise<string | null> {
    const { address, probeMs } = this.#settings;
    const monitor = startOrRefusal(() =>
      spawn(this.#program, ["-t", "na", "-i", device, "monitor"], {
        cwd: "/",
        env: BARE_ENVIRONMENT,
        stdio: ["ignore", "pipe", "ignore"],
      }),
    );
    // As where the question itself cannot be sent: nobody was heard.
    if (monitor instanceof Error) return null;
    let heard = "";
    monitor.stdout.setEncoding("latin1").on("data", (text: string) => {
      heard += text;
    });
    const ended = new Promise((resolve) => {
      monitor.once("error", resolve);
      monitor.once("close", resolve);
    });
    for (let asked = 0; asked < 2; asked++) {
      // The first time it may not listen yet.
      await sleep(probeMs / 3);
      const ask = ["-t", "ns", "-i", device, "-T", address, "send"];
      await runBounded(this.#program, ask, { limitMs: probeMs });
    }
    await sleep(probeMs / 3);
    monitor.kill("SIGTERM");
    const limit = setTimeout(() => monitor.kill("SIGKILL"), probeMs);
    await ended;
    clearTimeout(limit);
    return heard.includes(`from addr: ${address},`) ? address : null;
  }

  /**
   * Whether a peer finds us at the address. By ARP: our question carries our pair, which a neighbour takes over before it
   * answers (RFC 826, packet reception). By TCP: the answer, be it a refusal, has to find its way to us.
   */
  async isFoundBy(peer: AddressPeer, device: string): Promise<boolean> {
    const { address, probeMs } = this.#settings;
    if (peer.port !== null) return await answers(peer.host, peer.port, address, probeMs);
    const ask = ["-q", "-f", "-c", "1", "-w", String(Math.ceil(probeMs / 1000)), "-s", address, "-I", device];
    return (await runBounded(this.#program, [...ask, peer.host], { limitMs: probeMs })).status === 0;
  }
}

function answers(host: string, port: number, localAddress: string, limitMs: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host, port, localAddress });
    const end = (found: boolean) => {
      clearTimeout(limit);
      socket.destroy();
      resolve(found);
    };
    const limit = setTimeout(() => end(false), limitMs);
    socket.once("connect", () => end(true));
    socket.once("error", (error) => end("code" in error && error.code === "ECONNREFUSED"));
  });
}
