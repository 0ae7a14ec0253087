/**
 * Nodes that drop out again and again do more harm than a node that is away: each time something moves there and back.
 * After so many ungraceful exits within an hour a node is kept out for two, unless a person lets it in again. Not more
 * than a quarter of the nodes at once, but one where there are at least two; else the rule would never hold for the small
 * clusters that need it.
 */
export interface QuarantinePolicy {
  readonly exits: number;
  readonly periodMs: number;
  readonly outMs: number;
}

export const DEFAULT_QUARANTINE: QuarantinePolicy = {
  exits: 3,
  periodMs: 60 * 60_000,
  outMs: 2 * 60 * 60_000,
};

/**
 * Until when the node is kept out, or null. `exits`: when it left without saying so, on the clock of `now`, the last one
 * included. `nodes`: how many there are; `outNow`: how many others are kept out already.
 */
export function judgeQuarantine(
  exits: readonly number[],
  now: number,
  nodes: number,
  outNow: number,
  policy: QuarantinePolicy = DEFAULT_QUARANTINE,
): number | null {
  const recent = exits.filter((at) => at > now - policy.periodMs);
  const outMax = nodes < 2 ? 0 : Math.max(1, Math.floor(nodes / 4));
  return recent.length >= policy.exits && outNow < outMax ? now + policy.outMs : null;
}
