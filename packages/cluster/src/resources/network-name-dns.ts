import { Resolver } from "node:dns/promises";
import { stat } from "node:fs/promises";
import { isIPv4 } from "node:net";
import { runBounded } from "./bounded-command.ts";
import { canonicalAddress } from "./ip-address-settings.ts";
import type { DnsPlace } from "./network-name-settings.ts";

/**
 * A name at its authoritative server: read with Node's resolver, changed by dynamic update (RFC 2136) with TSIG (RFC 8945).
 *
 * Who may change it stands beside it, in a TXT record with the virtual server and the fencing token. A change names the
 * record that it has seen as its prerequisite and writes its own, all in one message. So what a former owner still sends is
 * refused by the name server itself, and a name that somebody else has entered is not ours to take.
 */
export interface NameState {
  /** Sorted. */
  readonly addresses: readonly string[];
  /** All of its TXT records, the mark among them. */
  readonly texts: readonly string[];
  /** Which virtual server has entered the name; null: none. */
  readonly mark: NameMark | null;
}

export interface NameMark {
  readonly virtualServer: string;
  readonly token: number;
}

export const markText = ({ virtualServer, token }: NameMark): string =>
  `lockstep virtual-server=${virtualServer} token=${token}`;

function readMark(text: string): NameMark | null {
  const [, virtualServer, token] = /^lockstep virtual-server=(\S+) token=(\d+)$/.exec(text) ?? [];
  return virtualServer === undefined ? null : { virtualServer, token: Number(token) };
}

/** What the server said, or why it said nothing. */
export class NameFault extends Error {}

const NSUPDATE = "/usr/bin/nsupdate";

export class NameServer {
  readonly #place: DnsPlace;

  constructor(place: DnsPlace) {
    this.#place = place;
  }

  /** What the server knows of the name now. Throws NameFault. */
  async read(name: string): Promise<NameState> {
    const [four, six, texts] = await Promise.all([
      this.#ask((resolver) => resolver.resolve4(name)),
      this.#ask((resolver) => resolver.resolve6(name)),
      this.#ask((resolver) => resolver.resolveTxt(name)),
    ]);
    const found = (texts ?? []).map((parts) => parts.join("")).sort();
    return {
      addresses: [...(four ?? []), ...(six ?? [])].map(canonicalAddress).sort(),
      texts: found,
      mark: found.map(readMark).find((mark) => mark !== null) ?? null,
    };
  }

  /** The names of an address at this server. Throws NameFault. */
  async readReverse(address: string): Promise<readonly string[]> {
    return (await this.#ask((resolver) => resolver.resolvePtr(reverseName(address)))) ?? [];
  }

  /** Null: there is no such name. */
  async #ask<T>(question: (resolver: Resolver) => Promise<T>): Promise<T | null> {
    const { server, timeoutMs } = this.#place;
    // A new one each time: one that is kept remembers answers, and which servers did not answer.
    const resolver = new Resolver({ timeout: timeoutMs, tries: 1, maxTimeout: timeoutMs });
    resolver.setServers([
      server.host.includes(":") ? `[${server.host}]:${server.port}` : `${server.host}:${server.port}`,
    ]);
    try {
      return await question(resolver);
    } catch (error) {
      const code = error instanceof Error && "code" in error ? String(error.code) : String(error);
      if (code === "ENODATA") return [] as T;
      if (code === "ENOTFOUND") return null;
      throw new NameFault(`the name server ${server.host}:${server.port} does not answer for it (${code})`, {
        cause: error,
      });
    } finally {
      resolver.cancel();
    }
  }

  /** One message of changes, as nsupdate(1) takes them. Throws NameFault with what the server said. */
  async update(lines: readonly string[], zone: string | null): Promise<void> {
    await this.refuseOpenKey();
    const answer = await this.#nsupdate([], this.script(lines, zone));
    if (answer !== null) throw new NameFault(answer);
  }

  /** Makes the changes that stand in a file. Null: done; else what was said. */
  run(scriptFile: string): Promise<string | null> {
    return this.#nsupdate([scriptFile], "");
  }

