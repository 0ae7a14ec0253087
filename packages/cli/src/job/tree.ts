import type { StepDetail } from "@lockstep/protocol/wire";

/**
 * The steps of a process as a tree to read from top to bottom: what follows stands below, indented only where the way
 * parts. A step that several lead to stands below the first of them; the others point to it.
 */
export interface TreeRow {
  /** What stands before the text: branches and indentation. */
  readonly prefix: string;
  /** What stands before further lines of it. */
  readonly below: string;
  readonly step: StepDetail;
  /** It follows an error. */
  readonly onError: boolean;
  /** It stands elsewhere; here it is only pointed to. */
  readonly pointer: boolean;
}

interface Visit {
  readonly id: number;
  readonly prefix: string;
  /** The prefix of what follows it. */
  readonly below: string;
  readonly onError: boolean;
}

/** Any number of steps in any depth: nothing here recurs. */
export function layOutTree(steps: readonly StepDetail[]): TreeRow[] {
  const byId = new Map(steps.map((step) => [step.id, step]));
  const named = new Set(steps.flatMap((step) => [...step.onSuccess, ...step.onError]));
  const rows: TreeRow[] = [];
  const shown = new Set<number>();
  const open: Visit[] = steps
    .filter(({ id }) => !named.has(id))
    .reverse()
    .map(({ id }) => ({ id, prefix: "", below: "", onError: false }));
  for (let visit = open.pop(); visit !== undefined; visit = open.pop()) {
    const step = byId.get(visit.id);
    if (step === undefined) continue;
    const pointer = shown.has(step.id);
    rows.push({ prefix: visit.prefix, below: visit.below, step, onError: visit.onError, pointer });
    if (pointer) continue;
    shown.add(step.id);
    open.push(...follow(step, visit.below).reverse());
  }
  return rows;
}

function follow({ onSuccess, onError }: StepDetail, below: string): Visit[] {
  const next = [
    ...onSuccess.map((id) => ({ id, onError: false })),
    ...onError.filter((id) => !onSuccess.includes(id)).map((id) => ({ id, onError: true })),
  ];
  if (next.length === 1) return next.map((each) => ({ ...each, prefix: below, below }));
  return next.map((each, index) => {
    const last = index === next.length - 1;
    return { ...each, prefix: `${below}${last ? "└─ " : "├─ "}`, below: `${below}${last ? "   " : "│  "}` };
  });
}
