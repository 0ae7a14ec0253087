import {
  CLUSTER_DEFINITION,
  CLUSTER_MEMBER,
  CLUSTER_ORDER,
  type ClusterDefinition,
  type ClusterMember,
  type ClusterOrder,
  type DocumentKind,
  DRILL_ORDER,
  type DrillOrder,
  FAILOVER_RECORD,
  type FailoverRecord,
  HISTORY_ENTRY,
  type HistoryEntry,
  NODE_REPORT,
  type NodeReport,
  PUSHED_CONFIG,
  type PushedConfig,
  READINESS_QUESTION,
  type ReadinessQuestion,
  VIRTUAL_SERVER,
  type VirtualServerDefinition,
} from "@lockstep/core";

/** Where one document stands, and what it is. */
export interface DocumentAddress<T> {
  readonly key: string;
  readonly kind: DocumentKind<T>;
}

/** Documents of one kind, one for each name. */
export interface DocumentFolder<T> {
  readonly prefix: string;
  readonly kind: DocumentKind<T>;
  /** The name that a document says it has; not there: it says none. */
  readonly nameOf?: (value: T) => { readonly at: string; readonly name: string };
}

export const CLUSTER: DocumentAddress<ClusterDefinition> = { key: "cluster", kind: CLUSTER_DEFINITION };
export const MEMBERS: DocumentFolder<ClusterMember> = {
  ...{ prefix: "member/", kind: CLUSTER_MEMBER },
  nameOf: ({ node }) => ({ at: "node", name: node }),
};
export const REPORTS: DocumentFolder<NodeReport> = {
  ...{ prefix: "node/", kind: NODE_REPORT },
  nameOf: ({ node }) => ({ at: "node", name: node }),
};
export const SERVERS: DocumentFolder<VirtualServerDefinition> = {
  ...{ prefix: "server/", kind: VIRTUAL_SERVER },
  nameOf: ({ name }) => ({ at: "name", name }),
};
export const ORDERS: DocumentFolder<ClusterOrder> = { prefix: "order/", kind: CLUSTER_ORDER };
export const FAILOVERS: DocumentFolder<FailoverRecord> = { prefix: "failover/", kind: FAILOVER_RECORD };
export const READINESS: DocumentFolder<ReadinessQuestion> = { prefix: "ready/", kind: READINESS_QUESTION };
export const CONFIGS: DocumentFolder<PushedConfig> = { prefix: "config/", kind: PUSHED_CONFIG };
export const DRILLS: DocumentFolder<DrillOrder> = { prefix: "drill/", kind: DRILL_ORDER };
export const HISTORY: DocumentFolder<HistoryEntry> = { prefix: "history/", kind: HISTORY_ENTRY };

/** The document of one name in a folder. */
export const at = <T>(folder: DocumentFolder<T>, name: string): DocumentAddress<T> => ({
  key: folder.prefix + name,
  kind: kindOf(folder, name),
});

/**
 * How the document of that name is read: one that says that it is another's is a copy or a mistake, and whoever believed it
 * would serve, pause or report somebody else.
 */
export function kindOf<T>({ kind, nameOf }: DocumentFolder<T>, name: string): DocumentKind<T> {
  if (nameOf === undefined) return kind;
  return {
    format: kind.format,
    parse: (text) => {
      const parsed = kind.parse(text);
      if (!parsed.ok) return parsed;
      const own = nameOf(parsed.value);
      if (own.name === name) return parsed;
      const problem = `says that it is of ${own.name}, and stands where that of ${name} belongs`;
      return { ok: false, faults: [{ at: own.at, problem }] };
    },
  };
}

const NUMBER_DIGITS = 12;

/** One entry of a node's history; the keys of one node are in the order of their numbers. */
export const historyAt = (node: string, number: number): DocumentAddress<HistoryEntry> =>
  at(HISTORY, `${node}/${String(number).padStart(NUMBER_DIGITS, "0")}`);
