import type { FileMark } from "./file-mark.ts";
import { findTwins, foldPath } from "./path.ts";

/**
 * An update that is all or nothing: what is decided before it begins.
 *
 * The problem: thousands of files must change, and a crash can come between any two of them. Replacing them one by one
 * leaves a mix of two versions that nobody tested. Two whole directories and one switched name would need the space
 * twice, copy foreign files along and change a path that services have open.
 *
 * What we do is a redo log. Everything new is laid out in a private directory and made durable, everything that goes is
 * kept there under a second name; a record says what is to be done; and one rename, of the record's head into its
 * place, is the moment at which the update has happened. Whoever comes before sees the old files and no record;
 * whoever comes after finds the record and carries it out, as often as it takes. This module turns the wish (operations)
 * and what stands on the disk (survey) into the record's body, or says why it cannot be; apply-steps.ts turns the body
 * into steps in their order of durability; apply-record.ts writes and reads it. All of it is pure, so that the
 * simulation proves the very code that ships. docs/internals/apply.md has the invariants.
 */
export type ApplyOperation =
  | { readonly n: number; readonly kind: "put"; readonly path: string }
  | { readonly n: number; readonly kind: "remove"; readonly path: string };

/** What stands at a path, by the look of it alone: links are not followed. */
export interface Standing {
  readonly kind: "file" | "directory" | "link" | "other";
  /** Permission bits. */
  readonly mode: number;
  /** Equal for two paths when they are one and the same file. */
  readonly identity: string;
}

/**
 * What stands in the installation where an update wants to change something: at the path of each operation, at each
 * parent of it, and at everything inside a directory that stands where a file is to be put. A path that is not in it
 * does not exist; what lies below a link or a file is not looked at.
 */
export interface Survey {
  readonly at: ReadonlyMap<string, Standing>;
  /** For a directory in the way of a file: every path inside, at any depth. */
  readonly inside: ReadonlyMap<string, readonly string[]>;
}

/**
 * Whether a former file is kept as old/<n>: under a second name, or as a copy where the file system has no second
 * names. `none` means that nothing stood there. A removal always has one.
 */
export type Former = "none" | "linked" | "copied";

/** One file that changes, as it is planned. */
export interface PlannedEntry {
  readonly n: number;
  readonly kind: "put" | "remove";
  readonly path: string;
  /** What becomes of the file that stands there before. */
  readonly former: Former;
  /** Where the former file stands, if not at `path`: a name that differs in case alone, on a disk that ignores case. */
  readonly formerPath: string | null;
}

/** One file of the record. */
export interface CommitEntry extends PlannedEntry {
  /** Of the file that stands there before; where none does, of the one that is put there. */
  readonly mark: FileMark;
  /** Of old/<n> where that is a copy. */
  readonly copy: FileMark | null;
}

export interface CommitDirectory {
  readonly path: string;
  readonly mode: number;
}

/** What changes, as the record's body holds it. All lists of directories are in the order in which they are used. */
export interface CommitChange<Entry extends PlannedEntry = CommitEntry> {
  readonly entries: readonly Entry[];
  /** Directories that do not exist yet, parents first. */
  readonly make: readonly CommitDirectory[];
  /** Those of them that can be made only when the file in their place is gone, parents first. */
  readonly makeLate: readonly CommitDirectory[];
  /** Directories in the way of a file, empty once the removals are done; inner ones first. */
  readonly clear: readonly CommitDirectory[];
}

/** Why the wish cannot be fulfilled without touching what is not ours. */
export interface ChangeConflict {
  readonly path: string;
  readonly problem: string;
}

export type ChangePlan =
  | { readonly kind: "change"; readonly change: CommitChange<PlannedEntry> }
  | { readonly kind: "conflict"; readonly conflicts: readonly ChangeConflict[] };

/** New directories may be entered by whoever runs the product, as those of most archives. */
const DIRECTORY_MODE = 0o755;
const STRANGERS_NAMED_MAX = 5;

