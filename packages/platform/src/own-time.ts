/** So many timers one after the other: when the whole machine stood still, that counts as one of them. */
const PARTS = 4;

/**
 * For the limit of what another process does: it had no time either while the machine stood still, and must not be found
 * late by whoever wakes first. Returns what calls it off.
 */
export function afterOwnTime(limitMs: number, act: () => void): () => void {
  let timer: NodeJS.Timeout | undefined;
  const wait = (parts: number) => {
    timer = setTimeout(() => (parts === 1 ? act() : wait(parts - 1)), limitMs / PARTS);
  };
  wait(PARTS);
  return () => clearTimeout(timer);
}
