import {
  formatDependency,
  type LeaseTimes,
  type ResourceDefinition,
  type ResourceSetting,
  type VirtualServerDefinition,
} from "@lockstep/core";
import { usage } from "../options.ts";
import type { RawDefinition, RawResource } from "./definition.ts";
import { readTimes } from "./lease-times.ts";

/** What is said of a virtual server as a whole; `add` and `set` take these. */
export interface ServerOptions {
  readonly preferred?: readonly string[];
  readonly possible?: readonly string[];
  readonly antiAffinity?: readonly string[];
  readonly weight?: number;
  readonly failback?: string;
  readonly failoverLimit?: string;
  readonly failsafe?: boolean;
  readonly lockDelay?: number;
  readonly networkNameInside?: boolean;
  readonly checkpoint?: readonly string[];
  readonly configFile?: string;
  /** `TERM=VALUE` of its own lease. */
  readonly time?: readonly string[];
  /** `RESOURCE.SETTING=VALUE` */
  readonly set?: readonly string[];
  /** `RESOURCE.FIELD=VALUE` of its policy. */
  readonly policy?: readonly string[];
  /** `RESOURCE=EXPRESSION` */
  readonly needs?: readonly string[];
}

/** The short words for resources; `add` takes them too. */
export interface ResourceOptions {
  readonly address?: readonly string[];
  readonly networkName?: string;
  /** The name server that is told; without one every node's hosts file is. */
  readonly nameServer?: string;
  readonly nameKey?: string;
  readonly installation?: string;
  readonly service?: string;
  readonly argument?: readonly string[];
  readonly mount?: readonly string[];
  readonly share?: readonly string[];
}

/**
 * The resources that the short words stand for, wired as the source documents want it (S12, S15): the name needs an
 * address, the service needs the name and every mount, a share needs the service whose log it shows.
 */
export function resourcesOf(options: ResourceOptions): RawResource[] {
  const addresses = (options.address ?? []).map((text, index) => ({
    ...{ name: numbered("address", index), type: "ip-address", settings: readAddress(text) },
  }));
  const mounts = (options.mount ?? []).map((text, index) => ({
    ...{ name: numbered("mount", index), type: "mount", settings: readMount(text) },
  }));
  const plain = addresses.map(({ settings }) => (settings.address ?? "").replace(/\/.*$/, ""));
  const anyAddress = addresses.length === 0 ? [] : [addresses.map(({ name }) => name)];
  const names =
    options.networkName === undefined
      ? []
      : [
          {
            ...{ name: "name", type: "network-name", settings: nameSettings(options, plain) },
            needs: formatDependency(anyAddress),
          },
        ];
  const serviceNeeds = [...(names.length > 0 ? [["name"]] : anyAddress), ...mounts.map(({ name }) => [name])];
  const services =
    options.service === undefined
      ? []
      : [
          {
            ...{ name: "service", type: "generic-service" },
            settings: readService(options.service, options),
            needs: formatDependency(serviceNeeds),
          },
        ];
  if (options.service === undefined && (options.argument ?? []).length > 0)
    throw usage("--argument needs --service", "--service PROGRAM");
  const shares = (options.share ?? []).map((text, index) => ({
    ...{ name: numbered("share", index), type: "file-share", settings: readShare(text, plain) },
    needs: formatDependency(services.length > 0 ? [["service"]] : serviceNeeds),
  }));
  return [...addresses, ...names, ...mounts, ...services, ...shares];
}

const numbered = (name: string, index: number) => (index === 0 ? name : `${name}-${index + 1}`);

/** `10.0.0.50/24@eth0`; without a device the node finds the one of that network. */
function readAddress(text: string): Record<string, string> {
  const [, address, device] = /^([0-9A-Fa-f:.]+\/[0-9]{1,3})(?:@([^\s@]+))?$/.exec(text) ?? [];
  if (address === undefined)
    throw usage("--address takes an address with its network", "10.0.0.50/24 or 10.0.0.50/24@eth0", text);
  return { address, ...(device === undefined ? {} : { interface: device }) };
}

/** At a name server where one is named, else in the hosts file of the node that owns it. */
function nameSettings(
  { networkName = "", nameServer, nameKey }: ResourceOptions,
  addresses: readonly string[],
): Record<string, ResourceSetting> {
  if (nameServer === undefined && nameKey !== undefined)
    throw usage("--name-key needs --name-server", "--name-server 10.0.0.2", nameKey);
  return {
    ...{ name: networkName, addresses },
    ...(nameServer === undefined ? { mode: "hosts" } : { server: nameServer }),
    ...(nameKey === undefined ? {} : { keyFile: nameKey }),
  };
}

/** `/dev/sdb1:/data` or `server:/export:/data`, with `:TYPE` after an equals sign: `…=nfs`. */
function readMount(text: string): Record<string, string> {
  const [, device, directory, type] = /^(.+):(\/[^=]*)(?:=([A-Za-z0-9._-]+))?$/.exec(text) ?? [];
  if (device === undefined || directory === undefined)
    throw usage("--mount takes what and where", "/dev/sdb1:/data or server:/export:/data=nfs", text);
  return { device, directory, ...(type === undefined ? {} : { type }) };
}

/** `logs=/data/logs` */
function readShare(text: string, addresses: readonly string[]): Record<string, ResourceSetting> {
  const [, share, path] = /^([^=/\\]+)=(\/.*)$/.exec(text) ?? [];
  if (share === undefined || path === undefined)
    throw usage("--share takes a name and a directory", "logs=/data/logs", text);
  return { share, path, ...(addresses.length === 0 ? {} : { address: addresses }) };
}

