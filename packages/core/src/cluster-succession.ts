import type { ClusterSituation } from "./cluster-decision.ts";
import type { VirtualServerDefinition } from "./cluster-types.ts";
import { WRITTEN_BY_GUARD } from "./lease-guard.ts";
import {
  type ConfigRule,
  type NodeView,
  type OwnerPlacement,
  type PlacedNode,
  place,
  type ServerView,
} from "./placement.ts";

/**
 * Who takes a virtual server when it becomes free, computed by every node alike.
 *
 * An owner can be lost at any moment, and then all of its virtual servers are free at once. So for each owner the order
 * is made as if it were lost now: its virtual servers are placed one after the other, the heaviest first, and each counts
 * as load for those after it. Only so do they spread over the nodes that are left instead of all falling upon the one
 * that had the least to do.
 */
export interface Succession {
  /** The node that the record names, alive or not; null: it is free. */
  readonly owner: string | null;
  /** Whether that very life of its daemon is up. */
  readonly isOwnerAlive: boolean;
  /** Best first; a living owner is not among them. */
  readonly candidates: readonly PlacedNode[];
  readonly rejected: OwnerPlacement["rejected"];
  /** How its nodes stand while a living owner has it, the owner among them; null: there is none. */
  readonly ofOwner: (OwnerPlacement & { readonly view: ServerView }) | null;
  readonly view: ServerView;
}

export function succession(situation: ClusterSituation, definition: VirtualServerDefinition): Succession {
  const { name } = definition;
  const owner = ownerOf(situation, name);
  const living = livingOwner(situation, name);
  const views = viewServers(situation, name);
  const view = views.get(name) ?? viewOf(definition, living);
  // As if the living owner were lost now; who has no living owner is free together with all others that have none.
  const lost = living;
  const placed = new Map(
    [...views].map(([each, present]) => [
      each,
      present.owner === lost ? { ...present, owner: null } : present,
    ]),
  );
  const free = [...placed.values()].filter(
    (each) => each.owner === null && wantsAPlace(situation.servers.get(each.name)),
  );
  let own: OwnerPlacement = { candidates: [], rejected: [] };
  const byWeight = free.sort((a, b) => b.weight - a.weight || (a.name < b.name ? -1 : 1));
  for (const server of byWeight) {
    const found = placeOne(situation, server, [...placed.values()], lost);
    if (server.name === name) {
      own = found;
      break;
    }
    placed.set(server.name, { ...server, owner: found.candidates[0]?.node ?? null });
  }
  return {
    owner,
    isOwnerAlive: living !== null,
    candidates: own.candidates,
    rejected: own.rejected,
    ofOwner: living === null ? null : { ...placeOne(situation, view, [...views.values()], null), view },
    view,
  };
}

function placeOne(
  situation: ClusterSituation,
  server: ServerView,
  servers: readonly ServerView[],
  lost: string | null,
): OwnerPlacement {
  const definition = situation.servers.get(server.name);
  const config: ConfigRule = {
    expectedHash: definition?.config?.hash ?? null,
    policy: situation.cluster.configPolicy,
  };
  return place(server, viewNodes(situation, server.name, lost), servers, config);
}

function viewNodes(situation: ClusterSituation, server: string, lost: string | null): NodeView[] {
  const { members, up, reports, now } = situation;
  return [...members.values()].map(({ node, isPaused, quarantinedUntil }) => ({
    name: node,
    isUp: up.has(node) && node !== lost && !hasJustLost(situation, server, node),
    isPaused,
    isQuarantined: quarantinedUntil !== null && quarantinedUntil > now,
    configHash: reports.get(node)?.configHashes[server] ?? null,
  }));
}

/**
 * The guard gave the lease back in the name of a node that says of itself that it is the owner. Most often its daemon is
 * dead, long before the node counts as down: nobody is to wait for it. If it lives, its next report says so.
 */
function hasJustLost(
  { leases, reports, node: self }: ClusterSituation,
  server: string,
  node: string,
): boolean {
  const record = leases.get(server);
  if (record == null || record.node !== null || record.write !== WRITTEN_BY_GUARD || node === self)
    return false;
  const report = reports.get(node);
  return report?.instance === record.instance && report.servers[server]?.role === "owner";
}

/**
 * All virtual servers as placement sees them, in the order of their names; owned by living owners alone. What became free
 * a moment before this one, and we are taking, is load already: else who falls gives both to the same node. What we are
 * taking itself is placed as at first, or those that fell together would move one another away.
 */
function viewServers(situation: ClusterSituation, name: string): Map<string, ServerView> {
  const { taking, node } = situation;
  const isTaken = (each: string) => !taking.has(name) && taking.has(each);
  const ownerNow = (each: string) => livingOwner(situation, each) ?? (isTaken(each) ? node : null);
  const names = [...situation.servers.keys()].sort();
  return new Map(
    names.flatMap((each) => {
      const definition = situation.servers.get(each);
      return definition === undefined ? [] : [[each, viewOf(definition, ownerNow(each))]];
    }),
  );
}

function viewOf(definition: VirtualServerDefinition, owner: string | null): ServerView {
  const { name, preferredOwners, antiAffinity, weight, resources } = definition;
  return {
    name,
    owner,
    preferredOwners,
    antiAffinity,
    weight,
    possibleOwners: resources.flatMap(({ policy }) =>
      policy.possibleOwners === null ? [] : [policy.possibleOwners],
    ),
  };
}

const wantsAPlace = (definition: VirtualServerDefinition | undefined) =>
  definition?.isEnabled === true && definition.wanted === "online" && !definition.inMaintenance;

const ownerOf = ({ leases }: ClusterSituation, name: string) => leases.get(name)?.node ?? null;

/** The owner if that life of its daemon is up, which the record names. */
function livingOwner(situation: ClusterSituation, name: string): string | null {
  const { leases, reports, up, node, instance, members } = situation;
  const record = leases.get(name);
  if (record == null || record.node === null || !members.has(record.node)) return null;
  const present = record.node === node ? instance : reports.get(record.node)?.instance;
  return up.has(record.node) && present === record.instance ? record.node : null;
}
