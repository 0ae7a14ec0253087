import {
  faultOfExclusion,
  type HistoryEntry,
  type OwnerPlacement,
  onlineOrder,
  succession,
  type VirtualServerDefinition,
} from "@lockstep/core";
import type { ErrorCode } from "@lockstep/protocol/wire";
import { findStandstill, NEXT_STEP } from "./order-end.ts";
import { type ClusterSnapshot, serverView, situationOf } from "./snapshot.ts";
import { mergeHistory } from "./timeline.ts";

/**
 * What a move would do, computed as the nodes themselves compute it, without doing anything: where to, why each node is
 * a candidate or not, what happens in which order, and how long clients wait, from what earlier moves took. A figure
 * that nobody measured is not made up.
 */
export interface MovePrediction {
  readonly virtualServer: string;
  readonly from: string | null;
  /** The node that was asked for; null: wherever it belongs. */
  readonly asked: string | null;
  /** Null: it would stay where it is; `refusal` says why. */
  readonly to: string | null;
  readonly refusal: string | null;
  /** The same for programs, with what to do about it. */
  readonly fault: MoveFault | null;
  readonly nodes: readonly NodeVerdict[];
  readonly config: { readonly expected: string | null; readonly onTarget: string | null } | null;
  readonly steps: readonly string[];
  readonly outage: OutageEstimate;
}

export interface MoveFault {
  readonly code: ErrorCode;
  readonly expected?: string;
  readonly found?: string;
  readonly hint: string;
}

export interface NodeVerdict {
  readonly node: string;
  readonly isCandidate: boolean;
  readonly detail: string;
}

export interface OutageEstimate {
  /** Median; null: no earlier move is recorded. */
  readonly ms: number | null;
  readonly minMs: number | null;
  readonly maxMs: number | null;
  /** What it rests on, in words. */
  readonly basis: string;
}

/** One change of owner that is over: from the first resource taken offline, or the loss, to all online again. */
export interface PassedMove {
  readonly virtualServer: string;
  readonly from: string;
  readonly to: string;
  readonly token: number;
  /** Given back in order; else the former owner was lost. */
  readonly isPlanned: boolean;
  /** Wall-clock milliseconds of its end. */
  readonly at: number;
  /** By the wall clocks of both nodes, so no more exact than they agree. */
  readonly outageMs: number;
}

/** Predicts a move. `to`: the node that was asked for; null: wherever it belongs except where it is. */
export function predictMove(
  snapshot: ClusterSnapshot,
  definition: VirtualServerDefinition,
  history: readonly HistoryEntry[],
  to: string | null,
): MovePrediction {
  const server = serverView(snapshot, definition);
  const order = succession(situationOf(snapshot), definition);
  // While its owner lives it chooses among the others as things are, not as if it were lost.
  const { candidates: all, rejected } = order.ofOwner ?? order;
  const candidates = all.filter(({ node }) => node !== server.owner);
  const target = candidates.find(({ node }) => to === null || node === to)?.node ?? null;
  const { refusal, fault } = whyNot(definition, server.owner, to, target, rejected);
  const goal = refusal === null ? target : null;
  const hash = (node: string | null) =>
    node === null ? null : (snapshot.reports.get(node)?.configHashes[definition.name] ?? null);
  return {
    virtualServer: definition.name,
    from: server.owner,
    asked: to,
    to: goal,
    refusal,
    fault,
    nodes: [
      ...candidates.map(({ node, preference, load, together, warning }, index) => ({
        node,
        isCandidate: true,
        detail: [
          index === 0 ? "first choice" : `choice ${index + 1}`,
          preference === null ? "" : `place ${preference + 1} of the preferred owners`,
          `load ${load}`,
          together.length === 0 ? "" : `beside ${together.join(", ")}, which it should be kept apart from`,
          warning ?? "",
        ]
          .filter((part) => part !== "")
          .join(", "),
      })),
      ...(server.owner === null || rejected.some(({ node }) => node === server.owner)
        ? []
        : [{ node: server.owner, isCandidate: false, detail: "owns it now" }]),
      ...rejected.map(({ node, detail }) => ({ node, isCandidate: false, detail })),
    ],
    config:
      definition.config === null
        ? null
        : { expected: definition.config.hash, onTarget: hash(goal ?? target) },
    steps: goal === null ? [] : stepsOf(definition, server.owner, goal),
    outage: estimateOutage(findPassedMoves(history, definition.name), goal),
  };
}

