import type { PlanOperation, PlanSums } from "@lockstep/core";
import { printable } from "@lockstep/platform";
import { counted, formatBytes, formatCount, formatMode } from "./format.ts";

const MARKS = { add: "+", replace: "~", remove: "-", adopt: "=", keep: "!" } as const;

/** One line for one file: what happens to it, and why. */
export function describeOperation(operation: PlanOperation): string {
  return `${MARKS[operation.kind]} ${printable(operation.path)}  (${reasonOf(operation)})`;
}

function reasonOf(operation: PlanOperation): string {
  switch (operation.kind) {
    case "add":
      return `new, ${formatBytes(operation.entry.size)}`;
    case "remove":
      return `no longer part of it${OWNERS[operation.local]}${operation.backup ? ", a copy is kept" : ""}`;
    case "adopt":
      return "there already, becomes part of the installation";
    case "keep":
      return KEPT[operation.reason];
    case "replace":
      return `${replaceReason(operation)}${OWNERS[operation.local]}${operation.backup ? ", a copy is kept" : ""}`;
  }
}

const KEPT = {
  edited: "edited here, stays as it is",
  foreign: "was here before, stays as it is",
  dropped: "edited here and no longer part of it, stays as it is",
} as const;
const OWNERS = { ours: "", edited: "; it was edited here", foreign: "; it was here before" } as const;

function replaceReason({ reason, entry, found }: PlanOperation & { readonly kind: "replace" }): string {
  switch (reason) {
    case "size":
      return found === null ? "other size" : `size ${found.size} to ${entry.size}`;
    case "hash":
      return `other content, ${formatBytes(entry.size)}`;
    case "mode":
      return found === null ? "other mode" : `mode ${formatMode(found.mode)} to ${formatMode(entry.mode)}`;
    case "missing":
      return "missing here";
    case "lost":
      return "the disk does not give its content any more";
    case "link":
      return "a symbolic link stands in its place";
    case "folder":
      return "a folder stands in its place";
  }
}

/** The sums of a plan or a run in one line. */
export function describeSums(sums: PlanSums): string {
  const parts = [
    `${formatCount(sums.add)} to add`,
    `${formatCount(sums.replace)} to replace`,
    `${formatCount(sums.remove)} to remove`,
    ...(sums.adopt > 0 ? [`${formatCount(sums.adopt)} to adopt`] : []),
    ...(sums.keep > 0 ? [`${formatCount(sums.keep)} kept`] : []),
    `${formatCount(sums.equal)} equal`,
  ];
  return `${parts.join(", ")}; ${counted(sums.fetchFiles, "content")} to fetch, ${formatBytes(sums.fetchBytes)}`;
}

/** Whether a plan would change any file. */
export function changesFiles(sums: PlanSums): boolean {
  return sums.add + sums.replace + sums.remove + sums.adopt > 0;
}
