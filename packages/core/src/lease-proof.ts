/**
 * Whether the times of a lease fit together, shown term by term. Two owners at once are excluded by one inequality, and
 * needless failovers by another:
 *
 *     safety    trust * (1 + clock error) + guard delay + stop  <=  wait * (1 - clock error)
 *     liveness  trust  >=  renew + 2 * call
 *
 * The owner's clock may run slow and the waiting node's fast. After the deadline it takes the guard some time to be
 * scheduled, and some to make sure that service and address are gone. Two calls must fit, else one slow call is an
 * outage. Only rates of clocks enter, never what they show.
 */
export interface LeaseTimes {
  /** V. */
  readonly trustMs: number;
  /** T. */
  readonly waitMs: number;
  /** R. */
  readonly renewMs: number;
  /** C. */
  readonly callMs: number;
  /** G: how late the guard may be scheduled. */
  readonly guardDelayMs: number;
  /** S: from the kill to certainty that service, address and announcer are gone. */
  readonly stopMs: number;
  /** rho: how far the rate of a clock may be off, as a fraction. */
  readonly clockError: number;
}

/** What a term is worth, and how far it may move before the inequality breaks, all others as they are. */
export interface TermSlack {
  readonly term: keyof LeaseTimes;
  readonly value: number;
  /** The value at which the inequality holds just so. */
  readonly limit: number;
  /** Whether the value may not be above the limit, or not below it. */
  readonly bound: "at-most" | "at-least";
  /** Distance to the limit in the term's own unit; negative: broken. */
  readonly slack: number;
}

export interface Inequality {
  readonly holds: boolean;
  readonly leftMs: number;
  readonly rightMs: number;
  readonly slackMs: number;
  readonly terms: readonly TermSlack[];
}

export interface LeaseProof {
  readonly safety: Inequality;
  readonly liveness: Inequality;
  /** Values that no inequality can make sense of: not finite, negative, or a clock error of 1 and more. */
  readonly faults: readonly (keyof LeaseTimes)[];
}

/** The default profile of a cluster. */
export const DEFAULT_LEASE_TIMES: LeaseTimes = {
  trustMs: 1800,
  waitMs: 3000,
  renewMs: 400,
  callMs: 600,
  guardDelayMs: 200,
  stopMs: 500,
  clockError: 0.001,
};

/** For stores that commit well below 200 ms, and services that die at once. */
export const FAST_LEASE_TIMES: LeaseTimes = {
  trustMs: 600,
  waitMs: 1000,
  renewMs: 200,
  callMs: 200,
  guardDelayMs: 150,
  stopMs: 240,
  clockError: 0.001,
};

/** Both inequalities with the slack of each term. Nobody may serve under times that break one, or that have faults. */
export function proveLease(times: LeaseTimes): LeaseProof {
  const { trustMs, waitMs, renewMs, callMs, guardDelayMs, stopMs, clockError } = times;
  const stoppedAt = trustMs * (1 + clockError) + guardDelayMs + stopMs;
  const takenAt = waitMs * (1 - clockError);
  const slow = 1 + clockError;
  const fast = 1 - clockError;
  const twoTries = renewMs + 2 * callMs;
  return {
    faults: findFaults(times),
    safety: inequality(stoppedAt, takenAt, [
      atMost("trustMs", trustMs, (takenAt - guardDelayMs - stopMs) / slow),
      atMost("clockError", clockError, (waitMs - trustMs - guardDelayMs - stopMs) / (trustMs + waitMs)),
      atMost("guardDelayMs", guardDelayMs, takenAt - trustMs * slow - stopMs),
      atMost("stopMs", stopMs, takenAt - trustMs * slow - guardDelayMs),
      atLeast("waitMs", waitMs, stoppedAt / fast),
    ]),
    liveness: inequality(twoTries, trustMs, [
      atLeast("trustMs", trustMs, twoTries),
      atMost("renewMs", renewMs, trustMs - 2 * callMs),
      atMost("callMs", callMs, (trustMs - renewMs) / 2),
    ]),
  };
}

/** Whether the proof lets anybody serve. */
export const isProven = ({ safety, liveness, faults }: LeaseProof) =>
  faults.length === 0 && safety.holds && liveness.holds;

function findFaults(times: LeaseTimes): (keyof LeaseTimes)[] {
  const positive = ["trustMs", "waitMs", "renewMs", "callMs"] as const;
  const notNegative = ["guardDelayMs", "stopMs", "clockError"] as const;
  return [
    ...positive.filter((term) => !(Number.isFinite(times[term]) && times[term] > 0)),
    ...notNegative.filter((term) => !(Number.isFinite(times[term]) && times[term] >= 0)),
    ...(times.clockError >= 1 ? (["clockError"] as const) : []),
  ];
}

function inequality(leftMs: number, rightMs: number, terms: readonly TermSlack[]): Inequality {
  return { holds: leftMs <= rightMs, leftMs, rightMs, slackMs: rightMs - leftMs, terms };
}

const atMost = (term: keyof LeaseTimes, value: number, limit: number): TermSlack => ({
  term,
  value,
  limit,
  bound: "at-most",
  slack: limit - value,
});

const atLeast = (term: keyof LeaseTimes, value: number, limit: number): TermSlack => ({
  term,
  value,
  limit,
  bound: "at-least",
  slack: value - limit,
});
