import { existsSync } from "node:fs";
import { join } from "node:path";
import { BARE_ENVIRONMENT, runBounded } from "./bounded-command.ts";
import { Announcer } from "./ip-address-announcer.ts";
import { hasCarrier, LinkCommands, type LinkRow, UNDO_SCRIPT } from "./ip-address-link.ts";
import { type IpAddressSettings, isSameNetwork, readIpAddressSettings } from "./ip-address-settings.ts";
import { AddressUpkeep } from "./ip-address-upkeep.ts";
import type { Resource, ResourceContext, UndoCommand } from "./resource.ts";
import { refuseFaults, resourceFailed } from "./setting-reader.ts";
import { untilGone } from "./until-gone.ts";

/**
 * An address that is where the virtual server is.
 *
 * Clients notice nothing but the time from one owner's `del` to the other's first announcement, so there stands as little
 * as possible between: no program is started that could have been started before, and everything that asks or waits
 * (who else has it, who has understood) follows when the resource is online already. ip-address-upkeep.ts does that.
 *
 * Three things take the address away, each without the others: `offline`; the guard, by `undo`; and the kernel, since the
 * address has a lifetime that somebody must extend. So an address whose daemon and guard have died at one blow goes too.
 *
 * Not promised: that nobody else has the address. A host that does not belong to the cluster cannot be stopped; it is
 * noticed and named.
 */
const COMMAND_MS = 5_000;

/** Throws RESOURCE_SETTINGS. */
export function openIpAddress(context: ResourceContext): Resource {
  const { settings, faults } = readIpAddressSettings(context.definition.settings);
  refuseFaults(context.definition, faults);
  return new IpAddress(context, settings);
}

class IpAddress implements Resource {
  readonly undo: readonly UndoCommand[];
  readonly isExclusive = true;
  readonly #context: ResourceContext;
  readonly #settings: IpAddressSettings;
  readonly #links: LinkCommands;
  readonly #announcer: Announcer;
  /** The words of `ip` for the address and what it should be like. */
  readonly #cidr: string;
  #device: string | null = null;
  #upkeep: AddressUpkeep | null = null;

  constructor(context: ResourceContext, settings: IpAddressSettings) {
    this.#context = context;
    this.#settings = settings;
    const { family, address, prefixLength } = settings;
    this.#cidr = `${address}/${prefixLength}`;
    const idFile = join(context.directory, "ip.pid");
    const ip = findProgram("ip");
    this.#links = new LinkCommands(ip, family, idFile);
    this.#announcer = new Announcer(findProgram(family === 4 ? "arping" : "ndptool"), settings);
    this.undo = [["/bin/sh", "-c", UNDO_SCRIPT, "sh", idFile, ip, `-${family}`, address]];
  }

