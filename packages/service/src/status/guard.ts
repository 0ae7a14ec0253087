import type { Clock } from "@lockstep/platform";

const FAILURES_MAX = 10;
const WINDOW_MS = 60_000;
const ADDRESSES_MAX = 10_000;

/** Slows down whoever tries passwords: after ten wrong ones within a minute an address has to wait for the next. */
export class Throttle {
  readonly #clock: Pick<Clock, "monotonic">;
  readonly #failures = new Map<string, { count: number; untilMs: number }>();

  constructor(clock: Pick<Clock, "monotonic">) {
    this.#clock = clock;
  }

  isBlocked(address: string): boolean {
    const entry = this.#failures.get(address);
    return entry !== undefined && entry.untilMs > this.#clock.monotonic() && entry.count >= FAILURES_MAX;
  }

  fail(address: string): void {
    const now = this.#clock.monotonic();
    const entry = this.#failures.get(address);
    if (entry !== undefined && entry.untilMs > now) {
      entry.count++;
      return;
    }
    // Strangers must not fill the memory either.
    if (this.#failures.size >= ADDRESSES_MAX) this.#failures.clear();
    this.#failures.set(address, { count: 1, untilMs: now + WINDOW_MS });
  }
}

/** Headers of every answer: nothing is loaded from elsewhere, framed, sniffed or kept. */
export function securityHeaders(nonce: string): Record<string, string> {
  return {
    "Content-Security-Policy": [
      "default-src 'none'",
      `script-src 'nonce-${nonce}'`,
      `style-src 'nonce-${nonce}'`,
      "img-src data:",
      "connect-src 'self'",
      "form-action 'self'",
      "base-uri 'none'",
      "frame-ancestors 'none'",
    ].join("; "),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
  };
}
