import { checkSteps, findFiles } from "./check-steps.ts";
import { runSteps } from "./step.ts";
import { formatTotals, printSkipped } from "./summary.ts";
import { runTests } from "./test-run.ts";

// Everything: the checks, then the tests with real databases, servers and processes, a process per file. Three files at
// once suit a machine with two cores, because most of them wait most of the time; with arguments, only the test files that these name.
const TEST_TIMEOUT_MS = 15 * 60_000;
const CONCURRENCY = 3;

process.chdir(`${import.meta.dirname}/..`);
const named = process.argv.slice(2);
const summary = await runSteps(named.length > 0 ? [] : checkSteps(), 2);
const files =
  named.length > 0
    ? await findFiles(...named)
    : (await findFiles("tests/**/*.test.ts")).filter((file) => !/^tests[/\\]tidy[/\\]/.test(file));
const outcome = await runTests({
  files,
  isolation: "apart",
  concurrency: CONCURRENCY,
  timeoutMs: TEST_TIMEOUT_MS,
  output: "live",
});
const skipped = [...summary.skipped, ...outcome.skipped];
const failed = summary.failed + outcome.failed;
if (summary.failedSteps.length > 0) console.log(`failed checks: ${summary.failedSteps.join(", ")}`);
printSkipped(skipped);
console.log(formatTotals({ passed: summary.passed + outcome.passed, failed, skipped: skipped.length }));
process.exitCode = failed === 0 && summary.failedSteps.length === 0 && outcome.ok ? 0 : 1;
