import type { HistoryEntry, VirtualServerDefinition } from "@lockstep/core";
import { printable, systemClock } from "@lockstep/platform";
import { LockstepError } from "@lockstep/protocol/wire";
import type { ClusterSession } from "../commands/cluster-session.ts";
import { formatDuration } from "../screen/format.ts";
import type { Output } from "../screen/output.ts";
import { askYesNo, canAsk } from "../screen/question.ts";
import { Follower, failuresOf, type ServerMoment } from "./follow.ts";
import { demandNode, demandServer, takeSnapshot } from "./look.ts";
import { isCarriedOut, refusedMove } from "./order-end.ts";
import { findPassedMoves, type MovePrediction, predictMove } from "./prediction.ts";
import type { ClusterSnapshot } from "./snapshot.ts";

export interface FollowArguments {
  /** How long to wait for the cluster, seconds. */
  readonly timeout?: number;
  readonly wait: boolean;
}

const TIMEOUT_SECONDS = 300;
export const timeoutOf = ({ timeout }: FollowArguments): number => (timeout ?? TIMEOUT_SECONDS) * 1000;

interface MoveOptions extends FollowArguments {
  readonly to?: string;
  readonly dryRun?: boolean;
}

/**
 * `lockstep cluster move`: moves a virtual server in order, and follows until it is online on its new owner. Throws
 * the codes of a move that is not begun (prediction.ts) or not carried out (order-end.ts).
 */
export async function moveServer(session: ClusterSession, name: string, options: MoveOptions): Promise<void> {
  const { documents, output } = session;
  const snapshot = await takeSnapshot(session);
  const definition = demandServer(snapshot.servers, name);
  if (options.to !== undefined) demandNode(nodesOf(snapshot), options.to);
  const history = await documents.history(name);
  const prediction = predictMove(snapshot, definition, history, options.to ?? null);
  if (options.dryRun === true) {
    output.document(prediction);
    printPrediction(output, prediction);
    if (prediction.to === null) throw refusedMove(prediction);
    return;
  }
  if (prediction.to === null) throw refusedMove(prediction);
  const follower = await Follower.begin(session, name);
  const number = await placeOrder(session, name, "move", options.to ?? null);
  if (!options.wait) {
    output.document({ virtualServer: name, order: number, to: options.to ?? null });
    output.line(`order ${number}: ${printable(name)} goes to ${printable(prediction.to)}`);
    return;
  }
  const moment = await follower.until({
    server: name,
    timeoutMs: timeoutOf(options),
    goal: `${name} is online on ${options.to ?? "another node"}`,
    isDone: (seen) =>
      isCarriedOut(seen, {
        ...{ server: name, number, kind: "move", to: options.to ?? null, from: prediction.from },
      }),
    isTold: ({ news, record }) =>
      prediction.from === null || findPassedMoves(news, name).some(({ token }) => token === record?.token),
  });
  tellMove(output, name, number, moment);
}

const nodesOf = ({ members }: ClusterSnapshot) => members.map(({ node }) => node);

/** One more order than the last; the nodes carry out the newest, each at most once. */
export async function placeOrder(
  { api, actor, documents }: ClusterSession,
  server: string,
  kind: "move" | "failover" | "online",
  to: string | null,
): Promise<number> {
  const done = await documents.read(api.at(api.FAILOVERS, server));
  const order = await documents.change(api.at(api.ORDERS, server), (present) => ({
    ...{ kind, to, by: actor, at: systemClock.now() },
    // A virtual server of this name may have had orders before.
    number: Math.max(present?.number ?? 0, done?.lastOrder ?? 0) + 1,
  }));
  return order?.number ?? 0;
}

function tellMove(output: Output, server: string, order: number, { record, news }: ServerMoment): void {
  const move = findPassedMoves(news, server).at(-1) ?? null;
  const phases = phasesOf(news);
  output.document({
    ...{ virtualServer: server, order, owner: record?.node ?? null, token: record?.token ?? null },
    outageMs: move?.outageMs ?? null,
    phases,
  });
  const outage = move === null ? "" : `, ${formatDuration(move.outageMs)} without service`;
  output.line(`${printable(server)} is online on ${printable(record?.node ?? "-")}${outage}`);
  for (const { what, node, ms } of phases)
    output.note(`  ${formatDuration(ms).padStart(8)}  ${printable(node)}: ${what}`);
}

/** How long each part took that begins and ends on one node, so by one clock. */
function phasesOf(news: readonly HistoryEntry[]): { what: string; node: string; ms: number }[] {
  const parts = [
    ["offline-begins", "all-offline", "taking everything offline"],
    ["took", "online-begins", "settings and configuration"],
    ["online-begins", "online", "bringing everything online"],
  ] as const;
  return parts.flatMap(([begin, end, what]) => {
    const last = news.findLast((entry) => entry.what === end);
    const first = news.findLast(
      (entry) => entry.what === begin && entry.node === last?.node && entry.token === last.token,
    );
    return first === undefined || last === undefined || last.at < first.at
      ? []
      : [{ what, node: last.node, ms: last.at - first.at }];
  });
}

