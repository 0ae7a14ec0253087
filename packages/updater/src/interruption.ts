import { LockstepError } from "@lockstep/protocol/wire";

/** The error of a run that was told to stop while nothing had happened yet. */
export function interruptedError(signal: AbortSignal): LockstepError {
  if (signal.reason instanceof LockstepError) return signal.reason;
  return new LockstepError("INTERRUPTED", "stopped before anything was changed", {
    hint: "Run it again: what was fetched is kept.",
    cause: signal.reason,
  });
}

/** Throws INTERRUPTED when the signal says so. */
export function throwIfInterrupted(signal: AbortSignal | undefined): void {
  if (signal?.aborted === true) throw interruptedError(signal);
}
