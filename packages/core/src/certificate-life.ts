/**
 * How long a certificate is still good for, and when somebody has to be told: with a fifth of its life left, seven days
 * before its end at most. Certificates live from days to years, and whoever renews them by a program does so well before.
 */
export interface CertificateLife {
  /** Milliseconds since 1970. */
  readonly notBefore: number;
  readonly expiresAt: number;
}

const SOON_MS_MAX = 7 * 86_400_000;
const SOON_PART = 0.2;

/** What to say of a certificate at `now`, in milliseconds since 1970. */
export function judgeCertificate(
  { notBefore, expiresAt }: CertificateLife,
  now: number,
): "good" | "soon" | "expired" | "not-yet" {
  if (now >= expiresAt) return "expired";
  if (now < notBefore) return "not-yet";
  return expiresAt - now < Math.min(SOON_MS_MAX, (expiresAt - notBefore) * SOON_PART) ? "soon" : "good";
}
