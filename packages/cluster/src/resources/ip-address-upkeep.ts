import { type ChildProcess, spawn } from "node:child_process";
import { setTimeout as sleep } from "node:timers/promises";
import { startOrRefusal } from "../refused-start.ts";
import { BARE_ENVIRONMENT } from "./bounded-command.ts";
import type { Announcer } from "./ip-address-announcer.ts";
import { hasCarrier, type LinkCommands, letGo } from "./ip-address-link.ts";
import { type AddressPeer, type IpAddressSettings, isSameNetwork } from "./ip-address-settings.ts";
import type { ResourceContext } from "./resource.ts";

export interface UpkeepOptions {
  readonly context: ResourceContext;
  readonly settings: IpAddressSettings;
  readonly device: string;
  readonly announcer: Announcer;
  readonly links: LinkCommands;
  /** The address, its device and what it should be like, as `ip addr replace` takes them. */
  readonly words: string;
  /** The first announcement, which has been sent. */
  readonly announced: Promise<string | null>;
}

/** After the first announcement; what is lost on a busy network comes through with one of them. */
const BURST_MS = [100, 300, 600, 900] as const;
const AGAIN_MS = [1_000, 1_000, 2_000, 5_000] as const;
const AGAIN_MS_MAX = 10_000;
const FRESH_MS = 250;
/** A foreign owner that still answers after so many looks, with announcements between, is there to stay. */
const LOOKS = 3;

/**
 * What goes on while an address is online: announce it again and again, see to it that it is understood, extend its
 * lifetime, and watch the interface.
 *
 * Why again for ever: after a network was cut without loss of carrier, whoever was on the other side holds what it heard
 * there, and nobody tells us that the cut is over. Each act asks for the token first.
 */
export class AddressUpkeep {
  readonly #options: UpkeepOptions;
  readonly #ended = new AbortController();
  #monitor: ChildProcess | null = null;
  /** Since when the cable is out, on the clock of `performance.now`; null: it is in. */
  #outSince: number | null = null;
  #isComplaining = false;
  #isLookDue = false;
  #looking: Promise<void> | null = null;
  /** The failure that was told of last, without its figures. */
  #failure: string | null = null;

  constructor(options: UpkeepOptions) {
    this.#options = options;
  }

  begin(): void {
    void this.#noteAnnouncement(this.#options.announced);
    void this.#announceOften();
    void this.#confirm();
    void this.#extend();
    this.#watch();
  }

  end(): void {
    this.#ended.abort();
    this.#monitor?.kill("SIGKILL");
    this.#options.announcer.silence();
  }

  /** Null: the address is on its interface, and the cable is in, or has been out for no longer than it may. */
  async look(): Promise<string | null> {
    const { device, links, settings } = this.#options;
    const { address, carrierGraceMs } = settings;
    try {
      const show = `addr show dev ${device}`;
      // Whoever takes the address away ends the program that is asked: another one knows.
      const [link] = (await links.links([], show).catch(() => links.links([], show))).links;
      if (link === undefined) return `the interface ${device} is gone`;
      if (!link.addresses.some(({ local }) => local === address))
        return `${address} is not on ${device} any more`;
      if (hasCarrier(link)) {
        if (this.#outSince !== null) this.#returned();
        return null;
      }
      this.#outSince ??= performance.now();
      const outMs = performance.now() - this.#outSince;
      return outMs >= carrierGraceMs ? `${device} has had no carrier for ${Math.round(outMs)} ms` : null;
    } catch (error) {
      return `the interfaces cannot be asked: ${error instanceof Error ? error.message : String(error)}`;
    }
  }

  /** Null: nobody else answers for the address, or that is only noted. */
  async lookAround(): Promise<string | null> {
    const other = await this.#findForeignOwner();
    if (other === null) return null;
    return this.#options.settings.foreignOwner === "fail" ? this.#describe(other) : null;
  }

  get #isOver(): boolean {
    return this.#ended.signal.aborted;
  }