/** A program by its absolute path, the configuration of a job service (`.toml`), or a systemd unit by its name. */
function readService(
  text: string,
  { argument, installation }: ResourceOptions,
): Record<string, ResourceSetting> {
  const words = argument ?? [];
  const of = installation === undefined ? {} : { installation };
  const isProgram = text.startsWith("/") && !text.endsWith(".toml");
  if (words.length > 0 && !isProgram)
    throw usage("--argument is for a program", "--service /opt/app/bin/server", text);
  if (isProgram) return { program: text, ...(words.length === 0 ? {} : { arguments: words }), ...of };
  if (text.startsWith("/")) return { jobService: text, ...of };
  if (/^[A-Za-z0-9:_.@-]+\.service$/.test(text)) return { unit: text, ...of };
  throw usage(
    "--service takes a program, the configuration of a job service, or a systemd unit",
    "/opt/app/bin/server, /srv/app/JobService.toml or app.service",
    text,
  );
}

/** Its own lease: the cluster's, or the one that it had, with the terms that are named. */
export const withTimes = (
  definition: VirtualServerDefinition,
  cluster: LeaseTimes,
  { time }: ServerOptions,
): VirtualServerDefinition =>
  time === undefined ? definition : { ...definition, lease: readTimes(definition.lease ?? cluster, time) };

/** The members of the document that the options give. */
export function membersOf(options: ServerOptions): RawDefinition {
  const { preferred, antiAffinity, weight, failsafe, lockDelay, checkpoint, configFile } = options;
  return {
    ...(preferred === undefined ? {} : { preferredOwners: preferred }),
    ...(antiAffinity === undefined ? {} : { antiAffinity }),
    ...(weight === undefined ? {} : { weight }),
    ...(options.failback === undefined ? {} : { failback: readFailback(options.failback) }),
    ...(options.failoverLimit === undefined ? {} : { failover: readLimit(options.failoverLimit) }),
    ...(failsafe === undefined ? {} : { failsafe }),
    ...(lockDelay === undefined ? {} : { lockDelayMs: lockDelay }),
    ...(options.networkNameInside === undefined ? {} : { useNetworkName: options.networkNameInside }),
    ...(checkpoint === undefined ? {} : { checkpoints: checkpoint }),
    ...(configFile === undefined ? {} : { config: { path: configFile, hash: null } }),
  };
}

function readFailback(text: string) {
  const [, from, to] = /^([0-9]{1,2})-([0-9]{1,2})$/.exec(text) ?? [];
  if (text === "off") return { allowed: false, window: null };
  if (text === "on") return { allowed: true, window: null };
  if (from !== undefined && to !== undefined)
    return { allowed: true, window: { fromHour: Number(from), toHour: Number(to) } };
  throw usage("--failback takes off, on, or hours", "off, on or 22-5", text);
}

const HOUR_MS = 3_600_000;

function readLimit(text: string) {
  const [, count, hours] = /^([0-9]{1,4})\/([0-9]{1,4})$/.exec(text) ?? [];
  if (count === undefined || hours === undefined)
    throw usage("--failover-limit takes a number of failovers and hours", "2/6", text);
  return { threshold: Number(count), periodMs: Number(hours) * HOUR_MS };
}

/** Settings, policies and dependencies of single resources, written onto those that there are. Throws USAGE. */
export function adjustResources(resources: readonly RawResource[], options: ServerOptions): RawResource[] {
  const changed = new Map(resources.map((resource) => [String(resource.name), { ...resource }]));
  const find = (name: string, option: string, text: string) => {
    const resource = changed.get(name);
    if (resource === undefined)
      throw usage(`${option} names a resource that there is not`, [...changed.keys()].join(", "), text);
    return resource;
  };
  for (const [option, member] of [
    ["--set", "settings"],
    ["--policy", "policy"],
  ] as const)
    for (const text of (member === "settings" ? options.set : options.policy) ?? []) {
      const [, name, key, value] = /^(.+?)\.([A-Za-z0-9_.-]+)=(.*)$/s.exec(text) ?? [];
      if (name === undefined || key === undefined || value === undefined)
        throw usage(`${option} takes RESOURCE.NAME=VALUE`, "address.device=eth1", text);
      const resource = find(name, option, text);
      changed.set(name, {
        ...resource,
        [member]: { ...toRecord(resource[member]), [key]: readValue(value) },
      });
    }
  for (const text of options.needs ?? []) {
    const [, name, needs] = /^([^=]+)=(.*)$/s.exec(text) ?? [];
    if (name === undefined || needs === undefined)
      throw usage("--needs takes RESOURCE=EXPRESSION", "service=[name] and [mount]", text);
    changed.set(name, { ...find(name, "--needs", text), needs });
  }
  const { possible } = options;
  if (possible === undefined) return [...changed.values()];
  return [...changed.values()].map((resource) => ({
    ...resource,
    policy: { ...toRecord(resource.policy), possibleOwners: possible },
  }));
}

const toRecord = (value: unknown): Record<string, unknown> =>
  typeof value === "object" && value !== null ? { ...value } : {};

/**
 * A value as JSON where it is a number, true, false, null or a list; else the text as it is. A number only where nothing
 * of it is lost: `1.10` and `007` are names or versions. In a list everything is a text.
 */
function readValue(text: string): unknown {
  if (!/^(?:-?[0-9]+(?:\.[0-9]+)?|true|false|null|\[.*\])$/s.test(text)) return text;
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === "number") return String(value) === text ? value : text;
    if (Array.isArray(value))
      return value.map((each: unknown) => (typeof each === "number" ? String(each) : each));
    return value;
  } catch {
    return text;
  }
}

/** A definition as the raw document that `set` changes. */
export const rawResources = ({ resources }: VirtualServerDefinition): RawResource[] =>
  resources.map((resource: ResourceDefinition) => ({ ...resource }));
