import {
  type Exclusion,
  judgeVotes,
  type LeaseRecord,
  type ResourcePhase,
  type ResourceType,
  type ServerReport,
  type SettingsReport,
  succession,
  type VirtualServerDefinition,
  type VirtualServerStatus,
  type VoteJudgement,
  virtualServerStatus,
} from "@lockstep/core";
import { type ClusterSnapshot, isQuarantined, situationOf } from "./snapshot.ts";

/**
 * How a cluster does, judged from one snapshot: the answer of `cluster status`, for people and as its JSON document.
 *
 * Who owns is what the store's record says, not what a node says of itself: the report of a node that died still calls
 * it the owner. Whether a node is up is what we saw (its beat grew), not a time that it wrote.
 *
 * Degraded is what somebody should look at: something that administrators want does not hold, or the next loss would not
 * be survived. What they did on purpose (a pause, maintenance, a disabled virtual server) is shown and is not degraded.
 */
export interface ClusterStatus {
  readonly cluster: string;
  readonly healthy: boolean;
  /** What somebody should look at, the gravest first. */
  readonly problems: readonly string[];
  /** Why a lost owner is, or is not, replaced without a person. */
  readonly failover: VoteJudgement;
  readonly nodes: readonly NodeStatus[];
  readonly virtualServers: readonly ServerStatus[];
}

export interface NodeStatus {
  readonly node: string;
  readonly address: string;
  readonly state: "up" | "down" | "paused" | "quarantined";
  readonly isUp: boolean;
  readonly isPaused: boolean;
  /** Wall-clock milliseconds; null: it is not kept out. */
  readonly quarantinedUntil: number | null;
  /** Version of Lockstep; null: its daemon has never reported. */
  readonly version: string | null;
  readonly owns: readonly string[];
  /** When it last said something, by its own wall clock; null: never. */
  readonly reportedAt: number | null;
  readonly problems: readonly string[];
}

/** `lost`: the store names an owner that does not answer, so nobody knows what its resources do. */
export type ServerState = VirtualServerStatus | "lost" | "disabled";

export interface ServerStatus {
  readonly name: string;
  readonly state: ServerState;
  readonly wanted: "online" | "offline";
  readonly isEnabled: boolean;
  readonly inMaintenance: boolean;
  readonly owner: string | null;
  /** The fencing token; null: nobody ever owned it. */
  readonly token: number | null;
  readonly resources: readonly ResourceStatus[];
  /** The settings that follow it, as its owner says; null: it says nothing. */
  readonly settings: SettingsReport | null;
  /** Nodes that would take it from its owner, the best first. */
  readonly candidates: readonly string[];
  readonly rejected: readonly { readonly node: string; readonly why: Exclusion; readonly detail: string }[];
  /** Whether it would be taken over without a person; `why` says why not. */
  readonly automatic: boolean;
  readonly why: string | null;
  readonly problems: readonly string[];
}

export interface ResourceStatus {
  readonly name: string;
  readonly type: ResourceType;
  readonly phase: ResourcePhase;
  readonly problem: string | null;
}

/** Judges a snapshot. Pure. */
export function judgeCluster(snapshot: ClusterSnapshot): ClusterStatus {
  const names = snapshot.members.map(({ node }) => node);
  const failover = judgeVotes(names, snapshot.cluster.votes);
  const nodes = names.sort().map((node) => judgeNode(snapshot, node));
  const virtualServers = [...snapshot.servers]
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .map((definition) => judgeServer(snapshot, definition, failover));
  const problems = [
    ...virtualServers.flatMap((server) => server.problems.map((problem) => `${server.name}: ${problem}`)),
    ...nodes.flatMap(({ node, problems }) => problems.map((problem) => `${node}: ${problem}`)),
    ...versionProblems(nodes),
    ...(snapshot.broken ?? []).map(({ key, problem }) => `the document ${key} cannot be read: ${problem}`),
  ];
  return {
    cluster: snapshot.cluster.name,
    healthy: problems.length === 0,
    problems,
    failover,
    nodes,
    virtualServers,
  };
}

function judgeNode(snapshot: ClusterSnapshot, node: string): NodeStatus {
  const member = snapshot.members.find((each) => each.node === node);
  const report = snapshot.reports.get(node);
  const isUp = snapshot.up.has(node);
  const isOut = member !== undefined && isQuarantined(member, snapshot.now);
  const isPaused = member?.isPaused ?? false;
  const problems: string[] = [];
  if (!isUp) problems.push(report === undefined ? "its daemon has never reported" : "does not answer");
  if (isOut) problems.push("is kept out because it dropped out too often");
  return {
    node,
    address: member?.address ?? "",
    state: !isUp ? "down" : isOut ? "quarantined" : isPaused ? "paused" : "up",
    isUp,
    isPaused,
    quarantinedUntil: isOut ? member.quarantinedUntil : null,
    version: report?.version ?? null,
    owns: snapshot.servers.map(({ name }) => name).filter((name) => snapshot.leases.get(name)?.node === node),
    reportedAt: report?.at ?? null,
    problems,
  };
}

/** Nodes of different versions: whatever moves would meet other code there. */
function versionProblems(nodes: readonly NodeStatus[]): string[] {
  const versions = new Map<string, string[]>();
  for (const { node, version, isUp } of nodes)
    if (isUp && version !== null) versions.set(version, [...(versions.get(version) ?? []), node]);
  if (versions.size < 2) return [];
  const told = [...versions].map(([version, names]) => `${version} on ${names.join(", ")}`);
  return [`nodes run different versions of Lockstep: ${told.join("; ")}`];
}

