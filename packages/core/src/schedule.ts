/**
 * When an agent asks the hub again.
 *
 * The hub sets the interval; each installation spreads its own polls around it, so that machines that were switched on
 * together do not stay together. After an error the pause doubles, from a few seconds up to a quarter of an hour, and
 * is drawn anew each time from its upper half. A hub that says Retry-After is obeyed. After the first good answer all
 * that is forgotten.
 */
export interface PollState {
  /** Interval that the hub asked for, in milliseconds. */
  readonly intervalMs: number;
  /** Errors since the last good answer. */
  readonly failures: number;
}

export const INITIAL_POLL: PollState = { intervalMs: 300_000, failures: 0 };

const INTERVAL_MS_MIN = 1000;
const INTERVAL_MS_MAX = 24 * 60 * 60 * 1000;
const SPREAD = 0.1;
const BACKOFF_FIRST_MS = 5000;
const BACKOFF_MAX_MS = 15 * 60 * 1000;
const RETRY_AFTER_MS_MAX = 24 * 60 * 60 * 1000;

export type PollOutcome =
  /** The hub answered. `pollSeconds` where the answer carried it. */
  | { readonly kind: "answered"; readonly pollSeconds: number | null }
  | { readonly kind: "failed"; readonly retryAfterSeconds: number | null };

/**
 * The state after an answer or error, and how long to wait from now, in milliseconds.
 * `random` is drawn evenly from 0 (included) to 1 (excluded).
 */
export function nextPoll(
  state: PollState,
  outcome: PollOutcome,
  random: number,
): { readonly state: PollState; readonly waitMs: number } {
  if (outcome.kind === "answered") {
    const asked = outcome.pollSeconds === null ? state.intervalMs : outcome.pollSeconds * 1000;
    const intervalMs = Math.min(Math.max(asked, INTERVAL_MS_MIN), INTERVAL_MS_MAX);
    const waitMs = Math.round(intervalMs * (1 + SPREAD * (2 * random - 1)));
    return { state: { intervalMs, failures: 0 }, waitMs };
  }
  const failures = state.failures + 1;
  const pause = Math.min(BACKOFF_FIRST_MS * 2 ** Math.min(failures - 1, 20), BACKOFF_MAX_MS);
  const drawn = pause * (0.5 + 0.5 * random);
  const asked = Math.min((outcome.retryAfterSeconds ?? 0) * 1000, RETRY_AFTER_MS_MAX);
  // All who were turned away together would come back together.
  const waitMs = Math.round(asked > drawn ? asked * (1 + SPREAD * random) : drawn);
  return { state: { ...state, failures }, waitMs };
}

/** The first question after the start: at once for one machine, spread a little for a hall full of them. */
export function firstPollMs(state: PollState, random: number): number {
  return Math.round(Math.min(state.intervalMs * 0.02, 5000) * random);
}

/** How often a revision was tried here in vain. */
export interface Attempts {
  readonly revision: number;
  readonly failures: number;
}

/** After this many failures a revision is left alone until there is another one. */
export const ATTEMPTS_MAX = 3;

/** Counts one more failure; another revision starts anew. */
export function countFailure(attempts: Attempts | null, revision: number): Attempts {
  return { revision, failures: (attempts?.revision === revision ? attempts.failures : 0) + 1 };
}

/** Whether automatic runs leave this revision alone. A person may always try again. */
export function isQuarantined(attempts: Attempts | null, revision: number): boolean {
  return attempts !== null && attempts.revision === revision && attempts.failures >= ATTEMPTS_MAX;
}
