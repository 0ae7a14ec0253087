/**
 * Where a virtual server belongs: the most preferred node that is up, not paused, and can own all of its resources; and
 * for each node that is no candidate, why. Semantics of Windows failover clusters, with two things of our own: a node
 * whose configuration differs is no candidate, and among equals the least loaded goes first instead of a random one, so
 * that every node computes the same order.
 */
export interface NodeView {
  readonly name: string;
  readonly isUp: boolean;
  /** Paused keeps what it has and takes nothing. */
  readonly isPaused: boolean;
  /** Quarantined after it dropped out too often. */
  readonly isQuarantined: boolean;
  /** The hash of the configuration that it runs; null: it has reported none. */
  readonly configHash: string | null;
}

export interface ServerView {
  readonly name: string;
  readonly owner: string | null;
  /** Most preferred first; empty: no preference. */
  readonly preferredOwners: readonly string[];
  /** What its resources can run on, one entry for each resource that is restricted. */
  readonly possibleOwners: readonly (readonly string[])[];
  /** Virtual servers that share a class are kept apart as long as there is another node. */
  readonly antiAffinity: readonly string[];
  /** How much of a node it takes, in whatever unit all use. */
  readonly weight: number;
}

export interface ConfigRule {
  readonly expectedHash: string | null;
  /** Whether a node that differs is kept away, or only named. */
  readonly policy: "block" | "warn";
}

export type Exclusion =
  | "down"
  | "paused"
  | "quarantined"
  | "not-possible"
  | "config-differs"
  | "config-unknown"
  | "excluded";

export interface OwnerPlacement {
  /** In the order in which they should own. */
  readonly candidates: readonly PlacedNode[];
  readonly rejected: readonly { readonly node: string; readonly why: Exclusion; readonly detail: string }[];
}

export interface PlacedNode {
  readonly node: string;
  /** Its place in the list of preferred owners; null: not on it. */
  readonly preference: number | null;
  /** The weights of the virtual servers that it owns already. */
  readonly load: number;
  /** Virtual servers there that should be kept apart from this one. */
  readonly together: readonly string[];
  readonly warning: string | null;
}

/** `servers`: all virtual servers, this one too. `excluded`: nodes that just failed, or that are being drained. */
export function place(
  server: ServerView,
  nodes: readonly NodeView[],
  servers: readonly ServerView[],
  config: ConfigRule,
  excluded: readonly string[] = [],
): OwnerPlacement {
  const candidates: PlacedNode[] = [];
  const rejected: { node: string; why: Exclusion; detail: string }[] = [];
  for (const node of nodes) {
    const reason = excluded.includes(node.name)
      ? ({ why: "excluded", detail: "was left, or has just failed" } as const)
      : rejectionOf(node, server, config);
    if (reason !== null) rejected.push({ node: node.name, ...reason });
    else candidates.push(describe(node, server, servers, config));
  }
  return { candidates: candidates.sort(compare), rejected };
}

function rejectionOf(
  node: NodeView,
  server: ServerView,
  config: ConfigRule,
): { why: Exclusion; detail: string } | null {
  if (!node.isUp) return { why: "down", detail: "does not answer" };
  if (node.isQuarantined) return { why: "quarantined", detail: "dropped out too often" };
  // It keeps what it has.
  if (node.isPaused && server.owner !== node.name) return { why: "paused", detail: "takes nothing" };
  const possible = server.possibleOwners.every((owners) => owners.includes(node.name));
  if (!possible) return { why: "not-possible", detail: "cannot own every resource" };
  if (config.policy === "warn" || config.expectedHash === null) return null;
  if (node.configHash === null)
    return { why: "config-unknown", detail: "has not reported its configuration" };
  if (node.configHash === config.expectedHash) return null;
  return { why: "config-differs", detail: differs(node.configHash, config.expectedHash) };
}

const SHOWN_DIGITS = 12;
const differs = (found: string, expected: string) =>
  `its configuration is ${found.slice(0, SHOWN_DIGITS)}, the cluster's ${expected.slice(0, SHOWN_DIGITS)}`;

function describe(
  { name, configHash }: NodeView,
  server: ServerView,
  servers: readonly ServerView[],
  { expectedHash }: ConfigRule,
): PlacedNode {
  const there = servers.filter((other) => other.owner === name && other.name !== server.name);
  const preference = server.preferredOwners.indexOf(name);
  return {
    node: name,
    preference: preference < 0 ? null : preference,
    load: there.reduce((sum, { weight }) => sum + weight, 0),
    together: there
      .filter(({ antiAffinity }) => antiAffinity.some((name) => server.antiAffinity.includes(name)))
      .map((other) => other.name),
    warning:
      expectedHash === null || configHash === expectedHash
        ? null
        : differs(configHash ?? "unknown", expectedHash),
  };
}

/** Kept apart before anything else, then preference, then load, then the name, so that all nodes agree. */
function compare(a: PlacedNode, b: PlacedNode): number {
  const last = Number.MAX_SAFE_INTEGER;
  return (
    Number(a.together.length > 0) - Number(b.together.length > 0) ||
    (a.preference ?? last) - (b.preference ?? last) ||
    a.load - b.load ||
    (a.node < b.node ? -1 : a.node > b.node ? 1 : 0)
  );
}

export interface FailbackPolicy {
  readonly allowed: boolean;
  /** Hours of the day from 0 to 23, from the beginning of one to the beginning of the other; null: at any time. */
  readonly window: { readonly fromHour: number; readonly toHour: number } | null;
}

/** Off, as in Windows. */
export const DEFAULT_FAILBACK: FailbackPolicy = { allowed: false, window: null };

/**
 * Where a virtual server that runs should go back to, or null. Only if it is allowed, there is a list of preferred
 * owners, a better one is a candidate again, and the hour is right. `hour`: of the day, where the cluster is, 0 to 23.
 */
export function findFailback(
  server: ServerView,
  placement: OwnerPlacement,
  policy: FailbackPolicy,
  hour: number,
): string | null {
  if (!policy.allowed || server.owner === null || server.preferredOwners.length === 0) return null;
  if (policy.window !== null && !isInWindow(hour, policy.window)) return null;
  const place = server.preferredOwners.indexOf(server.owner);
  const present = place < 0 ? Number.POSITIVE_INFINITY : place;
  const better = placement.candidates.find(
    ({ preference, together }) => preference !== null && preference < present && together.length === 0,
  );
  return better?.node ?? null;
}

function isInWindow(hour: number, { fromHour, toHour }: { fromHour: number; toHour: number }): boolean {
  // The same hour twice means that hour alone: never more than was asked for.
  if (fromHour === toHour) return hour === fromHour;
  return fromHour < toHour ? hour >= fromHour && hour < toHour : hour >= fromHour || hour < toHour;
}

/**
 * Spreads virtual servers that nobody owns over the nodes: the heaviest first, each to the first node of its placement,
 * in which the load of those placed before counts. Returns who goes where; null: no candidate.
 */
export function spread(
  servers: readonly ServerView[],
  nodes: readonly NodeView[],
  config: ConfigRule,
): ReadonlyMap<string, string | null> {
  const placed = new Map(servers.map((server) => [server.name, server]));
  const result = new Map<string, string | null>();
  const homeless = servers.filter(({ owner }) => owner === null);
  for (const server of homeless.sort((a, b) => b.weight - a.weight || (a.name < b.name ? -1 : 1))) {
    const [first] = place(server, nodes, [...placed.values()], config).candidates;
    result.set(server.name, first?.node ?? null);
    placed.set(server.name, { ...server, owner: first?.node ?? null });
  }
  return result;
}
