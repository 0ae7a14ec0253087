import { isProven, type LeaseTimes, proveLease, stepGuard, stepLease } from "@lockstep/core";
import type { NetworkFaults, Prng } from "@lockstep/testing";

/** What one run is drawn from: the cluster, its times, and everything that goes wrong in it. */
export interface LeaseScenario {
  readonly nodes: number;
  readonly times: LeaseTimes;
  readonly automatic: boolean;
  readonly failsafe: boolean;
  readonly network: NetworkFaults;
  /** The longest commit of the store. */
  readonly commitMs: number;
  readonly faultyMs: number;
  /** How often each fault strikes. */
  readonly strikes: Readonly<Record<Strike, number>>;
}

export const STRIKES = [
  "daemonFrozen",
  "daemonKilled",
  "guardKilled",
  "guardFrozen",
  "machineFrozen",
  "machineLost",
  "cutOneWay",
  "cutBothWays",
  "storeAway",
  "clockChanged",
  "move",
  "maintenance",
] as const;
export type Strike = (typeof STRIKES)[number];

/** The rules that a mutant breaks. The simulated world asks here for whatever carries a promise. */
export interface LeaseRules {
  readonly step: typeof stepLease;
  readonly guard: typeof stepGuard;
  /** When the daemon asks whether it may act. */
  readonly asks: "before-each-act" | "once-a-sequence" | "a-flag";
  /** Whether what the service changes outside refuses an old token. */
  readonly checksTokens: boolean;
  /** Whether the store compares before it swaps. */
  readonly compares: boolean;
  /** Whether the guard is told of the address before the daemon takes it. */
  readonly touches: boolean;
}

export const REAL_RULES: LeaseRules = {
  step: stepLease,
  guard: stepGuard,
  asks: "before-each-act",
  checksTokens: true,
  compares: true,
  touches: true,
};

/** Draws a scenario whose times just so fulfil the two inequalities, or with some room. */
export function drawScenario(prng: Prng): LeaseScenario {
  const clockError = prng.pick([0.0005, 0.01, 0.05]);
  // Quick guards leave no room that would hide a deadline which is a little too late.
  const isQuick = prng.chance(0.4);
  const guardDelayMs = 5 + prng.below(isQuick ? 5 : 100);
  const stopMs = 5 + prng.below(isQuick ? 5 : 150);
  const callMs = 60 + prng.below(400);
  const renewMs = 50 + prng.below(400);
  // Room for the start itself, so that two lease times are enough for progress.
  const trustMs =
    Math.max(renewMs + 2 * callMs, 2 * guardDelayMs + 350) + (prng.chance(0.5) ? 0 : prng.below(500));
  const least = (trustMs * (1 + clockError) + guardDelayMs + stopMs) / (1 - clockError);
  const waitMs = Math.ceil(least) + 1 + (prng.chance(0.6) ? 0 : prng.below(500));
  const times = { trustMs, waitMs, renewMs, callMs, guardDelayMs, stopMs, clockError };
  if (!isProven(proveLease(times))) throw new Error(`drew times that are not safe: ${JSON.stringify(times)}`);
  const isCalm = prng.chance(0.2);
  const strike = (max: number) => (prng.chance(0.5) ? 0 : 1 + prng.below(max));
  return {
    nodes: prng.pick([2, 3, 3, 3, 4]),
    times,
    automatic: prng.chance(0.85),
    failsafe: prng.chance(0.3),
    network: {
      loss: isCalm ? 0 : prng.next() * 0.25,
      duplicate: isCalm ? 0 : prng.next() * 0.1,
      slow: isCalm ? 0 : prng.next() * (isQuick ? 0.7 : 0.3),
      usualMs: Math.min(20, callMs / 8),
      // From "just below the time limit" to "after the next owner began".
      slowMs: prng.chance(0.5) ? callMs : 2 * waitMs,
    },
    commitMs: Math.min(20, callMs / 8) * (prng.chance(0.2) ? 5 : 1),
    faultyMs: 9 * waitMs,
    strikes: {
      daemonFrozen: strike(5),
      daemonKilled: strike(3),
      guardKilled: strike(2),
      guardFrozen: strike(2),
      machineFrozen: strike(3),
      machineLost: strike(2),
      cutOneWay: strike(4),
      cutBothWays: strike(3),
      storeAway: strike(3),
      clockChanged: strike(4),
      move: strike(3),
      maintenance: strike(1),
    },
  };
}

/** What happened in a run, so that a test can tell whether the runs prove anything. */
export function noLeaseCounts() {
  return {
    taken: 0,
    lostByDeadline: 0,
    lostByOvertaking: 0,
    lostByGuard: 0,
    guardKills: 0,
    givenBackByOwner: 0,
    givenBackByGuard: 0,
    stayedWithoutStore: 0,
    oldTokensRefused: 0,
    effectsAccepted: 0,
    actsRefused: 0,
    messagesLost: 0,
    messagesLate: 0,
    messagesTwice: 0,
    messagesCut: 0,
    /** Both served for a moment because a whole machine slept: what only tokens protect from. */
    servedBySleepers: 0,
  };
}
export type LeaseCounts = ReturnType<typeof noLeaseCounts>;
