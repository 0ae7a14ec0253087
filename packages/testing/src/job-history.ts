import type { ProcessDetail, StepDetail, StepRun } from "@lockstep/protocol";

/**
 * Judges what a run with faults left behind: was every step done, recorded once, in the declared order, and by the
 * claim that was entitled to it?
 *
 * It sees what the hub answers about its processes, and what the steps themselves wrote down when they ran (*effects*):
 * one line when a run begins, with its claim. The two are independent: a hub that records a result nobody produced, or
 * a service that works without a claim, shows as a difference between them. Order is judged by claim numbers, which
 * grow over the whole hub, so no clock is believed, except the one of the machine on which all steps of a test run.
 */
export interface Effect {
  readonly step: number;
  readonly claim: number;
  /** When it ran, in milliseconds of the one clock of the machine. Null: it was killed on the way. */
  readonly from: number;
  readonly to: number | null;
}

/** What is known of a step from its template, and not from its row. */
export interface Declared {
  readonly onCrash: "rerun" | "freeze";
  readonly exclusiveObject: string | null;
}

export interface JobHistory {
  readonly processes: readonly ProcessDetail[];
  readonly effects: readonly Effect[];
  readonly declared: (process: ProcessDetail, step: StepDetail) => Declared;
}

/** Everything that is wrong with a history, in plain words; an empty list is a sound one. */
export function judgeHistory(history: JobHistory): string[] {
  const { processes, effects, declared } = history;
  const problems: string[] = [];
  const claims = new Map<number, { step: StepDetail; run: StepRun }>();
  const ranBy = Map.groupBy(effects, ({ claim }) => claim);
  for (const process of processes)
    for (const step of process.steps)
      for (const run of step.runs) {
        const other = claims.get(run.claim);
        if (other !== undefined)
          problems.push(`claim ${run.claim} belongs to step ${other.step.id} and to step ${step.id}`);
        claims.set(run.claim, { step, run });
      }
  for (const { step, claim } of effects) {
    const found = claims.get(claim);
    if (found === undefined) problems.push(`step ${step} ran under claim ${claim}, which nobody gave`);
    else if (found.step.id !== step)
      problems.push(`claim ${claim} of step ${found.step.id} was used to run step ${step}`);
  }
  for (const [claim, runs] of ranBy)
    if (runs.length > 1) problems.push(`claim ${claim} was run ${runs.length} times`);
  for (const process of processes) {
    judgeEnd(process, problems);
    for (const step of process.steps) {
      judgeRuns(step, ranBy, problems);
      if (declared(process, step).onCrash === "freeze") judgeFreeze(step, ranBy, problems);
    }
    judgeOrder(process, problems);
  }
  judgeExclusive(history, problems);
  return problems;
}

/** Nothing may be on its way for ever, and the process must say what its steps say. */
function judgeEnd({ process, steps }: ProcessDetail, problems: string[]): void {
  const held = steps.filter(({ state }) => ["frozen", "missing", "over-limit"].includes(state));
  for (const { id, state } of steps)
    if (state !== "finished" && held.length === 0)
      problems.push(`step ${id} of process ${process.id} is lost: ${state}, and nothing holds it back`);
  const ended = ["finished", "failed", "cancelled"].includes(process.state);
  if (ended && steps.some(({ state }) => state !== "finished"))
    problems.push(`process ${process.id} is ${process.state} with steps that are not finished`);
  if (!ended && steps.every(({ state }) => state === "finished"))
    problems.push(`process ${process.id} is ${process.state} although all its steps are finished`);
}

const final = ({ outcome }: StepRun) => outcome === "success" || outcome === "error";

function judgeRuns(
  step: StepDetail,
  ranBy: ReadonlyMap<number, readonly Effect[]>,
  problems: string[],
): void {
  const successes = step.runs.filter(({ outcome }) => outcome === "success");
  if (successes.length > 1) problems.push(`step ${step.id} has ${successes.length} results that say success`);
  const newest = Math.max(0, ...step.runs.map(({ claim }) => claim));
  for (const { claim } of successes)
    if (claim !== newest)
      problems.push(`step ${step.id} was completed by claim ${claim}, but ${newest} is newer`);
  for (const run of step.runs.filter(final))
    if (!ranBy.has(run.claim))
      problems.push(`step ${step.id} has a result of claim ${run.claim}, under which it never ran`);
  const succeeded = step.outcome === "success";
  if (succeeded && successes.length !== 1) problems.push(`step ${step.id} ended well without a result`);
  if (step.outcome === "error" && !step.runs.some(({ outcome }) => outcome === "error"))
    problems.push(`step ${step.id} ended with an error that no run had`);
  if (step.outcome === "skipped" && step.runs.length > 0)
    problems.push(`step ${step.id} was skipped and ran all the same`);
  if (step.state === "finished" && step.runs.some(({ outcome }) => outcome === null))
    problems.push(`step ${step.id} is finished, but one of its claims is still open`);
}

/** What must not run twice unasked: one run that began, or none. */
function judgeFreeze(
  step: StepDetail,
  ranBy: ReadonlyMap<number, readonly Effect[]>,
  problems: string[],
): void {
  const began = step.runs.filter((run) => ranBy.has(run.claim) && run.outcome !== "error");
  if (began.length > 1) problems.push(`step ${step.id} must not run twice and ran ${began.length} times`);
}

/** A step is claimed only after the result that led to it. */
function judgeOrder({ steps }: ProcessDetail, problems: string[]): void {
  const last = (step: StepDetail) => Math.max(0, ...step.runs.map(({ claim }) => claim));
  const byId = new Map(steps.map((step) => [step.id, step]));
  for (const step of steps) {
    const well = step.outcome === "success" || step.outcome === "ignored";
    for (const [list, taken] of [
      [step.onSuccess, well],
      [step.onError, step.outcome === "error"],
    ] as const)
      for (const id of list) {
        const next = byId.get(id);
        if (next === undefined) continue;
        const first = Math.min(Number.POSITIVE_INFINITY, ...next.runs.map(({ claim }) => claim));
        if (first < last(step))
          problems.push(`step ${id} began before step ${step.id}, which leads to it, ended`);
        if (next.runs.length > 0 && step.state !== "finished")
          problems.push(`step ${id} ran although step ${step.id} before it is ${step.state}`);
        if (taken && next.outcome === "skipped")
          problems.push(`step ${id} was skipped although step ${step.id} leads to it`);
      }
  }
}

/** Runs for one exclusive object never overlap. A run that was killed has no end that anybody knows. */
function judgeExclusive({ processes, effects, declared }: JobHistory, problems: string[]): void {
  const objectOf = new Map<number, string>();
  for (const process of processes)
    for (const step of process.steps) {
      const object = declared(process, step).exclusiveObject;
      if (object !== null) objectOf.set(step.id, object);
    }
  const spans = effects.flatMap(({ step, from, to }) => {
    const object = objectOf.get(step);
    return object === undefined || to === null ? [] : [{ object, step, from, to }];
  });
  for (const [object, list] of Map.groupBy(spans, (span) => span.object)) {
    const sorted = list.toSorted((a, b) => a.from - b.from);
    sorted.forEach((span, index) => {
      const before = sorted[index - 1];
      if (before !== undefined && span.from < before.to)
        problems.push(`steps ${before.step} and ${span.step} had ${object} at the same time`);
    });
  }
}
