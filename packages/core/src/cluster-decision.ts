import { type Succession, succession } from "./cluster-succession.ts";
import type {
  ClusterDefinition,
  ClusterMember,
  ClusterOrder,
  FailoverRecord,
  NodeReport,
  VirtualServerDefinition,
} from "./cluster-types.ts";
import type { LeaseRecord, LeaseWish } from "./lease-types.ts";
import { judgeVotes } from "./lease-votes.ts";
import { faultOfExclusion, withFault } from "./order-fault.ts";
import { findFailback, type OwnerPlacement } from "./placement.ts";

/**
 * What a node strives for with each virtual server: the wish for its lease, and why.
 *
 * Every node decides for itself from the same documents, and nobody gives orders to anybody; so the order of the
 * candidates must be one that all of them compute alike (cluster-succession.ts). A better candidate goes first by a head
 * start, and if two nodes disagree for a moment because one has read more than the other, the lease still gives the
 * virtual server to one alone.
 *
 * What is done once (an order, a failback, a failover) begins with a claim: the daemon writes it down by compare and
 * swap before it acts. Who dies after that has given it up; nothing is ever carried out twice.
 */
export interface ClusterSituation {
  readonly node: string;
  /** This life of our daemon. */
  readonly instance: string;
  /** Wall-clock milliseconds: for quarantine, which is long and no matter of safety. */
  readonly now: number;
  /** Hour of the day where the cluster is, 0 to 23. */
  readonly hour: number;
  readonly cluster: ClusterDefinition;
  readonly members: ReadonlyMap<string, ClusterMember>;
  readonly reports: ReadonlyMap<string, NodeReport>;
  /** Nodes whose beats grow, as we see it. */
  readonly up: ReadonlySet<string>;
  readonly servers: ReadonlyMap<string, VirtualServerDefinition>;
  readonly orders: ReadonlyMap<string, ClusterOrder>;
  readonly failovers: ReadonlyMap<string, FailoverRecord>;
  /** What stands in the store, null: no record yet. Not in the map: we have not seen it. */
  readonly leases: ReadonlyMap<string, LeaseRecord | null>;
  /** Free virtual servers that we have gone for: they count as ours for the others, though nobody has seen it yet. */
  readonly taking: ReadonlySet<string>;
  /** What our daemon has claimed and is doing. */
  readonly commitments: ReadonlyMap<string, Commitment>;
  /** Virtual servers that failed here a moment ago and should try elsewhere first. */
  readonly failedHere: ReadonlySet<string>;
}

/** Something that is done once and was claimed. */
export type Commitment =
  /** Give it up in order, to this node first. */
  | {
      readonly kind: "leave";
      readonly next: string | null;
      /** For this term alone: what failed under one token says nothing of a later one. Not there: whichever it is. */
      readonly ofToken?: number;
    }
  /** Take it although nobody gave it up: a failover by hand. */
  | { readonly kind: "force" };

export interface ClusterDecision {
  readonly servers: ReadonlyMap<string, ServerDecision>;
  /** Whether a lost owner may be replaced without a person, and if not, what would make it so. */
  readonly automatic: boolean;
  readonly advice: string | null;
}

export interface ServerDecision {
  readonly wish: LeaseWish;
  /** In words, for status and history. */
  readonly why: string;
  readonly isOwnedHere: boolean;
  /** Who takes it when it is free or its owner is lost, best first; and why others do not. */
  readonly succession: Succession;
  /** An order that is ours to claim. */
  readonly claim: OrderClaim | null;
  /** A node to which it should go back; ours to begin. */
  readonly failback: string | null;
  /** What we were committed to is done or has become pointless. */
  readonly isCommitmentDone: boolean;
}

export interface OrderClaim {
  readonly number: number;
  /** What to be committed to; null: there is nothing to do. */
  readonly commitment: Commitment | null;
  /** What failed here is to be tried again at once: whoever orders something does not want to wait for its retry time. */
  readonly triesAgain: boolean;
  /** What becomes of the order, for the history. */
  readonly outcome: string;
}

const KEEP: LeaseWish = { kind: "keep" };
const TAKE: LeaseWish = { kind: "take", delayMs: 0, force: false };
const leave = (next: string | null): LeaseWish => ({ kind: "leave", next });

export function decideCluster(situation: ClusterSituation): ClusterDecision {
  const { automatic, advice } = judgeVotes([...situation.members.keys()], situation.cluster.votes);
  const servers = new Map<string, ServerDecision>();
  for (const definition of situation.servers.values())
    servers.set(definition.name, decideServer(situation, definition, automatic));
  return { servers, automatic, advice };
}

