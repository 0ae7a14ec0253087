import { type NodeReport, suggest, type VirtualServerDefinition } from "@lockstep/core";
import { systemClock } from "@lockstep/platform";
import { LockstepError } from "@lockstep/protocol/wire";
import type { ClusterSession } from "../commands/cluster-session.ts";
import type { ClusterSnapshot } from "./snapshot.ts";

const LOOK_MS = 100;

/**
 * Which nodes go on, as one who looks from outside sees it: a node is up when its beat grew within the lease's waiting
 * time of OUR clock. Of a first look nothing can be said yet.
 */
export class BeatWatch {
  readonly #downMs: number;
  readonly #seen = new Map<string, { readonly mark: string; readonly at: number; readonly grew: boolean }>();

  /** `waitMs`: the lease's. A daemon beats four times within it, and five beats may be missed. */
  constructor(waitMs: number) {
    this.#downMs = waitMs * 1.25;
  }

  /** `now`: milliseconds of a clock that only grows. */
  see(reports: Iterable<NodeReport>, now: number): void {
    for (const { node, instance, beat } of reports) {
      const mark = `${instance} ${beat}`;
      const before = this.#seen.get(node);
      if (before?.mark !== mark) this.#seen.set(node, { mark, at: now, grew: before !== undefined });
    }
  }

  up(now: number): Set<string> {
    const nodes = [...this.#seen].filter(([, { grew, at }]) => grew && now - at <= this.#downMs);
    return new Set(nodes.map(([node]) => node));
  }
}

/**
 * One snapshot of the cluster. Looks until every member was seen to go on, at most for the lease's waiting time: so long
 * it takes to say that one is down. `watch` keeps what was seen for the next look of the same command.
 */
export async function takeSnapshot(
  { documents, coordination, signal }: ClusterSession,
  watch?: BeatWatch,
): Promise<ClusterSnapshot> {
  const cluster = await documents.readCluster();
  const beats = watch ?? new BeatWatch(cluster.lease.waitMs);
  const until = systemClock.monotonic() + cluster.lease.waitMs;
  for (;;) {
    const [members, reports] = await Promise.all([documents.members(), documents.reports()]);
    const now = systemClock.monotonic();
    beats.see(reports.found.values(), now);
    const up = beats.up(now);
    const isKnown = [...members.found.keys()].every((node) => up.has(node) || !reports.found.has(node));
    if (!isKnown && watch === undefined && now < until) {
      await systemClock.sleep(LOOK_MS, signal);
      signal.throwIfAborted();
      continue;
    }
    const [servers, orders] = await Promise.all([documents.servers(), documents.orders()]);
    const names = [...servers.found.keys()];
    const leases = await Promise.all(
      names.map(async (name) => [name, (await coordination.read(name)).record] as const),
    );
    return {
      cluster,
      members: [...members.found.values()],
      reports: reports.found,
      servers: [...servers.found.values()],
      orders: orders.found,
      broken: [members, reports, servers, orders].flatMap(({ broken }) =>
        broken.map(({ key, faults }) => ({
          key,
          problem: faults.map(({ at, problem }) => (at === "" ? problem : `${at} ${problem}`)).join("; "),
        })),
      ),
      leases: new Map(leases),
      up,
      now: systemClock.now(),
    };
  }
}

/** A virtual server of the snapshot by its name. Throws VIRTUAL_SERVER_UNKNOWN with the nearest name. */
export function demandServer(
  servers: readonly VirtualServerDefinition[],
  name: string,
): VirtualServerDefinition {
  const found = servers.find((server) => server.name === name);
  if (found !== undefined) return found;
  const names = servers.map((server) => server.name);
  const near = suggest(name, names);
  throw new LockstepError(
    "VIRTUAL_SERVER_UNKNOWN",
    `the cluster has no virtual server ${JSON.stringify(name)}`,
    {
      found: names.length === 0 ? "none at all" : names.sort().join(", "),
      hint:
        near === null
          ? "lockstep cluster virtual-server list shows them."
          : `Did you mean ${near}? Names are as they were given.`,
    },
  );
}

/** Throws NODE_UNKNOWN with the nearest name unless the cluster has this node. */
export function demandNode(nodes: readonly string[], name: string): void {
  if (nodes.includes(name)) return;
  const near = suggest(name, nodes);
  throw new LockstepError("NODE_UNKNOWN", `the cluster has no node ${JSON.stringify(name)}`, {
    found: nodes.length === 0 ? "none has joined" : [...nodes].sort().join(", "),
    hint: near === null ? "lockstep cluster status shows the nodes." : `Did you mean ${near}?`,
  });
}
