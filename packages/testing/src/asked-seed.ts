/**
 * The seed of a random test. It is the same in every run, so that whether a change passes is not a matter of luck;
 * LOCKSTEP_SEED=N asks for another one, LOCKSTEP_SEED=fresh for one that never was before. Throws on anything else.
 */
export function askedSeed(otherwise: number, asked = process.env.LOCKSTEP_SEED, now = Date.now()): number {
  if (asked === undefined || asked === "") return otherwise;
  if (asked === "fresh") return FRESH_FROM + (now % FRESH_SPAN);
  const seed = Number(asked);
  if (!Number.isSafeInteger(seed) || seed < 0)
    throw new RangeError(`LOCKSTEP_SEED is a whole number of 0 or more, or fresh; found: ${asked}`);
  return seed;
}

const FRESH_FROM = 1_000_000_000;
const FRESH_SPAN = 1_000_000_000;
