import type {
  ClusterDefinition,
  ClusterMember,
  NodeFinding,
  NodeReport,
  VirtualServerDefinition,
} from "@lockstep/core";
import type { Clock } from "@lockstep/platform";
import type { Documents } from "../coordination/documents.ts";
import { readClusterKey } from "../node/cluster-key.ts";
import { looking } from "./finding.ts";
import {
  examineClockSource,
  examineDirectory,
  examineKey,
  examinePermissions,
  examineTools,
} from "./machine.ts";
import {
  examineAddress,
  examineClocks,
  examineReach,
  examineVersions,
  lookAtPeers,
  type PeerSubject,
} from "./peers.ts";
import { examineServer } from "./services.ts";
import { judgeCommits, measureCommits } from "./store.ts";

/**
 * Everything that this machine needs to be a node of this cluster, looked at at once: `cluster join` does before it joins,
 * and each daemon from time to time, because what was right when a node joined may be gone when it has to take over.
 * Nothing is changed, but for a small document of the node's own whose writing is timed.
 */
export interface ExaminationSubject {
  readonly node: string;
  readonly address: string;
  /** Version of Lockstep on this machine. */
  readonly version: string;
  readonly dataDirectory: string;
  readonly keyFile: string;
  readonly cluster: ClusterDefinition;
  readonly members: readonly ClusterMember[];
  readonly reports: readonly NodeReport[];
  /** Nodes whose beat was seen to grow. */
  readonly up: ReadonlySet<string>;
  readonly servers: readonly VirtualServerDefinition[];
  readonly documents: Documents;
  readonly clock: Clock;
}

/** Looks at all of it. Never throws: what cannot be looked at is a finding. */
export async function examineNode(subject: ExaminationSubject): Promise<NodeFinding[]> {
  const { servers, cluster } = subject;
  const peers: PeerSubject = subject;
  const reports = subject.reports.filter(({ node }) => subject.up.has(node));
  const looks = [
    looking("store", async () =>
      judgeCommits(await measureCommits(subject.documents, subject.node, subject.clock), cluster.lease),
    ),
    looking("key", () => examineKey(subject.keyFile, cluster.keyDigest)),
    looking("version", () => examineVersions(peers, reports)),
    looking("address", () => examineAddress(peers)),
    looking("reach", async () => {
      const key = await readClusterKey(subject.keyFile).catch(() => null);
      // Said above; without it nobody answers us.
      if (key === null) return [];
      const looks = await lookAtPeers(peers, subject.up, key, subject.clock);
      return [...examineReach(looks), ...examineClocks(looks, cluster.lease.clockError)];
    }),
    looking("clock", () => examineClockSource()),
    looking("data", () => examineDirectory(subject.dataDirectory)),
    looking("permissions", () => examinePermissions(servers)),
    looking("tools", () => examineTools(servers)),
    ...servers.map((server) => looking(server.name, () => examineServer(server))),
  ];
  return (await Promise.all(looks)).flat();
}
