import type { HistoryEntry } from "@lockstep/core";
import type { NemesisHistory, TruthSpan } from "./nemesis-history.ts";

/**
 * Judges a recorded history by the invariants of a cluster. Knows nothing of how it was made.
 *
 *   I1  no moment at which two nodes have the address
 *   I2  every owner has a token of its own, and tokens grow
 *   I3  no write with a lower token is accepted after a higher one; none that was acknowledged is lost
 *   I4  the service runs nowhere when another node has taken the lease
 *   I5  while a node has the address, the service runs on no other
 *   I6  after the fault has ended exactly one node serves again, in time, and clients find it
 *   I7  settings are the same on the owner and in the store; configuration files are on all nodes
 *   I8  resources come in the order of their dependencies and go in the reverse
 *   I9  a move that is given up takes nothing from the source
 */
export interface Verdict {
  readonly broken: readonly Breach[];
  /** How often each invariant had something to be judged by. */
  readonly looked: Readonly<Record<string, number>>;
  readonly twoOwnersMs: number;
}

export interface Breach {
  readonly invariant: string;
  readonly at: number;
  readonly problem: string;
}

export interface JudgeOptions {
  /** How long after the end of a fault a client may have to wait at most. */
  readonly servedWithinMs: number;
}

export function judge(history: NemesisHistory, { servedWithinMs }: JudgeOptions): Verdict {
  const broken: Breach[] = [];
  const looked: Record<string, number> = {};
  const look = (invariant: string, count = 1) => {
    looked[invariant] = (looked[invariant] ?? 0) + count;
  };
  const breach = (invariant: string, at: number, problem: string) => broken.push({ invariant, at, problem });
  const spans = history.truth.map((span) => present(history, span));
  const took = history.notes.filter((note) => note.what === "took" && note.token !== null);

  let twoOwnersMs = 0;
  for (const { from, to, owners, listeners } of spans) {
    look("I1");
    if (owners.length > 1) {
      twoOwnersMs += to - from;
      breach("I1", from, `${owners.join(" and ")} had the address for ${Math.round(to - from)} ms`);
    }
    const [owner] = owners;
    if (owner !== undefined) look("I5");
    const elsewhere = listeners.filter((host) => owner !== undefined && host !== owner);
    if (elsewhere.length > 0) breach("I5", from, `${owner} had the address, ${elsewhere} the service`);
  }

  const holders = new Map<number, string>();
  for (const { token, node, at } of took) {
    look("I2");
    const former = holders.get(token ?? 0);
    if (former !== undefined) breach("I2", at, `${former} and ${node} took token ${token}`);
    holders.set(token ?? 0, node);
  }
  for (const node of history.nodes) {
    const own = took.filter((note) => note.node === node).sort((a, b) => a.number - b.number);
    for (const [index, note] of own.entries())
      if ((own[index - 1]?.token ?? 0) >= (note.token ?? 0))
        breach("I2", note.at, `${node} took ${note.token} after ${own[index - 1]?.token}`);
  }

  let highest = 0;
  const kept = new Set<string>();
  for (const write of history.arrived) {
    look("I3");
    if (write.isAccepted && write.token < highest)
      breach("I3", write.at, `a write of ${write.node} with token ${write.token} after ${highest}`);
    highest = Math.max(highest, write.token);
    if (write.isAccepted) kept.add(`${write.writer} ${write.number}`);
  }
  for (const write of history.acknowledged)
    if (!kept.has(write)) breach("I3", history.truth.at(-1)?.to ?? 0, `acknowledged and lost: ${write}`);

  judgeRunning(history, spans, took, look, breach);
  judgeRounds(history, servedWithinMs, look, breach);
  judgeOrder(history.notes, look, breach);
  judgeMoves(history.notes, look, breach);
  return { broken: broken.sort((a, b) => a.at - b.at), looked, twoOwnersMs };
}

type Look = (invariant: string) => void;
type Tell = (invariant: string, at: number, problem: string) => void;

