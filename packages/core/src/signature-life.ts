const DAY_MS = 86_400_000;

/** How long a signature of each role is good for, in milliseconds. The shorter, the sooner a frozen hub is noticed; a hub renews at half of it. */
export const SIGNATURE_LIFE_MS = {
  root: 730 * DAY_MS,
  targets: 365 * DAY_MS,
  snapshot: 14 * DAY_MS,
  timestamp: 3 * DAY_MS,
} as const;

/** Whether a hub has failed for long to renew a signature with so many milliseconds left: a fifth of its life is left. */
export function isRenewalLate(role: keyof typeof SIGNATURE_LIFE_MS, leftMs: number): boolean {
  return leftMs < SIGNATURE_LIFE_MS[role] / 5;
}
