import type { JobStepEndOutcome } from "./job-step.ts";

/**
 * What follows a step that has ended: dead-path elimination.
 *
 * Each step has edges to its successors, some for success and some for an error. When it ends, every one of its edges is
 * decided: in favour, or dead. A step begins when all its incoming edges are decided and at least one is in favour. When
 * all of them are dead it is skipped, and then all its own edges are dead, and so on. So each edge is decided exactly
 * once, a step behind a branch and its join never waits for the way that was not taken, and what has no way left to it
 * is finished and not forgotten.
 *
 * A process is large and only the neighbourhood of the ended steps matters, so the steps are handed in piece by piece:
 * `followEdges` says which it needs, until it needs no more.
 */
export interface JobSuccessor {
  readonly id: number;
  /** Incoming edges that are not decided yet. */
  readonly pending: number;
  /** How many were decided in favour. */
  readonly taken: number;
  readonly delaySeconds: number;
  readonly onSuccess: readonly number[];
  readonly onError: readonly number[];
}

export interface EndedJobStep {
  readonly outcome: JobStepEndOutcome;
  readonly onSuccess: readonly number[];
  readonly onError: readonly number[];
}

export interface JobSuccessorChange {
  readonly id: number;
  readonly pending: number;
  readonly taken: number;
  readonly state: "waiting" | "ready" | "deferred" | "skipped";
  /** Exactly with `deferred`. */
  readonly delayMs: number | null;
}

export type EdgesResult =
  | { readonly kind: "decided"; readonly changes: readonly JobSuccessorChange[] }
  /** Steps that must be known as well, by id. */
  | { readonly kind: "unknown"; readonly ids: readonly number[] };

/** The edges of an ended step: those decided in favour and the dead ones. */
export function decideEdges(step: EndedJobStep): {
  readonly taken: readonly number[];
  readonly dead: readonly number[];
} {
  switch (step.outcome) {
    case "success":
    case "ignored":
      return { taken: step.onSuccess, dead: step.onError };
    case "error":
      return { taken: step.onError, dead: step.onSuccess };
    case "skipped":
    case "cancelled":
      return { taken: [], dead: [...step.onSuccess, ...step.onError] };
  }
}

/** Decides the edges of the ended steps and of everything that is skipped because of them. */
export function followEdges(
  ended: readonly EndedJobStep[],
  known: ReadonlyMap<number, JobSuccessor>,
): EdgesResult {
  const open = new Map<number, { pending: number; taken: number }>();
  const unknown = new Set<number>();
  const line: EndedJobStep[] = [...ended];
  const decide = (id: number, inFavour: boolean) => {
    const step = known.get(id);
    if (step === undefined) {
      unknown.add(id);
      return;
    }
    const edges = open.get(id) ?? { pending: step.pending, taken: step.taken };
    // Began already, by a person's hand.
    if (edges.pending <= 0) return;
    open.set(id, edges);
    edges.pending -= 1;
    if (inFavour) edges.taken += 1;
    if (edges.pending === 0 && edges.taken === 0) line.push({ ...step, outcome: "skipped" });
  };
  for (let next = line.pop(); next !== undefined; next = line.pop()) {
    const { taken, dead } = decideEdges(next);
    for (const id of taken) decide(id, true);
    for (const id of dead) decide(id, false);
  }
  if (unknown.size > 0) return { kind: "unknown", ids: [...unknown] };
  return {
    kind: "decided",
    changes: [...open].map(([id, edges]) => changeOf(id, edges, known.get(id)?.delaySeconds ?? 0)),
  };
}

function changeOf(
  id: number,
  { pending, taken }: { pending: number; taken: number },
  delaySeconds: number,
): JobSuccessorChange {
  const change = { id, pending, taken, delayMs: null };
  if (pending > 0) return { ...change, state: "waiting" };
  if (taken === 0) return { ...change, state: "skipped" };
  if (delaySeconds > 0) return { ...change, state: "deferred", delayMs: delaySeconds * 1000 };
  return { ...change, state: "ready" };
}
