import { LockstepError, type ProcessSummary } from "@lockstep/protocol/wire";

/** What to say of a process that did not end well; null: it did, or it still runs. */
export function describeOutcome(process: ProcessSummary): LockstepError | null {
  const hint = `lockstep job show ${process.id} shows its steps.`;
  const what = `process ${process.id} (${process.name})`;
  if (process.state === "failed")
    return new LockstepError("JOB_PROCESS_FAILED", `${what} has failed`, { hint });
  if (process.state === "stuck")
    return new LockstepError("JOB_PROCESS_STUCK", `${what} waits for a person`, { hint });
  if (process.state === "cancelled")
    return new LockstepError("JOB_PROCESS_CANCELLED", `${what} was cancelled`, { hint });
  return null;
}
