import { type HeldClaims, heldClaims } from "./job-service-held.ts";
import type {
  Held,
  OpenRequest,
  ServiceEffect,
  ServiceQueue,
  ServiceResult,
  SlotCount,
  StopReason,
} from "./job-service-types.ts";

/** One transition under way: the state, which the parts of the decision change, and what is to be done. */
export interface Draft {
  readonly state: Writable<ServiceQueue>;
  readonly held: HeldClaims;
  readonly stopping: Map<number, "internal" | "external">;
  readonly effects: ServiceEffect[];
}

type Writable<T> = { -readonly [Key in keyof T]: T[Key] };

/** The claims are changed where they are: a copy of hundreds for each of them would cost more than the decision. */
export function openDraft(state: ServiceQueue): Draft {
  const held = heldClaims(state);
  const stopping = state.stopping instanceof Map ? state.stopping : new Map(state.stopping);
  return { state: { ...state, held, stopping }, held, stopping, effects: [] };
}

export function change(draft: Draft, held: Held, changes: Partial<Held>): void {
  draft.held.change(held, changes);
}

/** The claim is not ours any more, whatever we think of it: work on it stops, a result of it is of no use. */
export function drop(draft: Draft, held: Held, reason: StopReason): void {
  draft.held.delete(held.claim);
  if (held.stage === "running" && held.step !== null) {
    draft.stopping.set(held.claim, held.step.execution);
    draft.effects.push({ kind: "stop", claim: held.claim, reason });
  }
  if (held.journal !== "none") draft.effects.push({ kind: "forget", claims: [held.claim] });
  draft.effects.push({ kind: "dropped", claim: held.claim, reason });
}

export function giveBack(draft: Draft, held: Held, now: number, message: string): void {
  const result: ServiceResult = { step: held.id, claim: held.claim, outcome: "given-back", message };
  change(draft, held, { stage: "ended", result, resultBytes: message.length + 100, endedAt: now });
}

/** Work under way, whether the claim is still ours or not, by kind. */
export function usedSlots(draft: Pick<ServiceQueue, "held" | "stopping">): SlotCount {
  const used = { internal: 0, external: 0 };
  const held = heldClaims(draft);
  for (const stage of ["running", "confirming"] as const)
    for (const { step } of held.in(stage).values()) if (step !== null) used[step.execution] += 1;
  for (const execution of draft.stopping.values()) used[execution] += 1;
  return used;
}

/** Ends a request without an answer: what it said must be said again. */
export function giveUp(draft: Draft, request: OpenRequest): void {
  draft.state.open = draft.state.open.filter((each) => each !== request);
  for (const claim of [...request.results, ...request.started]) {
    const held = draft.held.get(claim);
    if (held === undefined) continue;
    change(draft, held, {
      resultIn: held.resultIn === request.sequence ? null : held.resultIn,
      startSaid: held.startSaid === request.sequence ? null : held.startSaid,
    });
  }
}
