import { type CheckpointEntry, entryKey } from "./checkpoint.ts";

/**
 * What must be done to a node's files before a service starts on it: a plan as data, in the order in which it is carried
 * out. Each step may be repeated, and a plan that was interrupted is made anew from what is there then.
 */
export interface FoundEntry extends Omit<CheckpointEntry, "kind"> {
  /** `other`: a link, a device, a name that is not followed. It is left alone unless it is in the way. */
  readonly kind: "file" | "directory" | "other";
}

export interface LayDownPlan {
  /** Files changed here and never stored: what stood in the way, and what stands there afterwards (null: nothing). */
  readonly edits: readonly { readonly found: FoundEntry; readonly wanted: CheckpointEntry | null }[];
  /** Deepest first. A directory that still holds something that is not followed stays. */
  readonly remove: readonly FoundEntry[];
  /** Outermost first. */
  readonly makeDirectories: readonly CheckpointEntry[];
  readonly write: readonly CheckpointEntry[];
  /** Files whose content is right and whose mode is not. */
  readonly changeMode: readonly CheckpointEntry[];
  /** Directories whose mode is set last, deepest first: it may forbid what the other steps need. */
  readonly closeDirectories: readonly CheckpointEntry[];
}

/**
 * @param wanted what the store says, of the roots that it speaks of
 * @param found what is there below those roots
 * @param known by entry key: contents that this node stored or laid down itself; anything else was changed here
 */
export function planLayDown(
  wanted: readonly CheckpointEntry[],
  found: readonly FoundEntry[],
  known: (key: string, sha256: string) => boolean,
): LayDownPlan {
  const target = new Map(wanted.map((entry) => [entryKey(entry), entry]));
  const present = new Map(found.map((entry) => [entryKey(entry), entry]));
  const remove: FoundEntry[] = [];
  const edits: { found: FoundEntry; wanted: CheckpointEntry | null }[] = [];
  for (const entry of found) {
    const goal = target.get(entryKey(entry)) ?? null;
    const isInWay = (goal !== null && goal.kind !== entry.kind) || standsBelowFile(entry, target);
    // A file is replaced by the rename of the new one; whatever else is in the way must go first.
    if (entry.kind === "other" ? isInWay : goal === null || isInWay) remove.push(entry);
    const isChanged =
      entry.kind === "file" && goal?.sha256 !== entry.sha256 && !known(entryKey(entry), entry.sha256);
    if (isChanged || (entry.kind === "other" && isInWay)) edits.push({ found: entry, wanted: goal });
  }
  const isThere = (entry: CheckpointEntry) => present.get(entryKey(entry))?.kind === entry.kind;
  const files = wanted.filter(({ kind }) => kind === "file");
  const directories = wanted.filter(({ kind }) => kind === "directory").sort(byDepth);
  const isWritten = (entry: CheckpointEntry) =>
    !isThere(entry) || present.get(entryKey(entry))?.sha256 !== entry.sha256;
  const modeDiffers = (entry: CheckpointEntry) => present.get(entryKey(entry))?.mode !== entry.mode;
  return {
    edits,
    remove: remove.sort((a, b) => byDepth(b, a)),
    makeDirectories: directories.filter((entry) => !isThere(entry)),
    write: files.filter(isWritten),
    changeMode: files.filter((entry) => !isWritten(entry) && modeDiffers(entry)),
    closeDirectories: directories.toReversed(),
  };
}

/** Whether a directory that this stands in must make room for a file. */
function standsBelowFile({ root, path }: FoundEntry, target: ReadonlyMap<string, CheckpointEntry>): boolean {
  for (let above = path; above !== ""; ) {
    above = above.slice(0, Math.max(0, above.lastIndexOf("/")));
    if (target.get(entryKey({ root, path: above }))?.kind === "file") return true;
  }
  return false;
}

/** Whether a node's files are already as they should be. */
export function isNothingToDo(plan: LayDownPlan, found: readonly FoundEntry[]): boolean {
  const modes = new Map(found.map((entry) => [entryKey(entry), entry.mode]));
  return (
    plan.remove.length + plan.makeDirectories.length + plan.write.length + plan.changeMode.length === 0 &&
    plan.closeDirectories.every((entry) => modes.get(entryKey(entry)) === entry.mode)
  );
}

const depthOf = ({ path }: { readonly path: string }) => (path === "" ? 0 : path.split("/").length);
const byDepth = (a: FoundEntry | CheckpointEntry, b: FoundEntry | CheckpointEntry) =>
  depthOf(a) - depthOf(b) || (a.path < b.path ? -1 : a.path > b.path ? 1 : 0);
