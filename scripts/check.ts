import { checkSteps } from "./check-steps.ts";
import { runSteps } from "./step.ts";
import { printSkipped } from "./summary.ts";

process.chdir(`${import.meta.dirname}/..`);
const summary = await runSteps(checkSteps(), 2);
printSkipped(summary.skipped);
if (summary.failedSteps.length > 0) {
  console.log(`failed: ${summary.failedSteps.join(", ")}`);
  process.exitCode = 1;
} else console.log("all checks passed");
