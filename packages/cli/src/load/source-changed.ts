import { type Fault, LockstepError } from "@lockstep/protocol/wire";
import type { WorkFault } from "./work.ts";

type Place = Pick<WorkFault, "path" | "problem">;

/** Why files cannot be loaded: those that may not be read at all, else those that are not what they were. */
export function sourceFailure(faults: readonly WorkFault[]): LockstepError {
  const unreadable = faults.filter((fault) => fault.unreadable);
  return unreadable.length > 0
    ? sourceUnreadable("the directory", listed(unreadable))
    : sourceChanged(faults);
}

/** The files are not what they were when the directory was read. */
export function sourceChanged(places: readonly Place[]): LockstepError {
  return new LockstepError("LOAD_SOURCE_CHANGED", "the directory changed while it was being loaded", {
    faults: listed(places),
    hint: "Nothing was loaded. Make sure that nobody writes to the directory, then load again.",
  });
}

/** `what`: the directory, in words. */
export function sourceUnreadable(what: string, faults: readonly Fault[], cause?: unknown): LockstepError {
  return new LockstepError("LOAD_SOURCE_UNREADABLE", `${what} cannot be read completely`, {
    faults,
    cause,
    hint: "Nothing was loaded. Make everything in it readable for this user, or leave it out by --exclude GLOB.",
  });
}

const listed = (places: readonly Place[]): Fault[] =>
  places.map(({ path, problem }) => ({ where: path, problem }));