function decideServer(
  situation: ClusterSituation,
  definition: VirtualServerDefinition,
  automatic: boolean,
): ServerDecision {
  const { node, instance, members, leases, commitments } = situation;
  const { name } = definition;
  const record = leases.get(name);
  const isOwnedHere = record != null && record.node === node && record.instance === instance;
  const order = succession(situation, definition);
  const decide = (wish: LeaseWish, why: string, more: Partial<ServerDecision> = {}): ServerDecision => ({
    wish,
    why,
    isOwnedHere,
    succession: order,
    claim: null,
    failback: null,
    isCommitmentDone: false,
    ...more,
  });
  if (!definition.isEnabled) return decide(leave(null), "is not enabled", { isCommitmentDone: true });
  if (definition.wanted === "offline")
    return decide(leave(null), "is wanted offline", { isCommitmentDone: true });
  if (!members.has(node))
    return decide(leave(null), `${node} is no member of the cluster`, { isCommitmentDone: true });
  if (definition.inMaintenance) return decide(KEEP, "is in maintenance");
  if (record === undefined) return decide(KEEP, "its lease was not seen yet");

  const commitment = commitments.get(name);
  if (commitment?.kind === "leave") {
    const isOver = commitment.ofToken !== undefined && record !== null && record.token > commitment.ofToken;
    if (isOwnedHere && !isOver)
      return decide(leave(commitment.next), `goes to ${commitment.next ?? "another node"}`);
    return { ...decideTaking(situation, definition, order, decide), isCommitmentDone: true };
  }
  if (commitment?.kind === "force") {
    const isPointless = isOwnedHere || !order.candidates.some((each) => each.node === node);
    if (!isPointless)
      return decide({ kind: "take", delayMs: 0, force: true }, "is taken over because somebody demanded it");
    return { ...decideTaking(situation, definition, order, decide), isCommitmentDone: true };
  }
  const claim = claimOrder(situation, definition, order, automatic);
  if (isOwnedHere) {
    const failback =
      claim === null && order.ofOwner !== null
        ? findFailbackHere(situation, definition, order.ofOwner)
        : null;
    const isCandidate = order.ofOwner?.candidates.some((each) => each.node === node) === true;
    const rejection = order.ofOwner?.rejected.find((each) => each.node === node);
    return isCandidate
      ? decide(TAKE, "runs here", { claim, failback })
      : // What runs is not taken away from whoever may not take it anew.
        decide(KEEP, `stays here although ${node} ${rejection?.detail ?? "is no candidate"}`, {
          claim,
          failback,
        });
  }
  return { ...decideTaking(situation, definition, order, decide), claim };
}

type Decide = (wish: LeaseWish, why: string) => ServerDecision;

/** Nobody serves it here: whether to take it, and how long better ones go first. */
function decideTaking(
  { node, cluster, failedHere }: ClusterSituation,
  definition: VirtualServerDefinition,
  { candidates, rejected }: Succession,
  decide: Decide,
): ServerDecision {
  const rank = candidates.findIndex((each) => each.node === node);
  if (rank < 0) {
    const rejection = rejected.find((each) => each.node === node);
    return decide(KEEP, `not here: ${node} ${rejection?.detail ?? "is no candidate"}`);
  }
  const { callMs } = definition.lease ?? cluster.lease;
  // All others have had their turn by then; where it failed on each of them too, somebody must begin again.
  if (failedHere.has(definition.name))
    return decide(
      { kind: "take", delayMs: (candidates.length + rank) * callMs, force: false },
      "failed here a moment ago, others try first",
    );
  const place = rank === 0 ? "first candidate" : `candidate ${rank + 1} of ${candidates.length}`;
  return decide({ kind: "take", delayMs: rank * callMs, force: false }, place);
}

function findFailbackHere(
  { hour }: ClusterSituation,
  definition: VirtualServerDefinition,
  placement: OwnerPlacement & { readonly view: Succession["view"] },
): string | null {
  return findFailback(placement.view, placement, definition.failback, hour);
}

/**
 * Whether the newest order is ours to claim. Its actor is the owner while it lives, else the node that it names; where
 * nothing can become of it, the owner or the first node that is up says so.
 */
function claimOrder(
  situation: ClusterSituation,
  { name }: VirtualServerDefinition,
  { owner, isOwnerAlive, candidates, ofOwner, rejected }: Succession,
  automatic: boolean,
): OrderClaim | null {
  const { node, orders, failovers, members, up } = situation;
  const order = orders.get(name);
  if (order === undefined || order.number <= (failovers.get(name)?.lastOrder ?? 0)) return null;
  const living = isOwnerAlive ? owner : null;
  const claim = (outcome: string, commitment: Commitment | null = null): OrderClaim => ({
    number: order.number,
    commitment,
    triesAgain: commitment === null && node === living,
    outcome: `order ${order.number} (${order.kind}): ${outcome}`,
  });
  const others = (living === null ? candidates : (ofOwner?.candidates ?? [])).filter(
    (each) => each.node !== living,
  );
  const target = order.to ?? others[0]?.node ?? null;
  const speaker = living ?? [...members.keys()].filter((each) => up.has(each)).sort()[0] ?? null;
  if (order.kind === "online") {
    if (node !== speaker) return null;
    return claim(living === null ? "is tried again wherever it can be" : `is tried again on ${living}`);
  }
  if (target !== null && target === living)
    return node === living ? claim(`it is on ${target} already`) : null;
  if (target === null || !others.some((each) => each.node === target)) {
    if (node !== speaker) return null;
    const found = (ofOwner ?? { rejected }).rejected.find((each) => each.node === target);
    const fault = found === undefined ? "NO_CANDIDATE" : faultOfExclusion(found.why);
    const why =
      target === null ? "no other node can own it" : `${target} ${found?.detail ?? "is no candidate"}`;
    return claim(withFault(`given up: ${why}`, fault));
  }
  if (living !== null)
    return node === living ? claim(`moves to ${target}`, { kind: "leave", next: target }) : null;
  if (node !== target) return null;
  if (order.kind === "move" && owner !== null && !automatic)
    return claim(
      withFault(
        `given up: ${owner} does not answer; a failover by hand would take it from there`,
        "OWNER_LOST",
      ),
    );
  return claim(`is taken over by ${target}`, { kind: "force" });
}