function whyNot(
  definition: VirtualServerDefinition,
  owner: string | null,
  asked: string | null,
  target: string | null,
  rejected: OwnerPlacement["rejected"],
): { refusal: string | null; fault: MoveFault | null } {
  const standstill = findStandstill(definition);
  if (standstill !== null)
    return { refusal: standstill.text, fault: { code: standstill.code, hint: standstill.hint } };
  if (asked !== null && asked === owner)
    return {
      refusal: `${asked} owns it already`,
      fault: {
        ...{ code: "ALREADY_OWNER", expected: `another owner than ${asked}`, found: `${asked} owns it` },
        hint: "Name another node, or none. What failed there is tried again by virtual-server online.",
      },
    };
  if (target !== null) return { refusal: null, fault: null };
  if (asked === null)
    return {
      refusal: "no other node can own it",
      fault: { code: "NO_CANDIDATE", hint: NEXT_STEP.NO_CANDIDATE() },
    };
  const found = rejected.find(({ node }) => node === asked);
  const code = found === undefined ? "NO_CANDIDATE" : faultOfExclusion(found.why);
  const detail = found?.detail ?? "it is no node of this cluster";
  return {
    refusal: `${asked} cannot own it: ${detail}`,
    fault: {
      ...{ code, expected: `${asked} can own it`, found: `${asked} ${detail}` },
      hint: NEXT_STEP[code](asked),
    },
  };
}

function stepsOf(definition: VirtualServerDefinition, from: string | null, to: string): string[] {
  const order = onlineOrder(
    new Map(definition.resources.map(({ name, policy }) => [name, policy.dependency])),
  );
  const shown = (name: string) => {
    const type = definition.resources.find((each) => each.name === name)?.type;
    return type === undefined || type === name ? `[${name}]` : `[${name}] (${type})`;
  };
  return [
    ...(from === null
      ? []
      : [
          `${to}: says that it is ready (store, guard, settings), else nothing stops`,
          ...order.toReversed().map((name) => `${from}: ${shown(name)} goes offline`),
          `${from}: gives the lease back, ${to} next`,
        ]),
    `${to}: takes the lease with the next token`,
    `${to}: lays down the settings${definition.config === null ? "" : " and verifies the configuration file"}`,
    ...order.map((name) => `${to}: ${shown(name)} comes online`),
  ];
}

/** How an owner ended: since when clients wait, and whether in order. */
interface LeftOwner {
  readonly from: string;
  readonly token: number;
  readonly at: number;
  readonly isPlanned: boolean;
}

const sinceOf = (left: LeftOwner | null, token: number) => (left?.token === token ? left.at : null);

/** Every change of owner of a virtual server that its history tells from beginning to end, the oldest first. */
export function findPassedMoves(history: readonly HistoryEntry[], server: string): PassedMove[] {
  const moves: PassedMove[] = [];
  let left: LeftOwner | null = null;
  for (const { server: about, node, token, what, at } of mergeHistory(
    history.filter((entry) => entry.server === server),
  )) {
    if (about !== server || token === null) continue;
    if (what === "offline-begins") left = { from: node, token, at, isPlanned: true };
    // Lost while it was being taken offline: clients have waited since then.
    else if (what === "lost") left = { from: node, token, at: sinceOf(left, token) ?? at, isPlanned: false };
    else if (what === "online" && left !== null && token > left.token) {
      if (node !== left.from)
        moves.push({
          virtualServer: server,
          from: left.from,
          to: node,
          token,
          isPlanned: left.isPlanned,
          at,
          outageMs: Math.max(0, at - left.at),
        });
      left = null;
    }
  }
  return moves;
}

function estimateOutage(moves: readonly PassedMove[], to: string | null): OutageEstimate {
  const planned = moves.filter(({ isPlanned }) => isPlanned);
  const there = planned.filter((move) => move.to === to);
  const used = there.length > 0 ? there : planned;
  if (used.length === 0)
    return { ms: null, minMs: null, maxMs: null, basis: "no earlier planned move is recorded" };
  const sorted = used.map(({ outageMs }) => outageMs).sort((a, b) => a - b);
  const moved = `${used.length} earlier planned ${used.length === 1 ? "move" : "moves"}`;
  return {
    ms: median(sorted),
    minMs: sorted[0] ?? null,
    maxMs: sorted.at(-1) ?? null,
    basis: there.length > 0 ? `${moved} to ${to}` : `${moved}, none of them to ${to ?? "its target"}`,
  };
}

function median(sorted: readonly number[]): number {
  const middle = Math.floor(sorted.length / 2);
  const upper = sorted[middle] ?? 0;
  return sorted.length % 2 === 1 ? upper : Math.round(((sorted[middle - 1] ?? upper) + upper) / 2);
}
