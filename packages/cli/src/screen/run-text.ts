import { printable } from "@lockstep/platform";
import type { RunResult, UpdateResult } from "@lockstep/updater";
import { counted, formatBytes, formatCount } from "./format.ts";
import type { Output } from "./output.ts";

/** How many kept files are named on a screen; `--json` has up to a thousand. */
const KEPT_SHOWN_MAX = 20;

/** Tells how a run ended: one line of data, the rest as remarks; with `--json` one document. */
export function tellRun(output: Output, directory: string, result: UpdateResult): void {
  output.document({ directory, ...result });
  switch (result.kind) {
    case "already-in-step":
      output.line(`in step: software revision ${result.revision}`);
      return;
    case "disabled":
      output.line(`left at software revision ${result.from ?? "none"}: automatic updates are switched off`);
      return;
    case "in-step":
    case "updated":
      tellSums(output, result);
      output.line(
        result.from === result.to || result.from === null
          ? `software revision ${result.to}`
          : `software revision ${result.to} (before: ${result.from})`,
      );
  }
}

/** What a run did, as remarks. */
export function tellSums(output: Output, result: RunResult): void {
  const { sums } = result;
  output.note(
    `${formatCount(sums.add)} added, ${formatCount(sums.replace)} replaced, ${formatCount(sums.remove)} removed, ` +
      `${formatCount(sums.equal + sums.adopt)} as they were; ` +
      `${formatBytes(result.receivedBytes)} received, switched in ${Math.round(result.switchMs)} ms`,
  );
  for (const { path, reason } of result.kept.slice(0, KEPT_SHOWN_MAX))
    output.note(`  kept (${reason}): ${printable(path)}`);
  if (sums.keep > KEPT_SHOWN_MAX) output.note(`  ... ${counted(sums.keep, "file")} kept in all`);
  for (const notice of result.notices) output.note(printable(notice));
}