function printPrediction(output: Output, prediction: MovePrediction): void {
  const { virtualServer, from, to, refusal, nodes, steps, outage, config } = prediction;
  output.line(
    to === null
      ? `${printable(virtualServer)} would stay on ${printable(from ?? "no node")}: ${printable(refusal ?? "")}`
      : `${printable(virtualServer)} would move from ${printable(from ?? "no node")} to ${printable(to)}`,
  );
  for (const { node, isCandidate, detail } of nodes)
    output.line(
      `  ${isCandidate ? output.paintData("green", "can") : output.paintData("yellow", "not")}  ${printable(node)}: ${printable(detail)}`,
    );
  if (config !== null && to !== null)
    output.line(
      config.expected === null
        ? "configuration: never pushed, so it is not compared"
        : `configuration: ${config.onTarget === config.expected ? "equal" : "differs"} (${config.expected.slice(0, 12)})`,
    );
  for (const [index, step] of steps.entries()) output.line(`  ${index + 1}. ${printable(step)}`);
  if (to === null) return;
  const { ms, minMs, maxMs, basis } = outage;
  output.line(
    ms === null
      ? `outage: not predicted, ${basis}`
      : `outage: about ${formatDuration(ms)} (${formatDuration(minMs ?? ms)} to ${formatDuration(maxMs ?? ms)}; ${basis})`,
  );
}

interface FailoverOptions extends FollowArguments {
  readonly to?: string;
  readonly any?: boolean;
  readonly yes?: boolean;
}

/** `lockstep cluster failover`: takes a virtual server over from an owner that is lost, by a person's decision. */
export async function failOver(
  session: ClusterSession,
  name: string,
  options: FailoverOptions,
): Promise<void> {
  const { output, signal } = session;
  const snapshot = await takeSnapshot(session);
  const definition = demandServer(snapshot.servers, name);
  if (options.to !== undefined) demandNode(nodesOf(snapshot), options.to);
  const prediction = predictMove(snapshot, definition, [], options.to ?? null);
  if (prediction.to === null) throw refusedMove(prediction);
  const { from } = prediction;
  const isLost = from !== null && !snapshot.up.has(from);
  for (const text of risksOf(definition, from, isLost)) output.warn(printable(text));
  if (options.yes !== true) await demandYes(`take ${name} over on ${prediction.to}?`, signal);
  const follower = await Follower.begin(session, name);
  const number = await placeOrder(session, name, "failover", options.to ?? null);
  if (!options.wait) {
    output.document({ virtualServer: name, order: number, to: options.to ?? null });
    return;
  }
  const moment = await follower.until({
    server: name,
    timeoutMs: timeoutOf(options),
    goal: `${name} is online on ${options.to ?? "another node"}`,
    isDone: (seen) => {
      const failures = failuresOf(seen);
      if (seen.record?.node !== from && failures.length > 0)
        throw new LockstepError("RESOURCE_FAILED", `${name} does not come online: ${failures.join("; ")}`);
      return isCarriedOut(seen, {
        ...{ server: name, number, kind: "failover", to: options.to ?? null, from },
      });
    },
    // Of an owner that is lost nothing more is written.
    isTold: ({ news, record }) =>
      news.some(({ what, token }) => what === "online" && token === record?.token),
  });
  tellMove(output, name, number, moment);
}

function risksOf(
  { lockDelayMs, failsafe, checkpoints }: VirtualServerDefinition,
  from: string | null,
  isLost: boolean,
): string[] {
  if (from === null) return [];
  return [
    isLost
      ? `${from} does not answer. If it still runs without the store, it stops when its lease ends; until then clients may reach both`
      : `${from} answers: \`cluster move\` would lose nothing`,
    "work that the former owner had begun and not finished is done again, or lost where nobody repeats it",
    `settings that ${from} changed and had not yet written to the store are lost${checkpoints.length === 0 ? "" : ` (${checkpoints.join(", ")})`}`,
    ...(failsafe ? ["it is failsafe: without the store its owner may have stayed"] : []),
    ...(lockDelayMs > 0
      ? [`it starts ${formatDuration(lockDelayMs)} later, because something cannot check tokens`]
      : []),
  ];
}

/** Asks a person; without one it is refused. Throws CONFIRMATION_REQUIRED, CANCELLED. */
export async function demandYes(question: string, signal: AbortSignal): Promise<void> {
  if (!canAsk())
    throw new LockstepError("CONFIRMATION_REQUIRED", `this needs a yes: ${question}`, {
      hint: "Look at what is said above, then add --yes.",
    });
  if (!(await askYesNo(question, signal)))
    throw new LockstepError("CANCELLED", "nothing was changed", { hint: "Answer y to go on." });
}
