import { LockstepError } from "@lockstep/protocol/wire";
import type { WorkFault } from "./work.ts";

/** The files are not what they were when the directory was read. */
export function sourceChanged(faults: readonly WorkFault[]): LockstepError {
  return new LockstepError("LOAD_SOURCE_CHANGED", "the directory changed while it was being loaded", {
    faults: faults.map(({ path, problem }) => ({ where: path, problem })),
    hint: "Nothing was loaded. Make sure that nobody writes to the directory, then load again.",
  });
}
