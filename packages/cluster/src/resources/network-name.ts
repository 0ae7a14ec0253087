import { existsSync } from "node:fs";
import { mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import {
  deleteLines,
  enterLines,
  markText,
  NameFault,
  type NameMark,
  NameServer,
  type NameState,
  reverseName,
  whileFree,
  whileMarked,
} from "./network-name-dns.ts";
import { hostsBlock, hostsUndo, readHosts, replaceHostsBlock, writeHosts } from "./network-name-hosts.ts";
import {
  type DnsPlace,
  type HostsPlace,
  type NetworkNameSettings,
  readNetworkNameSettings,
} from "./network-name-settings.ts";
import type { Resource, ResourceContext, UndoCommand } from "./resource.ts";
import { refuseFaults, resourceFailed } from "./setting-reader.ts";

/**
 * The name by which clients know a virtual server: at a name server, or in this machine's file of hosts.
 *
 * The name hardly ever changes, since the address moves and the name points at it. So it stays when the virtual server
 * goes offline, and to come online is to look whether it is right. At a name server that does not block by default
 * (`required`), as in Windows failover clusters: a name server that is away must not keep a service from moving.
 */
const AGAIN_MS = [1_000, 2_000, 5_000, 15_000] as const;
const AGAIN_MS_MAX = 60_000;

/** Throws RESOURCE_SETTINGS. */
export function openNetworkName(context: ResourceContext): Resource {
  const { settings, faults } = readNetworkNameSettings(context.definition.settings);
  refuseFaults(context.definition, faults);
  const { place } = settings;
  return place.kind === "hosts"
    ? new HostsName(context, settings, place)
    : new ServedName(context, settings, place);
}

class HostsName implements Resource {
  readonly undo: readonly UndoCommand[];
  readonly #context: ResourceContext;
  readonly #settings: NetworkNameSettings;
  readonly #file: string;

  constructor(context: ResourceContext, settings: NetworkNameSettings, { file }: HostsPlace) {
    this.#context = context;
    this.#settings = settings;
    this.#file = file;
    this.undo = settings.staysWhenOffline ? [] : [hostsUndo(hostsBlock(context.virtualServer), file)];
  }

  async online(): Promise<void> {
    await this.#write(this.#lines());
  }

  #lines(): string[] {
    const { name, addresses } = this.#settings;
    const [short = name] = name.split(".");
    const names = short === name ? name : `${name} ${short}`;
    return addresses.map((address) => `${address} ${names}`);
  }

  async offline(): Promise<void> {
    if (!this.#settings.staysWhenOffline) await this.#write([]);
  }

  async check(isThorough: boolean): Promise<string | null> {
    if (!isThorough) return null;
    try {
      const text = await readHosts(this.#file);
      const isRight =
        replaceHostsBlock(text, hostsBlock(this.#context.virtualServer), this.#lines()) === text;
      return isRight ? null : `${this.#file} does not hold ${this.#settings.name} as it should`;
    } catch (error) {
      return `${this.#file} cannot be read: ${error instanceof Error ? error.message : String(error)}`;
    }
  }

  async terminate(): Promise<void> {
    try {
      await this.offline();
    } catch (error) {
      this.#context.note("name left behind", String(error));
    }
  }

  async #write(lines: readonly string[]): Promise<void> {
    try {
      const before = await readHosts(this.#file);
      const text = replaceHostsBlock(before, hostsBlock(this.#context.virtualServer), lines);
      if (text === before) return;
      if (lines.length > 0 && this.#context.token() === null) throw new Error("the lease has ended");
      if (!(await writeHosts(this.#file, text)))
        this.#context.note("hosts written over", `${this.#file} is mounted by itself and cannot be replaced`);
    } catch (error) {
      const problem = error instanceof Error ? error.message : String(error);
      throw resourceFailed(this.#context.definition, `${this.#file} cannot be changed: ${problem}`, {
        cause: error,
      });
    }
  }
}

class ServedName implements Resource {
  readonly undo: readonly UndoCommand[];
  readonly #context: ResourceContext;
  readonly #settings: NetworkNameSettings;
  readonly #place: DnsPlace;
  readonly #server: NameServer;
  /** What takes our records away again, and only ours; written when they are. */
  readonly #removal: string;
  #trying: AbortController | null = null;

  constructor(context: ResourceContext, settings: NetworkNameSettings, place: DnsPlace) {
    this.#context = context;
    this.#settings = settings;
    this.#place = place;
    this.#server = new NameServer(place);
    this.#removal = join(context.directory, "remove.nsupdate");
    this.undo = settings.staysWhenOffline ? [] : [this.#server.command(this.#removal)];
  }

  async online(): Promise<void> {
    this.#trying?.abort();
    if (this.#settings.isRequired) {
      try {
        await this.#enter();
      } catch (error) {
        throw this.#failed(error);
      }
      return;
    }
    if (this.#context.token() === null) throw this.#failed(new NameFault("the lease has ended"));
    this.#trying = new AbortController();
    void this.#keepTrying(this.#trying.signal);
  }

  async offline(): Promise<void> {
    this.#trying?.abort();
    this.#trying = null;
    if (this.#settings.staysWhenOffline) return;
    try {
      await this.#remove();
    } catch (error) {
      if (this.#settings.isRequired) throw this.#failed(error);
      this.#context.note("name not removed", say(error));
    }
  }

  /** The thorough look asks the server, and enters anew what has gone. */
  async check(isThorough: boolean): Promise<string | null> {
    if (!isThorough || this.#trying !== null) return null;
    try {
      if (await this.#enter())
        this.#context.note("name entered again", `${this.#settings.name} was not as it should be`);
      return null;
    } catch (error) {
      if (this.#settings.isRequired) return say(error);
      this.#trying = new AbortController();
      void this.#keepTrying(this.#trying.signal);
      return null;
    }
  }

  async terminate(): Promise<void> {
    this.#trying?.abort();
    this.#trying = null;
    if (this.#settings.staysWhenOffline) return;
    await this.#remove().catch((error: unknown) => this.#context.note("name left behind", say(error)));
  }

  close(): void {
    this.#trying?.abort();
  }

  async #keepTrying(signal: AbortSignal): Promise<void> {
    for (let turn = 0; !signal.aborted && this.#context.token() !== null; turn++) {
      try {
        await this.#enter();
        if (turn > 0) this.#context.note("name entered", `${this.#settings.name} after ${turn + 1} tries`);
        break;
      } catch (error) {
        if (signal.aborted) return;
        if (turn === 0) this.#context.note("name not entered yet", say(error));
        await sleep(AGAIN_MS[turn] ?? AGAIN_MS_MAX, undefined, { signal, ref: false }).catch(() => {});
      }
    }
    if (!signal.aborted) this.#trying = null;
  }

  /** Sees to it that the server knows the name as it should. Returns whether anything had to be changed. */
  async #enter(): Promise<boolean> {
    const { name, addresses } = this.#settings;
    const { zone, ttlSeconds, takesOver } = this.#place;
    const { virtualServer } = this.#context;
    const state = await this.#server.read(name);
    const isOurs = state.mark?.virtualServer === virtualServer;
    const isRight = isOurs && state.addresses.join() === addresses.join();
    // What is to be removed later must carry our own token.
    if (isRight && (this.#settings.staysWhenOffline || state.mark?.token === this.#context.token())) {
      await this.#enterReverse();
      return false;
    }
    const token = this.#context.token();
    if (token === null) throw new NameFault("the lease has ended");
    if (isOurs && state.mark !== null && state.mark.token > token)
      throw new NameFault(
        `${name} was entered by a later owner (token ${state.mark.token}, ours is ${token})`,
      );
    const isFree = state.addresses.length === 0 && state.texts.length === 0;
    if (!isOurs && !isFree && !takesOver) {
      const whose = state.mark === null ? "somebody else" : `the virtual server ${state.mark.virtualServer}`;
      throw new NameFault(
        `${name} is entered already (${state.addresses.join(", ") || "no address"}), by ${whose}`,
      );
    }
    const mark: NameMark = { virtualServer, token };
    await this.#writeRemoval(mark, state);
    await this.#server.update(
      [
        ...(isFree ? whileFree(name) : []),
        ...(state.mark === null ? [] : whileMarked(name, state.texts)),
        ...enterLines(name, ttlSeconds, addresses, mark, state),
      ],
      zone,
    );
    const found = await this.#server.read(name);
    if (found.addresses.join() !== addresses.join())
      throw new NameFault(
        `the server took the update, and now says ${found.addresses.join(", ") || "nothing"}`,
      );
    await this.#enterReverse();
    return true;
  }

  /** Names of addresses are a convenience: what goes wrong here is told, no more. */
  async #enterReverse(): Promise<void> {
    const { name, addresses } = this.#settings;
    const { hasReverse, ttlSeconds } = this.#place;
    if (!hasReverse) return;
    for (const address of addresses) {
      const reverse = reverseName(address);
      try {
        const names = await this.#server.readReverse(address);
        if (names.length === 1 && names[0]?.toLowerCase() === name) continue;
        if (this.#context.token() === null) return;
        await this.#server.update(
          [`update delete ${reverse}. PTR`, `update add ${reverse}. ${ttlSeconds} PTR ${name}.`],
          null,
        );
      } catch (error) {
        this.#context.note("reverse name not entered", `${reverse}: ${say(error)}`);
      }
    }
  }

  async #writeRemoval(mark: NameMark, { mark: former, texts }: NameState): Promise<void> {
    if (this.#settings.staysWhenOffline) return;
    const { name } = this.#settings;
    const others = texts.filter((text) => former === null || text !== markText(former));
    const lines = [...whileMarked(name, [...others, markText(mark)]), ...deleteLines(name, mark)];
    await mkdir(this.#context.directory, { recursive: true, mode: 0o700 });
    await writeFile(this.#removal, this.#server.script(lines, this.#place.zone), { mode: 0o600 });
  }

  /** Removes what this node has entered; not what a later owner has: then its token is not the one in the prerequisite. */
  async #remove(): Promise<void> {
    if (!existsSync(this.#removal)) return;
    const answer = await this.#server.run(this.#removal);
    if (answer !== null && !/NXRRSET/.test(answer)) throw new NameFault(answer);
    await rm(this.#removal, { force: true });
  }

  #failed(error: unknown) {
    return resourceFailed(this.#context.definition, say(error), { cause: error });
  }
}

const say = (error: unknown): string => (error instanceof Error ? error.message : String(error));
