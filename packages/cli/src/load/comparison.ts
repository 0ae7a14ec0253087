import { printable } from "@lockstep/platform";
import type { LoadComparison, LoadRequest, LoadStatus } from "@lockstep/protocol/wire";
import { counted, formatBytes, formatCount } from "../screen/format.ts";
import type { Output } from "../screen/output.ts";

/** How the files of a load stand to the repository, in numbers (behaviour 44). */
export interface LoadSummary {
  readonly counts: Readonly<Record<LoadStatus, number>>;
  readonly bytes: Readonly<Record<LoadStatus, number>>;
  /** Whether the load would change anything that can be seen here. */
  readonly changes: boolean;
}

const STATUSES: readonly LoadStatus[] = ["unknown", "never-loaded", "changed", "equal"];
const WORDS: Record<LoadStatus, string> = {
  unknown: "unknown",
  "never-loaded": "never loaded",
  changed: "changed",
  equal: "equal",
};
/** A list longer than this is counted, unless somebody wants it. */
const LIST_MAX = 40;

/** Adds up a comparison. */
export function summarize(request: LoadRequest, comparison: LoadComparison): LoadSummary {
  const counts = { unknown: 0, "never-loaded": 0, changed: 0, equal: 0 };
  const bytes = { ...counts };
  comparison.statuses.forEach((status, index) => {
    counts[status]++;
    bytes[status] += request.files[index]?.size ?? 0;
  });
  const moves = counts.unknown + counts["never-loaded"] + counts.changed + comparison.removed.length;
  const newVersion = comparison.currentVersion !== request.module.version;
  return { counts, bytes, changes: moves + comparison.attributeChanges > 0 || newVersion };
}

function row(word: string, count: number): string {
  return `  ${word.padEnd(12)} ${formatCount(count).padStart(8)} ${count === 1 ? "file " : "files"}`;
}

/** The comparison for people: the numbers, the files where they are few or wanted, and what is worth knowing. */
export function* describeComparison(
  request: LoadRequest,
  comparison: LoadComparison,
  summary: LoadSummary,
  verbose: boolean,
  output: Output,
): Generator<string, void> {
  const { module, kind } = request;
  const present =
    comparison.currentVersion === null ? "not in the repository yet" : `now ${comparison.currentVersion}`;
  yield output.paintRemark("bold", `${module.id} ${module.version} (${kind}), ${present}`);
  for (const status of STATUSES)
    if (summary.counts[status] > 0)
      yield `${row(WORDS[status], summary.counts[status])}  ${formatBytes(summary.bytes[status]).padStart(8)}`;
  if (comparison.removed.length > 0) yield row("removed", comparison.removed.length).trimEnd();
  yield* listFiles(request, comparison, summary, verbose, output);
  if (comparison.attributeChanges > 0)
    yield `${counted(comparison.attributeChanges, "file")} with equal content would change in deploy targets, mode, version text or backup mark.`;
  if (comparison.undistributed > 0)
    yield `${counted(comparison.undistributed, "file")} would belong to no machine role or package: stored, but not distributed.`;
  for (const notice of comparison.notices) yield printable(notice);
}

function* listFiles(
  request: LoadRequest,
  comparison: LoadComparison,
  summary: LoadSummary,
  verbose: boolean,
  output: Output,
): Generator<string, void> {
  const { counts } = summary;
  const moving = counts.unknown + counts["never-loaded"] + counts.changed + comparison.removed.length;
  if (!verbose && moving > LIST_MAX) {
    yield output.paintRemark("dim", `  (the list of ${counted(moving, "file")}: --verbose)`);
    return;
  }
  for (const [index, file] of request.files.entries()) {
    const status = comparison.statuses[index] ?? "unknown";
    if (status === "equal" && !verbose) continue;
    yield `    ${WORDS[status].padEnd(12)} ${formatBytes(file.size).padStart(8)}  ${printable(file.path)}`;
  }
  for (const path of comparison.removed)
    yield `    ${"removed".padEnd(12)} ${"".padStart(8)}  ${printable(path)}`;
}
