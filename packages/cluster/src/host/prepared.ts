import type { LeaseRole } from "@lockstep/core";
import type { Clock } from "@lockstep/platform";
import { problemOf, type ResourceSlot } from "./resource-slot.ts";
import { isSettledWithin, within } from "./time-limit.ts";

/** What is asked before a planned move, on the node that is to take over. */
export interface PreparedParts {
  readonly clock: Clock;
  readonly role: () => LeaseRole["kind"];
  /** Something of a former term does not end. */
  readonly isBlocked: () => boolean;
  readonly guardAnswers: () => Promise<void>;
  /** What is not the resources': settings, configuration. */
  readonly belongings: () => Promise<void>;
  readonly slots: ReadonlyMap<string, ResourceSlot>;
}

const PREPARE_MS = 5_000;
const LOOK_MS = 50;

/**
 * Does what takes time and changes nothing, and says what would keep a virtual server from coming online here; null:
 * nothing is known. Takes a few seconds at most, also where something hangs.
 */
export async function prepareHere(parts: PreparedParts): Promise<string | null> {
  if (parts.role() === "owner") return null;
  const problem = await findUnready(parts);
  if (problem !== null) return problem;
  const asked = [...parts.slots].map(async ([name, slot]) => {
    const problem = await slot.prepare(PREPARE_MS);
    return problem === null ? null : `${name}: ${problem}`;
  });
  const own = within(parts.belongings(), PREPARE_MS).then(() => null, problemOf);
  const problems = await Promise.all([own, ...asked]);
  return problems.filter((problem) => problem !== null).join("; ") || null;
}

/** What keeps this node from taking the lease as such. */
async function findUnready({ clock, role, isBlocked, guardAnswers }: PreparedParts): Promise<string | null> {
  const isEnding = () => role() === "cleaning" || role() === "fenced" || isBlocked();
  for (const until = clock.monotonic() + PREPARE_MS; isEnding(); ) {
    if (clock.monotonic() > until) return "what it was there before does not end";
    await clock.sleep(LOOK_MS);
  }
  return (await isSettledWithin(guardAnswers(), PREPARE_MS)) ? null : "the guard there does not answer";
}
