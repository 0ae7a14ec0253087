import { DEFAULT_LEASE_TIMES, FAST_LEASE_TIMES, type LeaseTimes } from "@lockstep/core";
import { usage } from "../options.ts";

/** By the words of `--profile`. */
export const LEASE_PROFILES = { default: DEFAULT_LEASE_TIMES, fast: FAST_LEASE_TIMES } as const;
export type LeaseProfile = keyof typeof LEASE_PROFILES;

/** Times of a lease in which single terms are replaced: `waitMs=5000`. Throws USAGE. */
export function readTimes(base: LeaseTimes, given: readonly string[]): LeaseTimes {
  const times: Record<keyof LeaseTimes, number> = { ...base };
  for (const text of given) {
    const [, term, value] = /^([A-Za-z]+)=([0-9]+(?:\.[0-9]+)?)$/.exec(text) ?? [];
    const known = Object.keys(times) as (keyof LeaseTimes)[];
    const found = known.find((each) => each === term);
    if (found === undefined)
      throw usage(
        "--time takes TERM=VALUE",
        `${known.join(", ")}; milliseconds, clockError a fraction`,
        text,
      );
    times[found] = Number(value);
  }
  return times;
}
