import { type InstallationReport, isLockstepError, LockstepError } from "@lockstep/protocol/wire";
import type { Preparation } from "./preparation.ts";

/** How a run fails for reasons of its own. */

/** The update was switched and taken back: the installation is at its former revision. */
export class RolledBackError extends LockstepError {
  constructor(reason: string, cause: LockstepError | null) {
    super(cause?.code ?? "PROBE_FAILED", `the update was taken back: ${cause?.message ?? reason}`, {
      ...(cause?.expected === undefined ? {} : { expected: cause.expected }),
      ...(cause?.found === undefined ? {} : { found: cause.found }),
      hint: cause?.hint ?? "The installation is at its former revision. update.log says which step failed.",
      ...(cause === null ? {} : { cause, faults: cause.faults }),
    });
  }
}

/** What the hub is told of a run that did not reach its end. */
export function reportedOutcome(error: unknown): InstallationReport["outcome"] {
  if (error instanceof RolledBackError) return "rolled-back";
  return isLockstepError(error, "UPDATE_POSTPONED") ? "postponed" : "failed";
}

/** Throws INSTALLATION_CONFLICT when the plan cannot be carried out without touching what is not ours. */
export function refusePlan({ plan }: Pick<Preparation, "plan">): void {
  const [first] = plan.faults;
  if (first === undefined) return;
  throw new LockstepError("INSTALLATION_CONFLICT", "something stands in the way of the update", {
    expected: "files and folders that are the product's",
    found: `${first.path}: ${first.problem}`,
    faults: plan.faults.map(({ path, problem }) => ({ where: path, problem })),
    hint: "Nothing was changed. Move what is named out of the installation, then run it again.",
  });
}