  /** False: it is over. */
  async #pause(ms: number): Promise<boolean> {
    await sleep(ms, undefined, { signal: this.#ended.signal, ref: false }).catch(() => {});
    return !this.#isOver;
  }

  #announce(): void {
    const { announcer, context, device } = this.#options;
    if (this.#isOver || context.token() === null) return;
    void this.#noteAnnouncement(announcer.announce(device));
  }

  async #noteAnnouncement(announced: Promise<string | null>): Promise<void> {
    const problem = await announced;
    if (this.#isOver) return;
    if (problem !== null && !this.#isComplaining)
      this.#options.context.note(
        "cannot announce the address",
        `${this.#options.settings.address}: ${problem}`,
      );
    this.#isComplaining = problem !== null;
  }

  async #burst(): Promise<void> {
    for (const pauseMs of BURST_MS) if (await this.#pause(pauseMs)) this.#announce();
  }

  async #announceOften(): Promise<void> {
    const { announceEverySeconds } = this.#options.settings;
    await this.#burst();
    while (announceEverySeconds > 0 && (await this.#pause(announceEverySeconds * 1_000))) this.#announce();
  }

  /** A former owner that has not let go yet is overruled; one that stays is told of. Then the peers are asked. */
  async #confirm(): Promise<void> {
    const { settings, context } = this.#options;
    for (let look = 1; await this.#pause(50); look++) {
      const other = await this.#findForeignOwner();
      if (other === null) break;
      if (look >= LOOKS && settings.foreignOwner === "fail") {
        if (!this.#isOver) context.failed(this.#describe(other));
        return;
      }
      if (look >= LOOKS || !(await this.#pause(1_000))) break;
    }
    const peers = await this.#peers();
    for (let turn = 0; !this.#isOver && peers.length > 0; turn++) {
      const found = await Promise.all(
        peers.map((peer) => this.#options.announcer.isFoundBy(peer, this.#options.device)),
      );
      if (this.#isOver) return;
      const silent = peers.filter((_, index) => found[index] !== true).map(({ host }) => host);
      if (silent.length === 0) {
        if (turn > 0) context.note("address found again", `${settings.address} is found by all peers`);
        return;
      }
      if (turn === 1)
        context.note("address not found yet", `${silent.join(", ")} does not find us at ${settings.address}`);
      if (!(await this.#pause(AGAIN_MS[turn] ?? AGAIN_MS_MAX))) return;
      this.#announce();
    }
  }

  /** Those that are named, else the gateway of the network. */
  async #peers(): Promise<readonly AddressPeer[]> {
    const { settings, links, device } = this.#options;
    if (settings.peers.length > 0 || settings.family === 6) return settings.peers;
    try {
      const { rows } = await links.exchange([], `route show default dev ${device}`);
      return rows.flatMap(({ gateway }) =>
        typeof gateway === "string" && isSameNetwork(settings.address, gateway, settings.prefixLength)
          ? [{ host: gateway, port: null }]
          : [],
      );
    } catch {
      return [];
    }
  }

  async #findForeignOwner(): Promise<string | null> {
    const { announcer, context, device } = this.#options;
    if (this.#isOver || context.token() === null) return null;
    const other = await announcer.findForeignOwner(device);
    if (other === null || this.#isOver) return null;
    context.note("foreign owner of the address", this.#describe(other));
    this.#announce();
    return other;
  }

  #describe(other: string): string {
    const { settings, device } = this.#options;
    return `another host (${other}) answers for ${settings.address} on ${device}`;
  }

  async #extend(): Promise<void> {
    const { settings, links, words, context, device } = this.#options;
    const everyMs = (settings.lifetimeSeconds * 1_000) / 4;
    while (everyMs > 0 && (await this.#pause(everyMs))) {
      if (context.token() === null) continue;
      // The kernel adds what it is told to change. What others took away is not to come back unnoticed, so it is looked
      // for first; an answer that we read late, because we stood still, says nothing any more.
      const askedAt = performance.now();
      const isGone = (await this.look())?.includes("any more") === true;
      const isFresh = performance.now() - askedAt < FRESH_MS;
      if (isGone || !isFresh || this.#isOver || context.token() === null) continue;
      await links.exchange([`addr change ${words}`], `addr show dev ${device}`).catch(() => {});
    }
  }

  /** The kernel tells of every change of the interface; what it is, `look` finds out. */
  #watch(): void {
    const { links, device } = this.#options;
    if (this.#isOver) return;
    const again = () => void this.#pause(1_000).then((goesOn) => goesOn && this.#watch());
    const monitor = startOrRefusal(() =>
      spawn(links.program, ["-o", "monitor", "link", "address", "dev", device], {
        cwd: "/",
        env: BARE_ENVIRONMENT,
        stdio: ["ignore", "pipe", "ignore"],
      }),
    );
    if (monitor instanceof Error) {
      again();
      return;
    }
    this.#monitor = monitor;
    letGo(monitor);
    monitor.stdout.on("data", () => this.#lookSoon());
    monitor.on("error", () => {});
    monitor.once("exit", again);
  }

  /** One look at a time; what happens meanwhile is seen by one more. */
  #lookSoon(): void {
    this.#isLookDue = true;
    this.#looking ??= this.#lookWhileDue().finally(() => {
      this.#looking = null;
    });
  }

  async #lookWhileDue(): Promise<void> {
    while (this.#isLookDue && !this.#isOver) {
      this.#isLookDue = false;
      const wasIn = this.#outSince === null;
      const problem = await this.look();
      if (this.#isOver) return;
      const kind = problem?.replace(/\d+ ms/, "") ?? null;
      if (problem !== null && kind !== this.#failure) this.#options.context.failed(problem);
      this.#failure = kind;
      if (wasIn && this.#outSince !== null)
        void this.#pause(this.#options.settings.carrierGraceMs).then((goesOn) => goesOn && this.#lookSoon());
    }
  }

  /** The cable is in again: somebody else may have spoken meanwhile, and the switch may have forgotten us. */
  #returned(): void {
    this.#outSince = null;
    this.#announce();
    void this.#burst();
    void this.#confirm();
  }
}