function judgeServer(
  snapshot: ClusterSnapshot,
  definition: VirtualServerDefinition,
  failover: VoteJudgement,
): ServerStatus {
  const { name } = definition;
  const record = snapshot.leases.get(name) ?? null;
  const owner = record?.node ?? null;
  const report = owner === null ? undefined : snapshot.reports.get(owner)?.servers[name];
  const resources = definition.resources.map(({ name, type }) => ({
    name,
    type,
    phase: report?.resources[name]?.phase ?? ("offline" as const),
    problem: report?.resources[name]?.problem ?? null,
  }));
  const state = stateOf(snapshot, definition, owner, resources);
  // Who would take it if its owner were lost now: the order that all nodes compute.
  const { candidates, rejected } = succession(situationOf(snapshot), definition);
  const successors = candidates.map(({ node }) => node).filter((node) => node !== owner);
  const why = whyNotAutomatic(definition, failover, owner, successors);
  return {
    name,
    state,
    wanted: definition.wanted,
    isEnabled: definition.isEnabled,
    inMaintenance: definition.inMaintenance,
    owner,
    token: record?.token ?? null,
    resources,
    settings: report?.settings ?? null,
    candidates: candidates.map(({ node }) => node),
    rejected: rejected.filter(({ node }) => node !== owner),
    automatic: why === null,
    why,
    problems: [
      ...stateProblems(definition, state, owner, resources),
      ...claimProblems(snapshot, name, record),
      ...(report?.settings?.problems ?? []).map((problem) => `its settings: ${problem}`),
      ...equalityProblems(snapshot, definition),
      // Where somebody wants it offline or untouched, nobody expects one.
      ...(definition.isEnabled && definition.wanted === "online" && !definition.inMaintenance && why !== null
        ? [`no automatic failover: ${why}`]
        : []),
    ],
  };
}

function stateOf(
  snapshot: ClusterSnapshot,
  { isEnabled }: VirtualServerDefinition,
  owner: string | null,
  resources: readonly ResourceStatus[],
): ServerState {
  if (owner !== null && !snapshot.up.has(owner)) return "lost";
  if (!isEnabled && owner === null) return "disabled";
  return virtualServerStatus(resources.map(({ phase }) => phase));
}

function stateProblems(
  { isEnabled, wanted, inMaintenance }: VirtualServerDefinition,
  state: ServerState,
  owner: string | null,
  resources: readonly ResourceStatus[],
): string[] {
  if (state === "lost") return [`its owner ${owner} does not answer`];
  const failed = resources.filter(({ phase, problem }) => phase === "failed" || problem !== null);
  const told = failed.map(({ name, phase, problem }) => `[${name}] ${problem ?? phase}`);
  if (told.length > 0) return told;
  if (inMaintenance) return [];
  if (!isEnabled || wanted === "offline")
    return state === "offline" || state === "disabled" ? [] : [`is ${state}, though it should be offline`];
  if (state === "online") return [];
  return [owner === null ? "nobody owns it" : `is ${state} on ${owner}`];
}

/** Somebody who serves, by his own words, and is not the one whom the store names. */
function claimProblems(snapshot: ClusterSnapshot, name: string, record: LeaseRecord | null): string[] {
  const claims = (report: ServerReport | undefined) => report?.role === "owner";
  return [...snapshot.up]
    .filter((node) => node !== record?.node && claims(snapshot.reports.get(node)?.servers[name]))
    .map((node) => `${node} says that it owns it too (it must notice within the lease's time)`);
}

/** What must be equal on all nodes: the configuration file, and the service's software revision (behaviour 76). */
function equalityProblems(snapshot: ClusterSnapshot, { name, config }: VirtualServerDefinition): string[] {
  const problems: string[] = [];
  const reports = [...snapshot.reports.values()].filter(({ node }) => snapshot.up.has(node));
  if (config?.hash != null) {
    const different = reports.filter(({ configHashes }) => (configHashes[name] ?? null) !== config.hash);
    if (different.length > 0)
      problems.push(`its configuration differs on ${different.map(({ node }) => node).join(", ")}`);
  }
  const revisions = new Map<number, string[]>();
  for (const { node, revisions: found } of reports) {
    const revision = found[name] ?? null;
    if (revision !== null) revisions.set(revision, [...(revisions.get(revision) ?? []), node]);
  }
  if (revisions.size > 1) {
    const told = [...revisions].sort(([a], [b]) => a - b).map(([number, nodes]) => `${number} on ${nodes}`);
    problems.push(`its software revision differs: ${told.join("; ")}`);
  }
  return problems;
}

function whyNotAutomatic(
  { isEnabled, wanted, inMaintenance }: VirtualServerDefinition,
  failover: VoteJudgement,
  owner: string | null,
  successors: readonly string[],
): string | null {
  if (!isEnabled) return "the cluster is not enabled for it";
  if (wanted === "offline") return "it is to be offline";
  if (inMaintenance) return "it is in maintenance";
  if (!failover.automatic) return failover.advice ?? "the votes do not allow it";
  if (successors.length === 0) return owner === null ? "no node can own it" : "no other node can own it";
  return null;
}
