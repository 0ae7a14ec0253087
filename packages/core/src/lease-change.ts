import type { LeaseTimes } from "./lease-proof.ts";

/**
 * How the times of a lease change while it is held.
 *
 * The problem: the proof of lease-proof.ts joins two nodes, how long the owner trusts and how long the others wait. Nodes
 * learn of new times one after the other, so for a while an owner of new times stands beside others of old ones.
 *
 * What we do: each node goes at once as far as is safe beside old and new times alike: it trusts the shorter and waits the
 * longer. What goes the other way follows when the new times are old enough for every node that reaches the store to have
 * gone the first half: trusting longer as soon as this node does not own (one that always takes over at once would never
 * find the lease free), waiting shorter when nobody has it. Of renewal and call the shorter counts
 * meanwhile, so that two calls still fit.
 *
 * Not covered: a daemon that begins takes the times as it finds them. One that begins within seconds after a change, beside
 * one that has not read it yet, trusts too long if its store fails in just that moment.
 */
export function changeTimes(
  inUse: LeaseTimes,
  wanted: LeaseTimes,
  mayAdopt: "none" | "trust" | "all",
): LeaseTimes {
  if (mayAdopt === "all") return wanted;
  const waitMs = Math.max(inUse.waitMs, wanted.waitMs);
  if (mayAdopt === "trust") return { ...wanted, waitMs };
  return {
    ...wanted,
    trustMs: Math.min(inUse.trustMs, wanted.trustMs),
    waitMs,
    renewMs: Math.min(inUse.renewMs, wanted.renewMs),
    callMs: Math.min(inUse.callMs, wanted.callMs),
  };
}
