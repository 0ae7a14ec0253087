const AGAIN_MS = 2_000;

/**
 * Tries to end something until it is gone, because nothing may begin elsewhere before that. `attempt` resolves to what keeps
 * it there, null: nothing is left. `tell` hears each new reason once.
 */
export async function untilGone(
  attempt: () => Promise<string | null>,
  tell: (problem: string) => void,
): Promise<void> {
  let told: string | null = null;
  for (;;) {
    const problem = await attempt().catch((error: unknown) => String(error));
    if (problem === null) return;
    if (problem !== told) tell(problem);
    told = problem;
    // A daemon that ends does not wait for it.
    await new Promise((wake) => setTimeout(wake, AGAIN_MS).unref());
  }
}
