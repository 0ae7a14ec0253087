import type { HistoryEntry } from "@lockstep/core";

/**
 * One timeline of what several nodes wrote down, each with its own clock.
 *
 * Wall clocks may be off, so the order of one node's entries is that of its numbers, whatever its clock did; between
 * nodes the shown time decides, and a fencing token of one virtual server never stands before a lower one of another
 * node: whoever has the higher token took over later, whatever the clocks say.
 */
export function mergeHistory(entries: Iterable<HistoryEntry>): HistoryEntry[] {
  const queues = new Map<string, HistoryEntry[]>();
  for (const entry of entries) queues.set(entry.node, [...(queues.get(entry.node) ?? []), entry]);
  for (const queue of queues.values()) queue.sort((a, b) => a.number - b.number);
  const heads = new Map([...queues].map(([node]) => [node, 0]));
  const openTokens = countTokens(queues.values());
  const merged: HistoryEntry[] = [];
  for (;;) {
    const waiting = [...queues].flatMap(([node, queue]) => queue[heads.get(node) ?? 0] ?? []);
    if (waiting.length === 0) return merged;
    // Where everything waits for something else (a node that counted anew), time alone decides.
    const free = waiting.filter((entry) => !hasEarlierToken(entry, openTokens));
    const next = (free.length > 0 ? free : waiting).reduce((first, entry) =>
      entry.at < first.at || (entry.at === first.at && entry.node < first.node) ? entry : first,
    );
    merged.push(next);
    heads.set(next.node, (heads.get(next.node) ?? 0) + 1);
    if (next.server !== null && next.what === TAKEN && next.token !== null)
      openTokens.get(next.server)?.delete(next.token);
  }
}

/** The entry by which a token begins. */
const TAKEN = "took";

/** By virtual server: tokens whose beginning has not been put into the timeline yet. */
function countTokens(queues: Iterable<readonly HistoryEntry[]>): Map<string, Set<number>> {
  const tokens = new Map<string, Set<number>>();
  for (const queue of queues)
    for (const { server, token, what } of queue) {
      if (server === null || token === null || what !== TAKEN) continue;
      tokens.set(server, (tokens.get(server) ?? new Set()).add(token));
    }
  return tokens;
}

function hasEarlierToken({ server, token, what }: HistoryEntry, open: Map<string, Set<number>>): boolean {
  if (server === null || token === null || what !== TAKEN) return false;
  for (const other of open.get(server) ?? []) if (other < token) return true;
  return false;
}
