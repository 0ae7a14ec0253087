import { isIPv4, isIPv6 } from "node:net";
import type { ResourceDefinition } from "@lockstep/core";
import { canonicalAddress } from "./ip-address-settings.ts";
import { SettingReader } from "./setting-reader.ts";

/** What the settings of a `network-name` say. */
export interface NetworkNameSettings {
  /** Lower case, without a dot at its end. */
  readonly name: string;
  /** As the resolver writes them, sorted. */
  readonly addresses: readonly string[];
  /** Leave the name when it goes offline: the address moves, and the name with it. */
  readonly staysWhenOffline: boolean;
  /** The name must be known before whatever depends on it comes online. */
  readonly isRequired: boolean;
  readonly place: DnsPlace | HostsPlace;
}

export interface DnsPlace {
  readonly kind: "dns";
  /** Address and port of the server that is authoritative for the name. */
  readonly server: { readonly host: string; readonly port: number };
  /** Null: the server is asked. */
  readonly zone: string | null;
  /** A key of BIND, as `tsig-keygen` writes it; null: without, where the server allows that. */
  readonly keyFile: string | null;
  readonly ttlSeconds: number;
  /** Names for the addresses, too (PTR). */
  readonly hasReverse: boolean;
  /** Take a name that somebody else has entered. */
  readonly takesOver: boolean;
  readonly timeoutMs: number;
}

export interface HostsPlace {
  readonly kind: "hosts";
  readonly file: string;
}

export function readNetworkNameSettings(settings: ResourceDefinition["settings"]): {
  readonly settings: NetworkNameSettings;
  readonly faults: readonly string[];
} {
  const reader = new SettingReader(settings);
  const name = reader.text("name").toLowerCase().replace(/\.$/, "");
  const mode = reader.text("mode", "dns");
  const addresses = reader.list("addresses");
  if (name !== "" && !isHostName(name)) reader.fault("name", `${name} is no name of a host`);
  if (addresses.length === 0) reader.fault("addresses", "names none");
  for (const address of addresses)
    if (!isIPv4(address) && (!isIPv6(address) || address.includes("%")))
      reader.fault("addresses", `${address} is no address`);
  if (mode !== "dns" && mode !== "hosts") reader.fault("mode", `${mode} is neither dns nor hosts`);
  const place = mode === "hosts" ? readHosts(reader) : readDns(reader, name);
  return {
    settings: {
      name,
      addresses: [...new Set(addresses.map(canonicalAddress))].sort(),
      staysWhenOffline: reader.flag("staysWhenOffline", true),
      isRequired: reader.flag("required", mode === "hosts"),
      place,
    },
    faults: reader.faults(),
  };
}

/** What is wrong with the settings of a `network-name`; each begins with the name of the setting. */
export function checkNetworkNameSettings(settings: ResourceDefinition["settings"]): readonly string[] {
  return readNetworkNameSettings(settings).faults;
}

function readHosts(reader: SettingReader): HostsPlace {
  return { kind: "hosts", file: reader.path("hostsFile", "/etc/hosts") };
}

function readDns(reader: SettingReader, name: string): DnsPlace {
  const server = reader.text("server");
  const match = /^(?:\[([^\]]+)\]|([^:]+))(?::(\d{1,5}))?$/.exec(server);
  const host = match?.[1] ?? match?.[2] ?? server;
  const port = Number(match?.[3] ?? 53);
  if (server !== "" && !((isIPv4(host) || isIPv6(host)) && port >= 1 && port <= 65_535))
    reader.fault("server", `${server} is no address of a server, as in 10.0.0.53 or [fd00::53]:53`);
  const zone = reader.text("zone", "auto").toLowerCase().replace(/\.$/, "");
  if (zone !== "auto" && !isHostName(zone)) reader.fault("zone", `${zone} is no name of a zone`);
  else if (zone !== "auto" && name !== zone && !name.endsWith(`.${zone}`))
    reader.fault("zone", `${name} is not in ${zone}`);
  if (!name.includes(".")) reader.fault("name", "must be complete, with its domain");
  const keyFile = reader.path("keyFile", "/");
  return {
    kind: "dns",
    server: { host, port },
    zone: zone === "auto" ? null : zone,
    keyFile: keyFile === "/" ? null : keyFile,
    ttlSeconds: reader.count("ttlSeconds", 20, 0, 86_400),
    hasReverse: reader.flag("reverse", false),
    takesOver: reader.flag("takeOver", false),
    timeoutMs: reader.count("timeoutMs", 5_000, 100, 60_000),
  };
}

/** RFC 1123, 2.1: letters, digits and hyphens, which stand neither first nor last. */
function isHostName(name: string): boolean {
  const labels = name.split(".");
  return name.length <= 253 && labels.every((label) => /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/.test(label));
}
