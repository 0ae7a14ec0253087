import {
  type ClusterOrder,
  type HistoryEntry,
  type OrderFault,
  splitFault,
  type VirtualServerDefinition,
} from "@lockstep/core";
import { type ErrorCode, LockstepError } from "@lockstep/protocol/wire";
import { describe, isOnline, type ServerMoment } from "./follow.ts";
import type { MovePrediction } from "./prediction.ts";

/**
 * How an order to move ends, and the code of each end: one for everything that an administrator would do something else
 * about. Judged by what stands in the store alone: the lease, the owner's report, the history, the newest order.
 */
export interface PlacedOrder {
  readonly server: string;
  readonly number: number;
  readonly kind: ClusterOrder["kind"];
  /** The node that was named in it. */
  readonly to: string | null;
  /** Who owned it when it was ordered. */
  readonly from: string | null;
  /** Whether any other owner will do, although a node was named. */
  readonly elsewhereWillDo?: boolean;
}

/** What to do next, where the code alone decides it. */
export const NEXT_STEP = {
  NODE_DOWN: (node) => `Start lockstep node on ${node}, or name another node.`,
  NODE_PAUSED: (node) => `lockstep cluster resume ${node} lets it take virtual servers again.`,
  NODE_QUARANTINED: (node) =>
    `Find out why ${node} drops out; lockstep cluster release ${node} lets it in before its time.`,
  NODE_NOT_POSSIBLE: (node) =>
    `Name another node, or let ${node} own every resource: possibleOwners of the resources.`,
  CONFIG_DIFFERS: () => "lockstep cluster config diff shows the difference, config push makes all equal.",
  CONFIG_UNREPORTED: (node) =>
    `Look whether the configuration file is on ${node} and can be read; lockstep cluster config push lays it down.`,
  NODE_NOT_READY: (node) => `Mend what ${node} says, then order it again; lockstep cluster check shows more.`,
  NODE_ANSWER_LATE: (node) =>
    `Look at the log of lockstep node on ${node}: it beats, and is too slow or hangs. Then order it again.`,
  COORDINATION_UNREACHABLE: () => "Bring the store's members back, then order it again.",
  OWNER_LOST: () => "Make sure that its owner is off or cut off; then lockstep cluster failover.",
  NO_CANDIDATE: () =>
    "lockstep cluster move --dry-run says of each node why; lockstep cluster status what it does.",
} as const satisfies Readonly<Record<OrderFault, (node: string) => string>>;

/** A move that is not even ordered. */
export function refusedMove({ virtualServer, asked, refusal, fault, nodes }: MovePrediction): LockstepError {
  const code = fault?.code ?? "NO_CANDIDATE";
  return new LockstepError(code, `${virtualServer} is not moved: ${refusal}`, {
    ...(fault?.expected === undefined ? {} : { expected: fault.expected }),
    ...(fault?.found === undefined ? {} : { found: fault.found }),
    faults: nodes
      .filter(({ node, isCandidate }) => !isCandidate && (asked === null || asked === node))
      .map(({ node, detail }) => ({ where: node, problem: detail })),
    hint: fault?.hint ?? NEXT_STEP.NO_CANDIDATE(),
  });
}

/** What keeps a virtual server where it is whoever could own it; null: nothing. */
export function findStandstill({
  name,
  isEnabled,
  wanted,
  inMaintenance,
}: VirtualServerDefinition): { code: ErrorCode; text: string; hint: string } | null {
  if (!isEnabled)
    return {
      code: "VIRTUAL_SERVER_DISABLED",
      text: "the cluster is not enabled for it",
      hint: `lockstep cluster virtual-server enable ${name}`,
    };
  if (inMaintenance)
    return {
      code: "VIRTUAL_SERVER_IN_MAINTENANCE",
      text: "it is in maintenance: nothing is moved",
      hint: `lockstep cluster virtual-server maintenance ${name} off`,
    };
  if (wanted === "offline")
    return {
      code: "VIRTUAL_SERVER_OFFLINE",
      text: "it is to be offline; there is nothing to move",
      hint: `lockstep cluster virtual-server online ${name}`,
    };
  return null;
}

/**
 * Whether an order has been carried out. Throws when it will not be: the code of whatever it was given up for,
 * ORDER_SUPERSEDED, MOVE_CAME_BACK, RESOURCE_FAILED, VIRTUAL_SERVER_UNKNOWN and the codes of a standstill.
 */
