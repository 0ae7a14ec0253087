/**
 * What becomes of a step when a claim of it ends.
 *
 * A claim ends with a result, or because its service died, or because its service turns out not to know it. The order of
 * the rules after an error: another try while there are tries left and the error may pass; else `ignoreErrors` counts it
 * as success; else `freezeOnError` waits for a person; else the error successors follow. (The original leaves the order
 * of the last two open.)
 *
 * After a crash the question is whether the step may have begun. One that must not run twice unasked (`freeze`) begins
 * only when the hub has confirmed it, so a merely loaded one certainly has not. One that may (`rerun`) begins at once, so
 * for a loaded one nobody knows: it goes back without counting as a crash, since it probably just stood beside the step
 * that killed its service; but each such loss puts it off for longer, so that a step that kills before anybody hears of
 * it ends up alone, and is frozen in the end.
 */
export type JobStepEndState = "ready" | "deferred" | "finished" | "frozen" | "missing";
export type JobStepEndOutcome = "success" | "error" | "ignored" | "skipped" | "cancelled";

export interface JobStepRules {
  readonly retries: number;
  readonly retryDelaySeconds: number;
  readonly backOff: boolean;
  readonly ignoreErrors: boolean;
  readonly freezeOnError: boolean;
  readonly onCrash: "rerun" | "freeze";
  /** Crashes at which the step is frozen. */
  readonly crashesMax: number;
}

export interface JobStepTries {
  /** Tries that ended with an error. */
  readonly errors: number;
  /** Services that died while they worked on it. */
  readonly crashes: number;
  /** Services that died while it was loaded there; nobody knows whether it had begun. */
  readonly losses: number;
}

export interface ClaimedJobStep extends JobStepRules, JobStepTries {
  readonly state: "loaded" | "processing";
}

export interface JobResult {
  readonly outcome: "success" | "error" | "given-back" | "deferred";
  readonly permanent?: boolean;
  /** With `deferred`. */
  readonly deferMs?: number;
}

export interface JobStepEnd extends JobStepTries {
  readonly state: JobStepEndState;
  /** Exactly with `finished`. */
  readonly outcome: JobStepEndOutcome | null;
  /** Exactly with `deferred`: how long, in milliseconds. */
  readonly delayMs: number | null;
}

const RETRY_DELAY_SECONDS_MAX = 86_400;
const DEFER_MS_MAX = 31_536_000_000;
/** So many unclear losses for each crash that a step may cost. */
const LOSSES_PER_CRASH = 4;
const LOSS_DELAY_MS = { first: 1_000, max: 60_000 };

/** What a result makes of its step. */
export function decideResult(step: ClaimedJobStep, result: JobResult): JobStepEnd {
  const tries = { errors: step.errors, crashes: step.crashes, losses: step.losses };
  switch (result.outcome) {
    case "success":
      return { ...tries, ...finished("success") };
    case "given-back":
      return { ...tries, ...again(0) };
    case "deferred":
      return { ...tries, ...again(Math.min(Math.max(result.deferMs ?? 0, 0), DEFER_MS_MAX)) };
    case "error": {
      const errors = step.errors + 1;
      const rest = { ...tries, errors };
      if (result.permanent !== true && errors <= step.retries)
        return { ...rest, ...again(retryDelayMs(step, errors)) };
      if (step.ignoreErrors) return { ...rest, ...finished("ignored") };
      if (step.freezeOnError) return { ...rest, ...stopped("frozen") };
      return { ...rest, ...finished("error") };
    }
  }
}

/** The wait before the next try after so many errors, in milliseconds. */
export function retryDelayMs(
  step: Pick<JobStepRules, "retryDelaySeconds" | "backOff">,
  errors: number,
): number {
  const factor = step.backOff ? 2 ** Math.min(errors - 1, 30) : 1;
  return 1000 * Math.min(step.retryDelaySeconds * factor, RETRY_DELAY_SECONDS_MAX);
}

/**
 * How a claim was lost. `service-ended`: its lease ran out, or another run of the service has taken over.
 * `unknown-to-service`: the service lives and does not have it.
 */
export type JobLoss = "service-ended" | "unknown-to-service";

/** What becomes of a step whose claim was lost. */
export function decideLoss(step: ClaimedJobStep, loss: JobLoss): JobStepEnd {
  const tries = { errors: step.errors, crashes: step.crashes, losses: step.losses };
  if (step.state === "loaded") {
    // The answer that brought it got lost on its way, or it was waiting for the word to begin.
    if (loss === "unknown-to-service" || step.onCrash === "freeze") return { ...tries, ...again(0) };
    const losses = step.losses + 1;
    if (losses >= step.crashesMax * LOSSES_PER_CRASH) return { ...tries, losses, ...stopped("frozen") };
    return { ...tries, losses, ...again(lossDelayMs(losses)) };
  }
  if (step.onCrash === "freeze")
    return { ...tries, ...stopped(loss === "service-ended" ? "frozen" : "missing") };
  const crashes = step.crashes + 1;
  if (crashes >= step.crashesMax) return { ...tries, crashes, ...stopped("frozen") };
  return { ...tries, crashes, ...again(0) };
}

function lossDelayMs(losses: number): number {
  if (losses < 2) return 0;
  return Math.min(LOSS_DELAY_MS.first * 2 ** Math.min(losses - 2, 20), LOSS_DELAY_MS.max);
}

function finished(outcome: JobStepEndOutcome) {
  return { state: "finished", outcome, delayMs: null } as const;
}

function again(delayMs: number) {
  return delayMs > 0
    ? ({ state: "deferred", outcome: null, delayMs } as const)
    : ({ state: "ready", outcome: null, delayMs: null } as const);
}

function stopped(state: "frozen" | "missing") {
  return { state, outcome: null, delayMs: null } as const;
}