  async #nsupdate(args: readonly string[], input: string): Promise<string | null> {
    const { timeoutMs } = this.#place;
    const [program, ...options] = this.#command(Math.ceil(timeoutMs / 1000));
    const end = await runBounded(program, [...options, ...args], { limitMs: timeoutMs + 500, input });
    if (end.status === 0) return null;
    const said = `${end.output}\n${end.errorOutput}`.trim().replace(/\s*\n\s*/g, "; ");
    return end.hasTimedOut ? `no answer to the update within ${timeoutMs} ms` : said || "the update failed";
  }

  script(lines: readonly string[], zone: string | null): string {
    const { server } = this.#place;
    const head = [`server ${server.host} ${server.port}`, ...(zone === null ? [] : [`zone ${zone}.`])];
    return `${[...head, ...lines, "send"].join("\n")}\n`;
  }

  /** What the guard runs to make the changes that stand in a file. */
  command(scriptFile: string): [string, ...string[]] {
    return [...this.#command(1), scriptFile];
  }

  #command(limitSeconds: number): [string, ...string[]] {
    const { keyFile } = this.#place;
    const key = keyFile === null ? [] : ["-k", keyFile];
    // Asked twice; what is left of the second time then, whoever runs it cuts off.
    const again = String(Math.ceil(limitSeconds / 2));
    return [NSUPDATE, "-t", String(limitSeconds), "-u", again, "-r", "1", ...key];
  }

  /** A key that everybody on this machine can read protects nothing. */
  async refuseOpenKey(): Promise<void> {
    const { keyFile } = this.#place;
    if (keyFile === null) return;
    const { mode } = await stat(keyFile).catch((error: unknown) => {
      throw new NameFault(`the key file ${keyFile} cannot be read`, { cause: error });
    });
    if ((mode & 0o007) !== 0)
      throw new NameFault(
        `everybody may read or change the key file ${keyFile} (mode ${(mode & 0o777).toString(8)})`,
      );
  }
}

/** The name below which the names of an address stand (RFC 1035, 3.5; RFC 3596, 2.5). */
export function reverseName(address: string): string {
  if (isIPv4(address)) return `${address.split(".").reverse().join(".")}.in-addr.arpa`;
  const [head = "", tail = ""] = address.split("::");
  const before = head === "" ? [] : head.split(":");
  const after = tail === "" ? [] : tail.split(":");
  const zeros = address.includes("::") ? 8 - before.length - after.length : 0;
  const groups = [...before, ...Array.from({ length: zeros }, () => "0"), ...after];
  const digits = groups.map((group) => group.padStart(4, "0")).join("");
  return `${[...digits].reverse().join(".")}.ip6.arpa`;
}

/** The records of the name as nsupdate takes them, in the place of those that it has. */
export function enterLines(
  name: string,
  ttlSeconds: number,
  addresses: readonly string[],
  mark: NameMark,
  state: NameState,
): string[] {
  return [
    ...deleteLines(name, state.mark),
    ...addresses.map(
      (address) => `update add ${name}. ${ttlSeconds} ${isIPv4(address) ? "A" : "AAAA"} ${address}`,
    ),
    `update add ${name}. ${ttlSeconds} TXT ${quoted(markText(mark))}`,
  ];
}

export function deleteLines(name: string, mark: NameMark | null): string[] {
  return [
    `update delete ${name}. A`,
    `update delete ${name}. AAAA`,
    ...(mark === null ? [] : [`update delete ${name}. TXT ${quoted(markText(mark))}`]),
  ];
}

/** The change is to be made only if the name is free. */
export const whileFree = (name: string): string[] =>
  ["A", "AAAA", "TXT"].map((type) => `prereq nxrrset ${name}. ${type}`);

/** The change is to be made only if the texts, with their mark and its token, are these. All are needed (RFC 2136, 2.4.2). */
export const whileMarked = (name: string, texts: readonly string[]): string[] =>
  texts.map((text) => `prereq yxrrset ${name}. TXT ${quoted(text)}`);

const quoted = (text: string): string => `"${text.replace(/["\\]/g, "\\$&")}"`;
