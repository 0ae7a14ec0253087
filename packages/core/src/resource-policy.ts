import type { Dependency } from "./resource-dependency.ts";

/** What becomes of a resource that fails. Semantics and defaults of Windows failover clusters, but for the delay (ADR 0012). */
export interface ResourcePolicy {
  readonly dependency: Dependency;
  /** Nodes that can own it; null: all. */
  readonly possibleOwners: readonly string[] | null;
  /** How often the quick look is taken. */
  readonly looksAliveMs: number;
  /** How often the thorough test is made. */
  readonly isAliveMs: number;
  /** The longest time between two reports of one that comes online or goes offline, not the longest time in all. */
  readonly pendingMs: number;
  /** What a failure leads to: nothing, restarts alone, or restarts and then a failover of the virtual server. */
  readonly restartAction: "none" | "restart" | "restart-then-failover";
  /** So many failures within the period are answered by a restart in place; one more is not. */
  readonly restartThreshold: number;
  readonly restartPeriodMs: number;
  readonly restartDelayMs: number;
  /** After everything failed, try again after this; null: never. Not less than the restart period. */
  readonly retryMs: number | null;
}

export const DEFAULT_RESOURCE_POLICY: ResourcePolicy = {
  dependency: [],
  possibleOwners: null,
  looksAliveMs: 5_000,
  isAliveMs: 60_000,
  pendingMs: 180_000,
  restartAction: "restart-then-failover",
  restartThreshold: 3,
  restartPeriodMs: 15 * 60_000,
  restartDelayMs: 50,
  retryMs: 60 * 60_000,
};

export type ResourcePhase = "offline" | "online-pending" | "online" | "offline-pending" | "failed";

export type VirtualServerStatus = "online" | "offline" | "failed" | "partial-online" | "pending";

/** The state of a virtual server, by five rules from those of its resources; one without resources is offline. */
export function virtualServerStatus(phases: readonly ResourcePhase[]): VirtualServerStatus {
  if (phases.includes("failed")) return "failed";
  if (phases.some((phase) => phase === "online-pending" || phase === "offline-pending")) return "pending";
  if (phases.every((phase) => phase === "offline")) return "offline";
  return phases.every((phase) => phase === "online") ? "online" : "partial-online";
}

/** What went wrong in the figures of a policy, by field. */
export function findPolicyFaults(policy: ResourcePolicy): { field: keyof ResourcePolicy; problem: string }[] {
  const faults: { field: keyof ResourcePolicy; problem: string }[] = [];
  for (const field of ["looksAliveMs", "isAliveMs", "pendingMs", "restartPeriodMs"] as const)
    if (!(policy[field] > 0)) faults.push({ field, problem: "must be more than zero" });
  for (const field of ["restartThreshold", "restartDelayMs"] as const)
    if (!(policy[field] >= 0)) faults.push({ field, problem: "must not be negative" });
  if (policy.retryMs !== null && policy.retryMs < policy.restartPeriodMs)
    faults.push({ field: "retryMs", problem: "must not be less than the restart period" });
  return faults;
}

/** How often a virtual server may be moved because of failures before it stays where it is, failed. */
export interface FailoverLimit {
  /** Null: one less than there are nodes. */
  readonly threshold: number | null;
  readonly periodMs: number;
}

export const DEFAULT_FAILOVER_LIMIT: FailoverLimit = { threshold: null, periodMs: 6 * 60 * 60_000 };

/** Whether one more failover is allowed, what to remember, and how many are allowed within the period. */
export interface FailoverVerdict {
  readonly allowed: boolean;
  readonly history: readonly number[];
  readonly threshold: number;
}

/**
 * Whether one more failover is allowed. `history`: when the former ones happened, on the clock of `now`. Returns what to
 * remember: the new one included when it is allowed, those outside the period dropped.
 */
export function judgeFailover(
  history: readonly number[],
  now: number,
  limit: FailoverLimit,
  nodes: number,
): FailoverVerdict {
  const threshold = limit.threshold ?? Math.max(0, nodes - 1);
  const recent = history.filter((at) => at > now - limit.periodMs);
  const allowed = recent.length < threshold;
  return { allowed, history: allowed ? [...recent, now] : recent, threshold };
}
