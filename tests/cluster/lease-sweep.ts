import { type LeaseCounts, type LeaseRules, noLeaseCounts } from "./lease-faults.ts";
import { LeaseViolation } from "./lease-oracle.ts";
import { LeaseWorld } from "./lease-world.ts";

export interface LeaseSweep {
  readonly seeds: number;
  readonly counts: LeaseCounts;
  readonly broken: readonly { readonly seed: number; readonly message: string }[];
}

/** Runs `seeds` worlds from seed `from` on. A fault of the simulation itself is thrown. */
export function sweepLeases(
  from: number,
  seeds: number,
  tell: (done: number, broken: number) => void = () => {},
): LeaseSweep {
  const counts = noLeaseCounts();
  const broken: { seed: number; message: string }[] = [];
  for (let seed = from; seed < from + seeds; seed++) {
    const message = runSeed(seed, counts);
    if (message !== null) broken.push({ seed, message });
    tell(seed - from + 1, broken.length);
  }
  return { seeds, counts, broken };
}

function runSeed(seed: number, counts: LeaseCounts): string | null {
  try {
    const found = new LeaseWorld(seed).run();
    for (const name of Object.keys(counts) as (keyof LeaseCounts)[]) counts[name] += found[name];
    return null;
  } catch (error) {
    if (error instanceof LeaseViolation) return error.message;
    throw new Error(`seed ${seed}: ${error instanceof Error ? error.message : String(error)}`, {
      cause: error,
    });
  }
}

/** Within how many seeds a mutant is told from the real rules; null: not within `seedsMax`. */
export function catchLeaseMutant(
  rules: LeaseRules,
  from: number,
  seedsMax: number,
): { readonly seeds: number; readonly message: string } | null {
  for (let seeds = 1; seeds <= seedsMax; seeds++) {
    try {
      new LeaseWorld(from + seeds, rules).run();
    } catch (error) {
      if (error instanceof LeaseViolation) return { seeds, message: error.message };
      throw error;
    }
  }
  return null;
}