export function isCarriedOut(moment: ServerMoment, order: PlacedOrder): boolean {
  const { record, news, lastOrder, definition } = moment;
  const { number, to, from, server } = order;
  const owner = record?.node ?? null;
  const isElsewhere = owner !== null && owner !== from && lastOrder >= number;
  const willDo = to === null || order.elsewhereWillDo === true;
  if (isOnline(moment) && (willDo ? isElsewhere : owner === to)) return true;
  if (definition === null)
    throw new LockstepError("VIRTUAL_SERVER_UNKNOWN", `${server} was removed meanwhile`, {
      hint: "lockstep cluster history --server shows what happened before.",
    });
  const answer = news.findLast(
    ({ what, detail }) => what === "order" && detail.startsWith(`order ${number} `),
  );
  refuseGivenUp(moment, order, answer);
  refuseSuperseded(moment, order);
  const standstill = findStandstill(definition);
  if (standstill !== null)
    throw new LockstepError(
      standstill.code,
      `${server} did not get to ${to ?? "another node"}: ${standstill.text}`,
      {
        expected: `online on ${to ?? "another node"}`,
        found: describe(moment),
        hint: `${standstill.hint}; the order stands until a newer one is given.`,
      },
    );
  refuseFailed(moment, order, answer);
  return false;
}

/** How the daemons say that an order came to nothing. What follows is in the words of nodes, which may say anything. */
const GIVEN_UP = /^order \d+ \([a-z]+\): given up/;

/** Whether an entry of the history says that an order came to nothing. */
export const isGivenUp = ({ what, detail }: HistoryEntry, number: number): boolean =>
  what === "order" && detail.startsWith(`order ${number} `) && GIVEN_UP.test(detail);

function refuseGivenUp(
  moment: ServerMoment,
  { number, to }: PlacedOrder,
  answer: HistoryEntry | undefined,
): void {
  if (answer === undefined || !isGivenUp(answer, number)) return;
  // A daemon of an earlier version names no code.
  const { text, fault } = splitFault(answer.detail);
  const code = fault ?? "NO_CANDIDATE";
  throw new LockstepError(code, `the order was given up: ${text}`, {
    expected: `online on ${to ?? "another node"}`,
    found: describe(moment),
    hint: NEXT_STEP[code](to ?? refusingNode(text)),
  });
}

/** Where none was named, the only one that could have taken it: its refusal begins with its name. `NODE`, as in the reference: nobody knows. */
function refusingNode(text: string): string {
  return /: given up: ([A-Za-z0-9][A-Za-z0-9._-]*?):? /.exec(text)?.[1] ?? "NODE";
}

function refuseSuperseded(moment: ServerMoment, { number, kind, to }: PlacedOrder): void {
  const { order } = moment;
  if (order === null || order.number <= number || (order.kind === kind && order.to === to)) return;
  const target = order.kind === "online" ? "" : ` to ${order.to ?? "any node"}`;
  throw new LockstepError(
    "ORDER_SUPERSEDED",
    `${order.by} gave a newer order before this one was carried out`,
    {
      expected: `order ${number} (${kind}) to ${to ?? "any node"}`,
      found: `order ${order.number} (${order.kind})${target}; ${describe(moment)}`,
      hint: "The newer one counts. Agree with whoever gave it, then order again what is still wanted.",
    },
  );
}

/** It was begun, and did not stay where it was to go. */
function refuseFailed(
  moment: ServerMoment,
  { server, number, to, from }: PlacedOrder,
  answer: HistoryEntry | undefined,
): void {
  const { record, news, lastOrder } = moment;
  const owner = record?.node ?? null;
  if (record === null || owner === null) return;
  const failures = news
    .filter(({ what, token }) => FAILURES.has(what) && token !== null && token > (answer?.token ?? -1))
    .map(({ node, detail }) => ({ where: node, problem: detail }));
  // Without an answer whoever claimed the order is dead.
  const hasMovedSince =
    answer === undefined ? lastOrder >= number && owner !== from : record.token > (answer.token ?? 0);
  if (!hasMovedSince) return;
  if (isOnline(moment))
    throw new LockstepError("MOVE_CAME_BACK", `${server} did not come online on ${to ?? "another node"}`, {
      expected: `online on ${to ?? "another node"}`,
      found: `online on ${owner}`,
      faults: failures,
      hint: "Mend what failed there, then order it again; lockstep cluster history shows each step.",
    });
  const stays = news.findLast(
    ({ what, node, token }) => what === "stays" && node === owner && token === record.token,
  );
  if (stays === undefined) return;
  throw new LockstepError("RESOURCE_FAILED", `${server} does not come online on ${owner}: ${stays.detail}`, {
    expected: `online on ${to ?? "another node"}`,
    found: describe(moment),
    faults: failures,
    hint: "The nodes go on trying by themselves. Mend what failed; virtual-server online tries again at once.",
  });
}

const FAILURES: ReadonlySet<string> = new Set(["resource-failed", "held-back", "lost"]);
