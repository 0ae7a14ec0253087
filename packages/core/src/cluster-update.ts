import type { NodeReport } from "./cluster-types.ts";
import { closed, documentKind, listOf, orNull, textLike, textUpTo, whole } from "./document-shape.ts";

/**
 * How far the update of a cluster has come, so that whoever goes on after a failure begins where it stopped. The document
 * is there from the first node to the last.
 */
export interface ClusterUpdate {
  /** What is run for each node; the same update is told by it. */
  readonly command: string;
  /** Wall-clock milliseconds, for people. */
  readonly begunAt: number;
  readonly done: readonly string[];
  /** Paused and drained for the update; null: none is at the moment. */
  readonly current: string | null;
}

const NODES_MAX = 64;
const node = textLike(/^[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$/, "the name of a node");

/** The document under `update`. */
export const CLUSTER_UPDATE = documentKind<ClusterUpdate>(
  "lockstep-cluster-update/1",
  closed<ClusterUpdate>({
    command: textUpTo(4_000),
    begunAt: whole(),
    done: listOf(node, NODES_MAX),
    current: orNull(node),
  }),
);

/**
 * Which node is updated next: the one where it stopped, else the one that owns least, so that each virtual server moves
 * once, from a node that is not updated to one that is (behaviour 74). Null: all are done.
 */
export function nextToUpdate(
  nodes: readonly string[],
  owners: readonly (string | null)[],
  { done, current }: Pick<ClusterUpdate, "done" | "current">,
): string | null {
  const left = nodes.filter((each) => !done.includes(each));
  if (current !== null && left.includes(current)) return current;
  const owned = (name: string) => owners.filter((owner) => owner === name).length;
  return left.sort((a, b) => owned(a) - owned(b) || (a < b ? -1 : 1))[0] ?? null;
}

/** What an update changes on a node. */
export type NodeSoftware = Pick<NodeReport, "node" | "version" | "revisions">;

/**
 * Where nodes do not have the same software: the version of Lockstep, and the revision of each virtual server, which also one
 * of them alone may name. In words, with every node by its name; nothing: they are alike.
 */
export function findUnlikeSoftware(reports: readonly NodeSoftware[]): string[] {
  const servers = new Set(reports.flatMap(({ revisions }) => Object.keys(revisions)));
  return [
    differenceOf("Lockstep", reports, ({ version }) => version),
    ...[...servers]
      .sort()
      .map((server) =>
        differenceOf(`revision of ${server}:`, reports, ({ revisions }) =>
          String(revisions[server] ?? "none"),
        ),
      ),
  ].filter((each) => each !== null);
}

function differenceOf(
  what: string,
  reports: readonly NodeSoftware[],
  read: (report: NodeSoftware) => string,
): string | null {
  const nodes = new Map<string, string[]>();
  for (const report of reports) {
    const value = read(report);
    nodes.set(value, [...(nodes.get(value) ?? []), report.node]);
  }
  if (nodes.size < 2) return null;
  return `${what} ${[...nodes].map(([value, names]) => `${value} on ${names.join(", ")}`).join("; ")}`;
}
