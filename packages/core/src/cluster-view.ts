import type { NodeReport } from "./cluster-types.ts";

/**
 * Which nodes are up, as one node sees it: those whose beat has grown lately, by our own clock. Nobody waits by a time
 * that somebody else wrote.
 *
 * Only time in which we looked counts as silence. While the store does not answer nobody becomes down: what we do not
 * see is our trouble, not theirs. The lease decides who owns; this decides only who is asked first.
 */
export interface ClusterView {
  readonly lookedAt: number | null;
  readonly nodes: ReadonlyMap<string, NodeSight>;
}

export interface NodeSight {
  readonly instance: string;
  readonly beat: number;
  /** How long it has said nothing new while we were looking; milliseconds. */
  readonly silentMs: number;
  readonly isUp: boolean;
}

export interface ViewTimes {
  /** Silent for longer than this: down. */
  readonly downMs: number;
  /** At most this much of the time between two looks counts: in a longer one we did not look. */
  readonly gapMs: number;
}

export interface SightChange {
  readonly node: string;
  readonly isUp: boolean;
}

export function startView(): ClusterView {
  return { lookedAt: null, nodes: new Map() };
}

/**
 * One successful look at all reports. `now`: milliseconds of a clock that only grows. Returns the view and who came or
 * went. A node that is seen for the first time is up only when its beat grows, or at once if it is we ourselves.
 */
export function lookAtReports(
  view: ClusterView,
  reports: Iterable<Pick<NodeReport, "node" | "instance" | "beat">>,
  self: string,
  now: number,
  times: ViewTimes,
): { readonly view: ClusterView; readonly changes: readonly SightChange[] } {
  const passedMs = view.lookedAt === null ? 0 : Math.min(now - view.lookedAt, times.gapMs);
  const nodes = new Map<string, NodeSight>();
  const changes: SightChange[] = [];
  for (const { node, instance, beat } of reports) {
    const before = view.nodes.get(node);
    const hasGrown = before !== undefined && (before.instance !== instance || beat > before.beat);
    const silentMs = before === undefined || hasGrown ? 0 : before.silentMs + passedMs;
    const wasUp = before?.isUp ?? false;
    const isUp = node === self || hasGrown || (wasUp && silentMs <= times.downMs);
    nodes.set(node, { instance, beat, silentMs, isUp });
    if (isUp !== wasUp) changes.push({ node, isUp });
  }
  for (const [node, { isUp }] of view.nodes)
    if (isUp && !nodes.has(node)) changes.push({ node, isUp: false });
  return { view: { lookedAt: now, nodes }, changes };
}
