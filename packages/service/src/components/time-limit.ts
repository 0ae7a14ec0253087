import type { Clock } from "@lockstep/platform";
import { LockstepError } from "@lockstep/protocol/wire";

/** Why a step was ended from outside, as its own result says it. */
export function timeLimitError(limitMs: number): LockstepError {
  return new LockstepError(
    "JOB_TIME_LIMIT",
    `the step took longer than its time limit of ${limitMs / 1000} s`,
    { expected: limitMs },
  );
}

/**
 * Calls back after `ms`, however long that is: a bare timer of Node cannot wait for more than 24.8 days. Not any more
 * once `ended` aborts.
 */
export function after(ms: number, clock: Clock, ended: AbortSignal, act: () => void): void {
  void clock.sleep(ms, ended).then(() => {
    if (!ended.aborted) act();
  });
}
