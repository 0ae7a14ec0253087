/**
 * Whether a history of jobs is one that the promises allow: what the steps themselves wrote down, held against what the
 * hub recorded. Knows nothing of how either is made.
 */
export interface HistoryStep {
  readonly process: number;
  readonly name: string;
  /** Names of the steps of its process that must have ended before it begins. */
  readonly after: readonly string[];
  readonly onCrash: "rerun" | "freeze";
  readonly state: string;
  readonly outcome: string | null;
  /** How each claim of it ended, oldest first. */
  readonly runs: readonly (string | null)[];
}

/** In the order in which they were written. */
export interface HistoryMark {
  readonly process: number;
  readonly name: string;
  readonly kind: "begun" | "done";
}

const COUNTING = new Set(["success", "error"]);
const WAITING_FOR_PERSON = new Set(["frozen", "missing"]);

/** Every fault of a history whose processes have all come to an end or to a stop; none: it is allowed. */
export function findHistoryFaults(steps: readonly HistoryStep[], marks: readonly HistoryMark[]): string[] {
  const faults: string[] = [];
  const positions = new Map<string, { begun: number[]; done: number[] }>();
  const known = new Set(steps.map(keyOf));
  marks.forEach((mark, at) => {
    const key = keyOf(mark);
    if (!known.has(key)) faults.push(`${key}: has ${mark.kind}, and nobody asked for it`);
    const found = positions.get(key) ?? { begun: [], done: [] };
    found[mark.kind].push(at);
    positions.set(key, found);
  });
  for (const step of steps) {
    const key = keyOf(step);
    const { begun, done } = positions.get(key) ?? { begun: [], done: [] };
    const counted = step.runs.filter((outcome) => outcome !== null && COUNTING.has(outcome)).length;
    if (counted > 1) faults.push(`${key}: ${counted} results were counted`);
    if (step.onCrash === "freeze" && begun.length > 1)
      faults.push(`${key}: must not run twice and began ${begun.length} times`);
    if (step.state === "finished" && step.outcome === "success") {
      if (done.length === 0) faults.push(`${key}: is said to be done and is not`);
      if (counted !== 1) faults.push(`${key}: has finished with ${counted} results`);
    } else if (WAITING_FOR_PERSON.has(step.state)) {
      if (step.onCrash === "rerun") faults.push(`${key}: may be rerun and is ${step.state}`);
    } else if (step.state !== "waiting") faults.push(`${key}: is ${step.state}: lost`);
    const first = begun[0];
    if (first === undefined) continue;
    for (const before of step.after) {
      const ended = positions.get(`${step.process}/${before}`)?.done[0];
      if (ended === undefined || ended > first) faults.push(`${key}: began before ${before} was done`);
    }
  }
  return faults;
}

const keyOf = ({ process, name }: { readonly process: number; readonly name: string }) =>
  `${process}/${name}`;
