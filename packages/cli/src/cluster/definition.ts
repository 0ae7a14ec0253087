import {
  DEFAULT_VIRTUAL_SERVER,
  type DocumentFault,
  findServerFaults,
  type KeyPath,
  parseDependency,
  VIRTUAL_SERVER,
  type VirtualServerDefinition,
} from "@lockstep/core";
import { type Fault, LockstepError } from "@lockstep/protocol/wire";

/**
 * A virtual server as people write it, in a TOML file or by options, made into a definition. Both become one raw
 * document first and are read by the reader of the cluster's own documents, so that what it refuses and what it fills in
 * is one thing. `needs` stands for `policy.dependency`, because expressions are what administrators know.
 */
export interface RawDefinition {
  readonly [member: string]: unknown;
  readonly resources?: readonly RawResource[];
}

export interface RawResource {
  readonly [member: string]: unknown;
  readonly needs?: unknown;
  readonly policy?: unknown;
}

/** The definition, or every fault at once, in words of the raw document: `resources[1].needs`. */
export function readDefinition(
  name: string,
  raw: RawDefinition,
  base: VirtualServerDefinition = { ...DEFAULT_VIRTUAL_SERVER, name },
): { readonly definition: VirtualServerDefinition | null; readonly faults: readonly DocumentFault[] } {
  const faults: DocumentFault[] = [];
  const resources = Array.isArray(raw.resources)
    ? raw.resources.map((resource: unknown, index) => spellOut(resource, index, faults))
    : raw.resources;
  if (raw.name !== undefined && raw.name !== name)
    faults.push({ at: "name", problem: `is ${JSON.stringify(raw.name)}, not ${name}` });
  const written: unknown = JSON.parse(VIRTUAL_SERVER.format(base));
  const whole = {
    ...(isRecord(written) ? written : {}),
    ...raw,
    name,
    ...(resources === undefined ? {} : { resources }),
  };
  const parsed = VIRTUAL_SERVER.parse(JSON.stringify(whole));
  if (parsed.ok && faults.length === 0) return { definition: parsed.value, faults };
  return { definition: null, faults: [...faults, ...(parsed.ok ? [] : parsed.faults)] };
}

/** A resource with `needs` read into its policy. */
function spellOut(resource: unknown, index: number, faults: DocumentFault[]): unknown {
  if (!isRecord(resource) || !("needs" in resource)) return resource;
  const { needs, policy, ...rest } = resource;
  const at = `resources[${index}].needs`;
  if (typeof needs !== "string") {
    faults.push({ at, problem: "must be a text such as [address] and ([disk 1] or [disk 2])" });
    return rest;
  }
  const read = parseDependency(needs);
  if (!read.ok) {
    faults.push({ at, problem: `character ${read.at + 1}: ${read.problem}` });
    return rest;
  }
  return { ...rest, policy: { ...(isRecord(policy) ? policy : {}), dependency: read.dependency } };
}

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** The key of a fault as a path in the file, for its line: `resources[1].policy` is `["resources", 1, "policy"]`. */
export function toKeyPath(at: string): KeyPath {
  return at
    .split(/\.|\[([0-9]+)\]/)
    .filter((part) => part !== undefined && part !== "")
    .map((part) => (/^[0-9]+$/.test(part) ? Number(part) : part));
}

/** Throws VIRTUAL_SERVER_INVALID with every fault; nothing where there is none. */
export function refuseDefinition(name: string, faults: readonly Fault[]): void {
  if (faults.length === 0) return;
  throw new LockstepError("VIRTUAL_SERVER_INVALID", `the definition of ${name} cannot be carried out`, {
    hint: "Mend what is named and try again; nothing was changed.",
    faults,
  });
}

/** What is wrong with a definition in this cluster, in a form for people. */
export function clusterFaults(
  definition: VirtualServerDefinition,
  nodes: readonly string[],
  others: readonly string[],
): Fault[] {
  return findServerFaults(definition, nodes, others).map(({ at, problem }) => ({
    where: nameResource(definition, at),
    problem,
  }));
}

/** `resources[1].policy.x` said with the name of the resource: `[service] policy.x`. */
function nameResource({ resources }: VirtualServerDefinition, at: string): string {
  return at.replace(/^resources\[([0-9]+)\]\.?/, (whole, index: string) => {
    const resource = resources[Number(index)];
    return resource === undefined ? whole : `[${resource.name}] `;
  });
}
