import { isIP } from "node:net";
import type { ResourceDefinition } from "@lockstep/core";
import { SettingReader } from "./setting-reader.ts";

/** What the settings of a `file-share` say. */
export interface FileShareSettings {
  readonly share: string;
  readonly path: string;
  /** Where it is served: the addresses of the virtual server. */
  readonly addresses: readonly string[];
  readonly port: number;
  readonly isReadOnly: boolean;
  readonly isForGuests: boolean;
  /** Users, and groups as `@name`; empty: every user that the database knows. */
  readonly validUsers: readonly string[];
  /** All files belong to this user, whoever came; null: to whoever came. */
  readonly forceUser: string | null;
  /** Samba's database of users and their passwords; the same on every node, or on the volume. */
  readonly userDatabase: string;
  /** For the thorough check: as whom to look, as `smbclient -A` reads it; null: as a guest, where guests may. */
  readonly credentialsFile: string | null;
  /** The name that the server gives itself; null: that of the virtual server. */
  readonly serverName: string | null;
  /** More lines for the share, as smb.conf(5) has them. */
  readonly options: readonly string[];
  readonly startMs: number;
  readonly stopMs: number;
  readonly checkMs: number;
}

/** Settings of ours, and what would read other files than the one we write. */
const OWN_OPTIONS = [
  "path",
  "directory",
  "read only",
  "writeable",
  "writable",
  "write ok",
  "guest ok",
  "public",
]
  .concat(["valid users", "force user", "user", "copy", "include", "available", "config file"])
  .map((name) => name.replaceAll(" ", ""));

export function readFileShareSettings(settings: ResourceDefinition["settings"]): {
  readonly settings: FileShareSettings;
  readonly faults: readonly string[];
} {
  const reader = new SettingReader(settings);
  const share = reader.text("share");
  const path = reader.path("path");
  const addresses = reader.list("address");
  const validUsers = reader.list("validUsers");
  const forceUser = reader.text("forceUser", "");
  const isForGuests = reader.flag("guest", false);
  const options = reader.list("options");
  const serverName = reader.text("serverName", "");
  const credentialsFile = reader.path("credentialsFile", "");
  if (
    share !== "" &&
    !/^[^\s"/\\[\]:|<>+=;,*?%]([^"/\\[\]:|<>+=;,*?%]{0,78}[^\s"/\\[\]:|<>+=;,*?%])?$/u.test(share)
  )
    reader.fault("share", `${share} is no name of a share`);
  if (/^(global|homes|printers|ipc\$)$/i.test(share)) reader.fault("share", `${share} means something else`);
  // Where a value is a path, % stands for something, and quotes hold it together.
  if (/["%]/.test(path)) reader.fault("path", "must not hold quotes or per cent signs");
  if (addresses.length === 0) reader.fault("address", "is missing");
  for (const address of addresses)
    if (isIP(address) === 0) reader.fault("address", `${address} is no IP address`);
  for (const user of [...validUsers, ...(forceUser === "" ? [] : [forceUser])])
    if (!/^[@+&]{0,2}[^\s",;[\]%@+&]+$/u.test(user))
      reader.fault(user === forceUser ? "forceUser" : "validUsers", `${user} is no name`);
  if (isForGuests && validUsers.length > 0)
    reader.fault("validUsers", "cannot stand beside guest: a guest is none of them");
  for (const option of options) {
    const name = /^([a-z][a-z0-9 :_-]*?)\s*=\s*\S/i.exec(option)?.[1];
    if (name === undefined) reader.fault("options", `${option} does not read NAME = VALUE`);
    else if (OWN_OPTIONS.includes(name.replaceAll(" ", "").toLowerCase()))
      reader.fault("options", `${name} has a setting of its own here, or none`);
  }
  if (serverName !== "" && !/^[A-Za-z0-9-]{1,15}$/.test(serverName))
    reader.fault("serverName", "must be 1 to 15 letters, digits and hyphens");
  return {
    settings: {
      share,
      path,
      addresses,
      port: reader.count("port", 445, 1, 65_535),
      isReadOnly: reader.flag("readOnly", false),
      isForGuests,
      validUsers,
      forceUser: forceUser || null,
      userDatabase: reader.path("userDatabase", "/var/lib/samba/private/passdb.tdb"),
      credentialsFile: credentialsFile || null,
      serverName: serverName || null,
      options,
      startMs: reader.count("startMs", 20_000, 100, 600_000),
      stopMs: reader.count("stopMs", 5_000, 0, 600_000),
      checkMs: reader.count("checkMs", 10_000, 100, 600_000),
    },
    faults: reader.faults(),
  };
}

/** What is wrong with the settings of a `file-share`; each begins with the name of the setting. */
export function checkFileShareSettings(settings: ResourceDefinition["settings"]): readonly string[] {
  return readFileShareSettings(settings).faults;
}

/** The names of the directories that a server of its own needs; all below one that is nobody else's. */
export const SERVER_DIRECTORIES = ["private", "lock", "state", "cache", "pid", "ncalrpc", "binddns"] as const;

const NETBIOS_LENGTH_MAX = 15;

/** The configuration of a server that serves this share alone. `directory`: its own. */
export function formatServerConfig(
  settings: FileShareSettings,
  virtualServer: string,
  directory: string,
): string {
  const { share, path, addresses, port, validUsers, forceUser, isForGuests, isReadOnly } = settings;
  const yesNo = (is: boolean) => (is ? "yes" : "no");
  const name = settings.serverName ?? virtualServer.toUpperCase().slice(0, NETBIOS_LENGTH_MAX);
  const lines = [
    "[global]",
    `netbios name = ${name}`,
    "server role = standalone server",
    `passdb backend = tdbsam:${settings.userDatabase}`,
    `map to guest = ${isForGuests ? "Bad User" : "Never"}`,
    `interfaces = ${addresses.map((each) => `${each}/${isIP(each) === 6 ? 128 : 32}`).join(" ")}`,
    "bind interfaces only = yes",
    `smb ports = ${port}`,
    "disable netbios = yes",
    "load printers = no",
    "disable spoolss = yes",
    "printing = bsd",
    "printcap name = /dev/null",
    "enable core files = no",
    ...SERVER_DIRECTORIES.map((each) => `${DIRECTORY_OPTIONS[each]} = ${directory}/${each}`),
    `log file = ${directory}/smbd.log`,
    "max log size = 1024",
    `[${share}]`,
    `path = ${path}`,
    `read only = ${yesNo(isReadOnly)}`,
    `guest ok = ${yesNo(isForGuests)}`,
    ...(validUsers.length === 0 ? [] : [`valid users = ${validUsers.join(" ")}`]),
    ...(forceUser === null ? [] : [`force user = ${forceUser}`]),
    ...settings.options,
  ];
  return `${lines.join("\n")}\n`;
}

const DIRECTORY_OPTIONS: Readonly<Record<(typeof SERVER_DIRECTORIES)[number], string>> = {
  private: "private dir",
  lock: "lock directory",
  state: "state directory",
  cache: "cache directory",
  pid: "pid directory",
  ncalrpc: "ncalrpc dir",
  binddns: "binddns dir",
};