/** The directories above a path, outermost first: `a/b/c` gives `a`, `a/b`. */
export function parentsOf(path: string): string[] {
  const parents: string[] = [];
  for (let slash = path.indexOf("/"); slash !== -1; slash = path.indexOf("/", slash + 1))
    parents.push(path.slice(0, slash));
  return parents;
}

/** The directory that holds a path; the empty text is the installation directory itself. */
export function parentOf(path: string): string {
  const slash = path.lastIndexOf("/");
  return slash === -1 ? "" : path.slice(0, slash);
}

/**
 * Plans a change. Every former file is planned as `linked`; who lays it out says so if it had to be copied. Operations
 * must have been held against the path grammar. A removal of what is not there any more, or is a directory by now, falls
 * away: nothing of ours stands there. `restoring` says that all that is put stood side by side on this very disk before,
 * so that names need not be told apart for other disks. Returns all conflicts when there are any.
 */
export function planChange(
  operations: readonly ApplyOperation[],
  survey: Survey,
  restoring = false,
): ChangePlan {
  const conflicts: ChangeConflict[] = restoring ? [] : collisions(operations);
  if (conflicts.length > 0) return { kind: "conflict", conflicts };

  const goes = new Map<string, ApplyOperation>();
  for (const operation of operations)
    if (operation.kind === "remove" && isRemovable(operation.path, survey))
      goes.set(operation.path, operation);

  const make = new Map<string, CommitDirectory>();
  const makeLate = new Map<string, CommitDirectory>();
  const clear = new Map<string, CommitDirectory>();
  const entries: PlannedEntry[] = [];
  const goesAt = spellings(goes, survey);
  const aliases = findAliases(operations, goes, survey);
  for (const operation of operations) {
    const { n, kind, path } = operation;
    if (kind === "remove") {
      if (goes.has(path) && !aliases.taken.has(path))
        entries.push({ n, kind, path, former: "linked", formerPath: null });
      continue;
    }
    const blocked = openTheWay(path, survey, goesAt, make, makeLate);
    if (blocked !== null) {
      conflicts.push(blocked);
      continue;
    }
    const underNew = make.has(parentOf(path)) || makeLate.has(parentOf(path));
    const standing = underNew ? undefined : survey.at.get(path);
    if (standing?.kind === "other")
      conflicts.push({ path, problem: "a device, pipe or socket stands there" });
    if (standing?.kind === "directory") {
      const strangers = clearTheWay(path, standing, survey, goesAt, clear);
      if (strangers.length > 0) conflicts.push({ path, problem: describeStrangers(strangers) });
    }
    const former = standing?.kind === "file" || standing?.kind === "link" ? "linked" : "none";
    entries.push({ n, kind, path, former, formerPath: aliases.formerOf.get(path) ?? null });
  }
  if (conflicts.length > 0) return { kind: "conflict", conflicts };
  return {
    kind: "change",
    change: {
      entries,
      make: inOrder(make),
      makeLate: inOrder(makeLate),
      clear: inOrder(clear).reverse(),
    },
  };
}

/** Paths that cannot be wanted together at all, whatever stands on the disk. */
function collisions(operations: readonly ApplyOperation[]): ChangeConflict[] {
  const puts = operations.filter(({ kind }) => kind === "put").map(({ path }) => path);
  const conflicts = findTwins(puts).map(({ kind, path, other }) => ({
    path,
    problem: kind === "same" ? `it may be one file with ${other}` : `${other} is put there as a file`,
  }));
  const wanted = new Set(puts);
  for (const { kind, path } of operations)
    if (kind === "remove" && wanted.has(path))
      conflicts.push({ path, problem: "it is put and removed at once" });
  return conflicts;
}

function isRemovable(path: string, survey: Survey): boolean {
  // Below a link nothing is ours: what a removal would hit there belongs to somebody else.
  if (!parentsOf(path).every((parent) => survey.at.get(parent)?.kind === "directory")) return false;
  const kind = survey.at.get(path)?.kind;
  return kind === "file" || kind === "link";
}

