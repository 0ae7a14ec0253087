import { BlockList, isIPv4, isIPv6 } from "node:net";
import type { ResourceDefinition } from "@lockstep/core";
import { SettingReader } from "./setting-reader.ts";

/** What the settings of an `ip-address` say. */
export interface IpAddressSettings {
  readonly family: 4 | 6;
  /** As the kernel writes it. */
  readonly address: string;
  readonly prefixLength: number;
  /** Null: the one that has an address of the same network, when it comes online. */
  readonly interfaceName: string | null;
  /** Who must find us at the address; empty: the gateway, where it is in the network. */
  readonly peers: readonly AddressPeer[];
  /** Between two announcements for as long as it is online; 0: only at the beginning and when something happened. */
  readonly announceEverySeconds: number;
  /** The kernel takes the address away when nobody has extended it for so long; 0: never. */
  readonly lifetimeSeconds: number;
  /** What becomes of the resource when another host answers for the address too. */
  readonly foreignOwner: "note" | "fail";
  /** How long an answer of another owner is waited for. */
  readonly probeMs: number;
  /** How long a cable may be out before that is a failure. */
  readonly carrierGraceMs: number;
  /** Reset connections of the address when it goes. */
  readonly closesConnections: boolean;
}

export interface AddressPeer {
  readonly host: string;
  /** Null: asked by ARP, which needs a neighbour; else by a TCP connection, which a refusal proves as well. */
  readonly port: number | null;
}

export function readIpAddressSettings(settings: ResourceDefinition["settings"]): {
  readonly settings: IpAddressSettings;
  readonly faults: readonly string[];
} {
  const reader = new SettingReader(settings);
  const cidr = reader.text("address");
  const parsed = parseCidr(cidr);
  if (typeof parsed === "string") {
    if (cidr !== "") reader.fault("address", parsed);
  }
  const { family, address, prefixLength } =
    typeof parsed === "string" ? ({ family: 4, address: "", prefixLength: 0 } as const) : parsed;
  const interfaceName = reader.text("interface", "auto");
  if (!/^[^\s/:.][^\s/:]{0,14}$/.test(interfaceName) || interfaceName.startsWith("-"))
    reader.fault("interface", `${interfaceName} is no name of a network interface`);
  const peers = reader.list("peers").flatMap((text) => {
    const peer = parsePeer(text);
    if (peer === null) reader.fault("peers", `${text} is no address, with or without a port`);
    else if ((isIPv6(peer.host) ? 6 : 4) !== family && address !== "")
      reader.fault("peers", `${text} is not of the same protocol as ${address}`);
    else if (peer.port === null && family === 6)
      reader.fault("peers", `${text} needs a port, as in [${peer.host}]:443, with IPv6`);
    else return [peer];
    return [];
  });
  const foreignOwner = reader.text("foreignOwner", "note");
  if (foreignOwner !== "note" && foreignOwner !== "fail")
    reader.fault("foreignOwner", `${foreignOwner} is neither note nor fail`);
  const lifetimeSeconds = reader.count("lifetimeSeconds", 10, 0, 86_400);
  if (lifetimeSeconds === 1) reader.fault("lifetimeSeconds", "must be 0 or at least 2");
  return {
    settings: {
      family,
      address,
      prefixLength,
      interfaceName: interfaceName === "auto" ? null : interfaceName,
      peers,
      announceEverySeconds: reader.count("announceEverySeconds", 10, 0, 86_400),
      lifetimeSeconds,
      foreignOwner: foreignOwner === "fail" ? "fail" : "note",
      probeMs: reader.count("probeMs", 300, 50, 10_000),
      carrierGraceMs: reader.count("carrierGraceMs", 1_000, 0, 600_000),
      closesConnections: reader.flag("closeConnections", false),
    },
    faults: reader.faults(),
  };
}

/** What is wrong with the settings of an `ip-address`; each begins with the name of the setting. */
export function checkIpAddressSettings(settings: ResourceDefinition["settings"]): readonly string[] {
  return readIpAddressSettings(settings).faults;
}

function parseCidr(
  text: string,
): string | { readonly family: 4 | 6; readonly address: string; readonly prefixLength: number } {
  const [written = "", bits = "", more] = text.split("/");
  const family = isIPv4(written) ? 4 : isIPv6(written) && !written.includes("%") ? 6 : null;
  const prefixLength = /^\d{1,3}$/.test(bits) ? Number(bits) : Number.NaN;
  if (
    family === null ||
    more !== undefined ||
    !(prefixLength >= 1 && prefixLength <= (family === 4 ? 32 : 128))
  )
    return `${text} is no address with the length of its network, as in 10.0.0.50/24`;
  const address = canonicalAddress(written);
  const name = family === 4 ? "ipv4" : "ipv6";
  const unusable = UNUSABLE.find(([list]) => list.check(address, name));
  return unusable === undefined ? { family, address, prefixLength } : `${address} is ${unusable[1]}`;
}

/** As the kernel writes it (RFC 5952 for IPv6). */
export function canonicalAddress(address: string): string {
  return isIPv6(address) ? new URL(`http://[${address}]`).hostname.slice(1, -1) : address;
}

const blocks = (...subnets: readonly (readonly [string, number])[]): BlockList => {
  const list = new BlockList();
  for (const [network, bits] of subnets) list.addSubnet(network, bits, isIPv4(network) ? "ipv4" : "ipv6");
  return list;
};

const UNUSABLE: readonly (readonly [BlockList, string])[] = [
  [blocks(["0.0.0.0", 8], ["::", 128]), "no address of a host"],
  [blocks(["127.0.0.0", 8], ["::1", 128]), "known to each machine as its own"],
  [blocks(["224.0.0.0", 3], ["ff00::", 8]), "no address of one host"],
  [blocks(["fe80::", 10]), "known on its own cable only"],
];

/** `10.0.0.1`, `10.0.0.1:443`, `[fd00::1]:443`, `fd00::1`. */
function parsePeer(text: string): AddressPeer | null {
  if (isIPv6(text) || isIPv4(text)) return { host: text, port: null };
  const match = /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})$/.exec(text);
  const host = match?.[1] ?? match?.[2] ?? "";
  const port = Number(match?.[3]);
  const isHost = match?.[1] === undefined ? isIPv4(host) : isIPv6(host);
  return isHost && port >= 1 && port <= 65_535 ? { host, port } : null;
}

/** Whether two addresses are in one network of this length. */
export function isSameNetwork(address: string, other: string, prefixLength: number): boolean {
  const family = isIPv4(address) ? "ipv4" : "ipv6";
  if (isIPv4(other) !== (family === "ipv4")) return false;
  const list = new BlockList();
  list.addSubnet(address, prefixLength, family);
  return list.check(other, family);
}
