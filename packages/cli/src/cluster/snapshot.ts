import type {
  ClusterDefinition,
  ClusterMember,
  ClusterOrder,
  ClusterSituation,
  ConfigRule,
  LeaseRecord,
  NodeReport,
  NodeView,
  ServerView,
  VirtualServerDefinition,
} from "@lockstep/core";

/** Everything that the store says of a cluster, and what we saw ourselves: which nodes go on. */
export interface ClusterSnapshot {
  readonly cluster: ClusterDefinition;
  readonly members: readonly ClusterMember[];
  readonly reports: ReadonlyMap<string, NodeReport>;
  readonly servers: readonly VirtualServerDefinition[];
  readonly orders: ReadonlyMap<string, ClusterOrder>;
  /** Documents that cannot be read: daemons go by what they knew of them last. Not there: none. */
  readonly broken?: readonly { readonly key: string; readonly problem: string }[];
  /** By virtual server; null: nobody ever owned it. */
  readonly leases: ReadonlyMap<string, LeaseRecord | null>;
  /** Nodes whose beat grew while we looked. */
  readonly up: ReadonlySet<string>;
  /** Wall-clock milliseconds of this machine, for quarantine and for people. */
  readonly now: number;
}

export const isQuarantined = ({ quarantinedUntil }: ClusterMember, now: number): boolean =>
  quarantinedUntil !== null && quarantinedUntil > now;

/** As the daemons see it when they decide; we are none of the nodes. */
export const situationOf = (snapshot: ClusterSnapshot): ClusterSituation => ({
  ...{ node: "", instance: "", now: snapshot.now, hour: new Date(snapshot.now).getHours() },
  ...{ cluster: snapshot.cluster, reports: snapshot.reports, up: snapshot.up, orders: snapshot.orders },
  members: new Map(snapshot.members.map((member) => [member.node, member])),
  servers: new Map(snapshot.servers.map((server) => [server.name, server])),
  ...{
    leases: snapshot.leases,
    failovers: new Map(),
    taking: new Set(),
    commitments: new Map(),
    failedHere: new Set(),
  },
});

/** The nodes as placement sees them for one virtual server. */
export function nodeViews(snapshot: ClusterSnapshot, server: string): NodeView[] {
  return snapshot.members.map((member) => ({
    name: member.node,
    isUp: snapshot.up.has(member.node),
    isPaused: member.isPaused,
    isQuarantined: isQuarantined(member, snapshot.now),
    configHash: snapshot.reports.get(member.node)?.configHashes[server] ?? null,
  }));
}

export function serverView(snapshot: ClusterSnapshot, definition: VirtualServerDefinition): ServerView {
  return {
    name: definition.name,
    owner: snapshot.leases.get(definition.name)?.node ?? null,
    preferredOwners: definition.preferredOwners,
    possibleOwners: definition.resources.flatMap(({ policy }) =>
      policy.possibleOwners === null ? [] : [policy.possibleOwners],
    ),
    antiAffinity: definition.antiAffinity,
    weight: definition.weight,
  };
}

export const configRule = (snapshot: ClusterSnapshot, definition: VirtualServerDefinition): ConfigRule => ({
  expectedHash: definition.config?.hash ?? null,
  policy: snapshot.cluster.configPolicy,
});
