import type { CrashPoint } from "./apply-run.ts";

/**
 * States that were broken once, and what broke there. They are replayed for as long as scenarios are drawn as they are
 * now; where that changes, they are drawn anew by putting the fault back.
 */
export const FOUND_ONCE: readonly { readonly found: string; readonly point: CrashPoint }[] = [
  {
    found: "the record stood under both of its names, and its rename away did nothing, for ever",
    point: { seed: 2, act: "update", call: 89, draw: 2848639517 },
  },
  {
    found: "a recovery dropped the record before previous/ was durable; no rollback was possible any more",
    point: { seed: 64, act: "update", call: 128, draw: 4130940083 },
  },
  {
    found: "leftovers were cleared while the record that names them could still come back",
    point: { seed: 33, act: "update", call: 139, draw: 1763514892 },
  },
];
