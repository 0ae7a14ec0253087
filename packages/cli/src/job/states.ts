import type { Style } from "@lockstep/platform";
import type { ProcessSummary, StepDetail } from "@lockstep/protocol/wire";
import { formatCount } from "../screen/format.ts";

/** How a step stands, in one word: its outcome once it has ended. */
export function stepState(step: Pick<StepDetail, "state" | "outcome">): string {
  return step.outcome ?? step.state;
}

const STEP_STYLES: Readonly<Record<string, Style>> = {
  success: "green",
  ignored: "yellow",
  error: "red",
  skipped: "dim",
  cancelled: "dim",
  processing: "cyan",
  loaded: "cyan",
  frozen: "red",
  missing: "red",
  "over-limit": "yellow",
  deferred: "yellow",
};

export function stepStyle(state: string): Style | null {
  return STEP_STYLES[state] ?? null;
}

const PROCESS_STYLES: Readonly<Record<ProcessSummary["state"], Style>> = {
  running: "cyan",
  finished: "green",
  failed: "red",
  stuck: "yellow",
  cancelled: "dim",
};

export function processStyle(state: ProcessSummary["state"]): Style {
  return PROCESS_STYLES[state];
}

const ORDER = ["processing", "loaded", "ready", "deferred", "waiting", "frozen", "missing", "over-limit"];

/** `12 of 20 done, 2 processing, 6 waiting`. */
export function formatSteps(steps: ProcessSummary["steps"]): string {
  const total = Object.values(steps).reduce((sum, count) => sum + count, 0);
  const parts = ORDER.filter((state) => (steps[state] ?? 0) > 0).map(
    (state) => `${formatCount(steps[state] ?? 0)} ${state}`,
  );
  return [`${formatCount(steps.finished ?? 0)} of ${formatCount(total)} done`, ...parts].join(", ");
}