/** Without what is said of hosts that had no power, or stood still and have just woken. */
function present({ rounds, lease }: NemesisHistory, span: TruthSpan): TruthSpan {
  const isAbsent = (node: string) =>
    rounds.some(({ absent }) =>
      absent.some(
        (each) =>
          each.node === node &&
          span.from >= each.from - BETWEEN_MS &&
          span.from <= each.to + lease.guardDelayMs + lease.stopMs,
      ),
    );
  return {
    ...span,
    owners: span.owners.filter((node) => !isAbsent(node)),
    listeners: span.listeners.filter((node) => !isAbsent(node)),
  };
}

/** One look and the next. */
const BETWEEN_MS = 60;

function judgeRunning(
  history: NemesisHistory,
  spans: readonly TruthSpan[],
  took: readonly HistoryEntry[],
  look: Look,
  breach: Tell,
): void {
  const byToken = [...took].sort((a, b) => (a.token ?? 0) - (b.token ?? 0));
  for (const [index, note] of byToken.entries()) {
    // A node whose wall clock was moved says nothing about when.
    if (history.rounds.some((round) => round.what.includes("wall clock") && round.node === note.node))
      continue;
    const from = note.at - history.wallLessMonotonicMs;
    const next = byToken[index + 1];
    const until = next === undefined ? Number.POSITIVE_INFINITY : next.at - history.wallLessMonotonicMs;
    look("I4");
    const found = spans.find(
      (span) =>
        span.from > from + BETWEEN_MS && span.from < until && span.listeners.some((on) => on !== note.node),
    );
    if (found !== undefined)
      breach(
        "I4",
        found.from,
        `${note.node} had taken token ${note.token}, the service ran on ${found.listeners}`,
      );
  }
}

function judgeRounds({ rounds }: NemesisHistory, servedWithinMs: number, look: Look, breach: Tell): void {
  for (const round of rounds) {
    look("I6");
    const { what, healedAt, servedAt, settings } = round;
    if (servedAt === null || servedAt - healedAt > servedWithinMs)
      breach(
        "I6",
        healedAt,
        `${what}: ${servedAt === null ? "never served" : `served ${Math.round(servedAt - healedAt)} ms after`} it had ended`,
      );
    else if (round.neighbour === null) breach("I6", healedAt, `${what}: the client's neighbour is no owner`);
    if (settings !== null) {
      look("I7");
      if (settings.owner === null || settings.owner !== settings.store)
        breach(
          "I7",
          healedAt,
          `${what}: settings are ${settings.owner} on the owner, ${settings.store} in the store`,
        );
    }
    if (new Set(round.configHashes).size > 1)
      breach("I7", healedAt, `${what}: configurations differ: ${round.configHashes}`);
  }
}

/** Within one term of one node: the service after the address, and before it on the way back. */
function judgeOrder(notes: readonly HistoryEntry[], look: Look, breach: Tell): void {
  const online = new Map<string, Set<string>>();
  const ordered = [...notes].sort((a, b) =>
    a.node < b.node ? -1 : a.node > b.node ? 1 : a.number - b.number,
  );
  for (const { node, token, what, detail, at } of ordered) {
    const key = `${node} ${token}`;
    const on = online.get(key) ?? new Set<string>();
    online.set(key, on);
    const name = /^\[?([\w-]+)/.exec(detail)?.[1] ?? "";
    if (what === "resource-online") {
      look("I8");
      if (name === "service" && !on.has("address"))
        breach("I8", at, `${node}: the service came before the address`);
      on.add(name);
    }
    if (what === "resource-offline") {
      look("I8");
      if (name === "address" && on.has("service"))
        breach("I8", at, `${node}: the address went before the service`);
      on.delete(name);
    }
    // A failed resource is taken away with all that needs it, which has notes of its own.
    if (what === "resource-failed") on.delete(name);
  }
}

function judgeMoves(notes: readonly HistoryEntry[], look: Look, breach: Tell): void {
  for (const order of notes.filter(({ what, detail }) => what === "order" && detail.includes("given up"))) {
    look("I9");
    const lost = notes.find(
      (note) =>
        note.node === order.node &&
        Math.abs(note.number - order.number) <= 2 &&
        (note.what === "offline-begins" || note.what === "lost"),
    );
    if (lost !== undefined) breach("I9", order.at, `${order.node} gave a move up and lost what it had`);
  }
}
