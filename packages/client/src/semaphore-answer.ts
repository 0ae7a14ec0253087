import type { Semaphore, SignedMark } from "@lockstep/protocol/wire";

/** What the semaphore says to someone who knows a revision already. */
export type SemaphoreAnswer = (
  | { readonly kind: "equal"; readonly revision: number }
  | { readonly kind: "different"; readonly semaphore: Semaphore }
) & {
  /** What is signed now, by the hub's word; null: it does not say. */
  readonly signed: SignedMark | null;
};
