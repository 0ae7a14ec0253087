import type { FileEntry } from "./file.ts";
import { byPath } from "./file.ts";
import { type RevisionChange, type RevisionSide, sameTargets } from "./revision.ts";

/**
 * What a person has to see before signing a software revision: every file that would differ in any installation.
 *
 * It is computed from the manifests, the one thing that a signature names, and not from what a hub says about them. The
 * hub refuses a set in which one path means two contents; whoever signs must not rely on it, since a hub that somebody
 * took over refuses nothing. So the same path may stand here several times, once for each content, and that stands out.
 */
export interface TargetEntries {
  /** The role or package, formatted: `role:Server`. */
  readonly target: string;
  readonly entries: readonly FileEntry[];
}

/**
 * Why somebody should look at a file before all others:
 * `executable`: a program that is new, has other content, or was none before; `mode`: other permissions;
 * `plug-in`: it runs at every update; `contradiction`: this path means several contents.
 */
export type ReviewMark = "executable" | "mode" | "plug-in" | "contradiction";

export interface ReviewedFile extends RevisionChange {
  readonly marks: readonly ReviewMark[];
}

const EXECUTABLE = 0o111;
const PLUG_IN = /(?:^|\/)[^/]*\.update\.mjs$/i;

/** The files in which two sets of manifests differ, ordered by path; those of equal paths in the order of the new set. */
export function reviewRevision(
  before: readonly TargetEntries[],
  after: readonly TargetEntries[],
): ReviewedFile[] {
  const former = sidesByPath(before);
  const files: ReviewedFile[] = [];
  for (const [path, sides] of sidesByPath(after)) {
    const old = former.get(path) ?? [];
    former.delete(path);
    for (const { from, to } of pair(old, sides)) {
      if (from !== null && to !== null && sameSide(from, to)) continue;
      const kind = from === null ? "added" : to === null ? "removed" : "changed";
      files.push({ path, kind, from, to, marks: marksOf(from, to, sides.length) });
    }
  }
  for (const [path, sides] of former)
    for (const from of sides) files.push({ path, kind: "removed", from, to: null, marks: [] });
  return files.sort(byPath);
}

/** How many files of a module were added, changed or removed, and their bytes: those of the new content where there is one. */
export interface ReviewCount {
  /** Null: nobody says to which module they belong. */
  readonly module: string | null;
  readonly kind: RevisionChange["kind"];
  readonly files: number;
  readonly bytes: number;
}

const KINDS = ["added", "changed", "removed"] as const;

/** The files by module and kind, ordered by module, those of none last; kinds without files are left out. */
export function summarizeReview<T extends ReviewedFile>(
  files: readonly T[],
  moduleOf: (file: T) => string | null,
): ReviewCount[] {
  const counts = new Map<string | null, Map<RevisionChange["kind"], { files: number; bytes: number }>>();
  for (const file of files) {
    const module = moduleOf(file);
    const kinds = counts.get(module) ?? new Map();
    counts.set(module, kinds);
    const count = kinds.get(file.kind) ?? { files: 0, bytes: 0 };
    kinds.set(file.kind, {
      files: count.files + 1,
      bytes: count.bytes + ((file.to ?? file.from)?.size ?? 0),
    });
  }
  const modules = [...counts.keys()].sort((a, b) =>
    a === b ? 0 : a === null ? 1 : b === null || a < b ? -1 : 1,
  );
  return modules.flatMap((module) =>
    KINDS.flatMap((kind) => {
      const count = counts.get(module)?.get(kind);
      return count === undefined ? [] : [{ module, kind, ...count }];
    }),
  );
}

/** What each path is, one side for each content or permissions, with everybody that gets it. */
function sidesByPath(manifests: readonly TargetEntries[]): Map<string, RevisionSide[]> {
  const paths = new Map<string, (RevisionSide & { targets: string[] })[]>();
  for (const { target, entries } of manifests)
    for (const entry of entries) {
      const sides = paths.get(entry.path) ?? [];
      if (sides.length === 0) paths.set(entry.path, sides);
      const same = sides.find((side) => sameContent(side, entry));
      if (same === undefined) sides.push({ ...entry, targets: [target] });
      else same.targets.push(target);
    }
  return paths;
}

interface Pair {
  readonly from: RevisionSide | null;
  readonly to: RevisionSide | null;
}

/** Lays sides of one path together: equal ones first, then those that somebody has in common, then what is left. */
function pair(before: readonly RevisionSide[], after: readonly RevisionSide[]): Pair[] {
  const left = [...before];
  const found = new Map<RevisionSide, RevisionSide>();
  const take = (fits: (from: RevisionSide, to: RevisionSide) => boolean) => {
    for (const to of after) {
      if (found.has(to)) continue;
      const index = left.findIndex((from) => fits(from, to));
      if (index < 0) continue;
      const [from] = left.splice(index, 1);
      if (from !== undefined) found.set(to, from);
    }
  };
  take(sameContent);
  take((from, to) => from.targets.some((target) => to.targets.includes(target)));
  take(() => true);
  return [
    ...after.map((to) => ({ from: found.get(to) ?? null, to })),
    ...left.map((from) => ({ from, to: null })),
  ];
}

function sameContent(a: FileEntry, b: FileEntry): boolean {
  return a.sha256 === b.sha256 && a.size === b.size && a.mode === b.mode && a.backup === b.backup;
}

function sameSide(a: RevisionSide, b: RevisionSide): boolean {
  return sameContent(a, b) && sameTargets(a.targets, b.targets);
}

function marksOf(from: RevisionSide | null, to: RevisionSide | null, sides: number): ReviewMark[] {
  if (to === null) return [];
  const marks: ReviewMark[] = [];
  const runs = (to.mode & EXECUTABLE) !== 0;
  const ran = from !== null && (from.mode & EXECUTABLE) !== 0;
  if (runs && (!ran || from.sha256 !== to.sha256)) marks.push("executable");
  if (from !== null && from.mode !== to.mode) marks.push("mode");
  if (PLUG_IN.test(to.path) && from?.sha256 !== to.sha256) marks.push("plug-in");
  if (sides > 1) marks.push("contradiction");
  return marks;
}