/** Notes the directories that must be made for a path. Returns what makes that impossible, or null. */
function openTheWay(
  path: string,
  survey: Survey,
  goesAt: ReadonlySet<string>,
  make: Map<string, CommitDirectory>,
  makeLate: Map<string, CommitDirectory>,
): ChangeConflict | null {
  let missing: Map<string, CommitDirectory> | null = null;
  for (const parent of parentsOf(path)) {
    if (missing === null) {
      const standing = survey.at.get(parent);
      if (standing?.kind === "directory") continue;
      if (standing === undefined) missing = make;
      else if (goesAt.has(spelling(parent, standing))) missing = makeLate;
      else {
        const what =
          standing.kind === "link" ? "a symbolic link" : `a ${standing.kind} that is not the product's`;
        return { path, problem: `its directory ${parent} is ${what}` };
      }
    }
    missing.set(parent, { path: parent, mode: DIRECTORY_MODE });
  }
  return null;
}

/** Notes the directories that must go for a file. Returns what stands in them and is not removed by this update. */
function clearTheWay(
  path: string,
  standing: Standing,
  survey: Survey,
  goesAt: ReadonlySet<string>,
  clear: Map<string, CommitDirectory>,
): string[] {
  const inside = survey.inside.get(path) ?? [];
  clear.set(path, { path, mode: standing.mode });
  const strangers: string[] = [];
  for (const each of inside) {
    const found = survey.at.get(each);
    // Empty directories hold nothing that could be lost; whatever else is there must go with this very update.
    if (found?.kind === "directory") clear.set(each, { path: each, mode: found.mode });
    else if (!goesAt.has(spelling(each, found))) strangers.push(each);
  }
  return strangers;
}

/**
 * What is removed, under whatever spelling: a disk that ignores case lists `a/A/c` where the product says `a/a/c`. The
 * same spelling is another file where the disk tells them apart, so the identity counts as well.
 */
function spellings(goes: ReadonlyMap<string, unknown>, survey: Survey): ReadonlySet<string> {
  return new Set([...goes.keys()].map((path) => spelling(path, survey.at.get(path))));
}

function spelling(path: string, standing: Standing | undefined): string {
  return `${standing?.identity} ${foldPath(path)}`;
}

function describeStrangers(strangers: readonly string[]): string {
  const named = strangers.slice(0, STRANGERS_NAMED_MAX).join(", ");
  const more = strangers.length - STRANGERS_NAMED_MAX;
  return `a directory stands there that holds what is not the product's: ${named}${more > 0 ? ` and ${more} more` : ""}`;
}

/** Removals that name the very file which a put replaces under another spelling. */
function findAliases(
  operations: readonly ApplyOperation[],
  goes: ReadonlyMap<string, ApplyOperation>,
  survey: Survey,
): { formerOf: ReadonlyMap<string, string>; taken: ReadonlySet<string> } {
  const formerOf = new Map<string, string>();
  const taken = new Set<string>();
  const goesByIdentity = new Map<string, string>();
  for (const path of goes.keys()) {
    const identity = survey.at.get(path)?.identity;
    if (identity !== undefined) goesByIdentity.set(identity, path);
  }
  for (const { kind, path } of operations) {
    const identity = kind === "put" ? survey.at.get(path)?.identity : undefined;
    const former = identity === undefined ? undefined : goesByIdentity.get(identity);
    if (former === undefined || former === path || !isSpelling(former, path)) continue;
    formerOf.set(path, former);
    taken.add(former);
  }
  return { formerOf, taken };
}

/** Two hard links of one file are two files to us; two spellings of one name are one. */
function isSpelling(a: string, b: string): boolean {
  return findTwins([a, b]).some(({ kind }) => kind === "same");
}

function inOrder(directories: ReadonlyMap<string, CommitDirectory>): CommitDirectory[] {
  return [...directories.values()].sort((a, b) => (a.path < b.path ? -1 : a.path > b.path ? 1 : 0));
}