  async online(): Promise<void> {
    this.#requirePrograms();
    const { links, complaint } = await this.#look([], "addr show");
    const device = this.#choose(links, complaint);
    const { address, foreignOwner } = this.#settings;
    if (foreignOwner === "fail") {
      const other = await this.#announcer.findForeignOwner(device.ifname);
      if (other !== null)
        throw this.#failed(`another host (${other}) answers for ${address}`, {
          hint: "Find out whose it is and take the address away there, or set foreignOwner to note.",
        });
    }
    const elsewhere = links.filter((link) => link.ifname !== device.ifname && hasAddress(link, address));
    this.#ask();
    const added = await this.#look(
      [
        ...elsewhere.map((link) => `addr flush dev ${link.ifname} to ${address}`),
        `addr replace ${this.#words(device)}`,
      ],
      `addr show dev ${device.ifname} to ${address}`,
    );
    if (!added.links.some((link) => hasAddress(link, address)))
      throw this.#failed(`${this.#cidr} could not be added to ${device.ifname}: ${added.complaint}`);
    this.#device = device.ifname;
    this.#upkeep?.end();
    this.#ask();
    const announced = this.#announcer.announce(device.ifname);
    this.#upkeep = new AddressUpkeep({
      context: this.#context,
      settings: this.#settings,
      device: device.ifname,
      announcer: this.#announcer,
      links: this.#links,
      words: this.#words(device),
      announced,
    });
    this.#upkeep.begin();
  }

  async offline(): Promise<void> {
    this.#upkeep?.end();
    this.#upkeep = null;
    const { address, closesConnections } = this.#settings;
    const device = this.#device;
    if (device === null) return await this.#flush();
    if (closesConnections)
      await runBounded(findProgram("ss"), ["-K", "src", address], { limitMs: COMMAND_MS });
    const { links, complaint } = await this.#look(
      [`addr del ${this.#cidr} dev ${device}`],
      `addr show to ${address}`,
    );
    if (links.some((link) => hasAddress(link, address)))
      throw this.#failed(`${address} could not be taken from ${device}: ${complaint}`);
    this.#device = null;
  }

  async check(isThorough: boolean): Promise<string | null> {
    const upkeep = this.#upkeep;
    if (upkeep === null) return "it is not online";
    return (await upkeep.look()) ?? (isThorough ? await upkeep.lookAround() : null);
  }

  async terminate(): Promise<void> {
    this.#upkeep?.end();
    this.#upkeep = null;
    this.#device = null;
    await untilGone(
      async () => {
        await this.#flush();
        return null;
      },
      (problem) => this.#context.note("address left behind", problem),
    );
    // What brings it online must not wait for a program to start.
    this.#links.warm();
    this.#announcer.warm();
  }

  close(): void {
    this.#upkeep?.end();
    this.#upkeep = null;
    this.#links.close();
    this.#announcer.close();
  }

  /** What the guard would run: it finds the address wherever a former life has put it. */
  async #flush(): Promise<void> {
    for (const [program, ...args] of this.undo) {
      const { status, errorOutput } = await runBounded(program, args, { limitMs: COMMAND_MS });
      if (status !== 0)
        throw this.#failed(`${this.#settings.address} could not be taken away: ${errorOutput.trim()}`);
    }
  }

  #ask(): void {
    if (this.#context.token() === null) throw this.#failed("the lease has ended");
  }

  async #look(commands: readonly string[], show: string) {
    try {
      return await this.#links.links(commands, show);
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      throw this.#failed(`the interfaces cannot be asked: ${why}`, { cause: error });
    }
  }

  /** The interface for the address: the one that is named, else the one that has an address of the network. */
  #choose(links: readonly LinkRow[], complaint: string): LinkRow {
    const { address, interfaceName, prefixLength } = this.#settings;
    const device =
      interfaceName === null
        ? links.find((link) => neighbours(link, address, prefixLength).length > 0)
        : links.find((link) => link.ifname === interfaceName);
    if (device === undefined) {
      const there = links.map((link) => link.ifname).join(", ") || complaint;
      throw interfaceName === null
        ? this.#failed(`no interface has an address in the network of ${this.#cidr} (there are ${there})`, {
            hint: "Give this node an address of that network, or name the interface.",
          })
        : this.#failed(`there is no interface ${interfaceName} (there are ${there})`);
    }
    if (!hasCarrier(device)) throw this.#failed(`${device.ifname} has no carrier`);
    return device;
  }

  #words(device: LinkRow): string {
    const { family, address, prefixLength, lifetimeSeconds } = this.#settings;
    const lifetime = lifetimeSeconds === 0 ? "forever" : String(lifetimeSeconds);
    const isAdditional = neighbours(device, address, prefixLength).length > 0;
    return [
      `${this.#cidr} dev ${device.ifname} valid_lft ${lifetime}`,
      // Deprecated from the beginning: the node's own connections do not leave from an address that will move.
      family === 6 ? "preferred_lft 0 nodad" : `preferred_lft ${lifetime}`,
      ...(isAdditional ? ["noprefixroute"] : []),
    ].join(" ");
  }

  #requirePrograms(): void {
    const needed = { ip: "iproute2", ...(this.#settings.family === 4 ? ARPING : NDPTOOL) };
    for (const [program, debianPackage] of Object.entries(needed))
      if (!existsSync(findProgram(program)))
        throw this.#failed(`${program} is not on this machine`, {
          hint: `On Debian it is in the package ${debianPackage}.`,
        });
  }

  #failed(problem: string, details: { readonly hint?: string; readonly cause?: unknown } = {}) {
    return resourceFailed(this.#context.definition, problem, details);
  }
}

const ARPING = { arping: "iputils-arping" };
const NDPTOOL = { ndptool: "libndp-tools" };

/** Absolute; where it would be if it were there. */
function findProgram(name: string): string {
  const places = (BARE_ENVIRONMENT.PATH ?? "").split(":").map((directory) => join(directory, name));
  return places.find((path) => existsSync(path)) ?? join("/usr/sbin", name);
}

const hasAddress = (link: LinkRow, address: string): boolean =>
  link.addresses.some(({ local }) => local === address);

/** Other addresses of the interface in the network of this one. */
const neighbours = (link: LinkRow, address: string, prefixLength: number) =>
  link.addresses.filter(({ local }) => local !== address && isSameNetwork(address, local, prefixLength));
