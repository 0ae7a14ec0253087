import type { SkippedTest } from "./step.ts";

/** Lists what was skipped and why: a skipped test that nobody hears of is a test that does not exist. */
export function printSkipped(skipped: readonly SkippedTest[]): void {
  if (skipped.length === 0) return;
  console.log("skipped:");
  for (const { name, file, reason } of skipped) console.log(`  ${name} (${file}): ${reason}`);
}

/** The line that scripts read: `N passed, N failed`, with `, N skipped` only where there are any. */
export function formatTotals(totals: { passed: number; failed: number; skipped: number }): string {
  return `${totals.passed} passed, ${totals.failed} failed${totals.skipped > 0 ? `, ${totals.skipped} skipped` : ""}`;
}
