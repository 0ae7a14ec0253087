import { type EditsPolicy, keepsEdits } from "./edits.ts";
import type { FileEntry, Sha256 } from "./file.ts";

/**
 * The plan of an update: what leads from what is there to what should be there (S25), as a value.
 *
 * Three things are known of each path: what we installed (`recorded`, from InstallState.config), what the software
 * revision wants (`target`, from the manifests of the installed roles) and what is there (`local`). Comparing is by
 * size first, then by content. Most files were looked at before and have not changed since; they are `recorded` and
 * nobody opens them. Only where the sizes agree and the rest is unknown must a file be read: `needsDigest` says which,
 * the caller reads them, `makePlan` decides. Nothing here looks at a disk.
 *
 * Local files that neither list names do not appear: nobody touches them.
 */
export type LocalFile =
  /** Looked at before, and not touched since: its content and mode are those that are recorded. */
  | { readonly kind: "recorded" }
  | { readonly kind: "missing" }
  /** `sha256` null where the size decides, and where the disk does not give the content any more. */
  | { readonly kind: "file"; readonly size: number; readonly mode: number; readonly sha256: Sha256 | null }
  /** A symbolic link stands there. It is never followed. */
  | { readonly kind: "link" }
  /** A folder stands there, with these files in it (paths in the installation). */
  | { readonly kind: "folder"; readonly holds: readonly string[] }
  /** Something that a file cannot replace: a device, or a link where a folder is needed. */
  | { readonly kind: "blocked"; readonly problem: string };

/** One path that is recorded or wanted or both. */
export interface PlanRow {
  readonly path: string;
  readonly recorded: FileEntry | null;
  readonly target: FileEntry | null;
}

export type ReplaceReason = "size" | "hash" | "mode" | "missing" | "link" | "folder" | "lost";
/** Whose the local file is: as we left it, changed since, or never ours. */
export type Ownership = "ours" | "edited" | "foreign";
export type ContentSource = { readonly kind: "hub" } | { readonly kind: "local"; readonly path: string };

export type PlanOperation =
  | {
      readonly kind: "add";
      readonly path: string;
      readonly entry: FileEntry;
      readonly reason: "new";
      readonly source: ContentSource;
    }
  | {
      readonly kind: "replace";
      readonly path: string;
      readonly entry: FileEntry;
      readonly reason: ReplaceReason;
      readonly local: Ownership;
      readonly found: FoundFile | null;
      readonly source: ContentSource;
      /** Keep a copy of what is replaced. */
      readonly backup: boolean;
    }
  | {
      readonly kind: "remove";
      readonly path: string;
      readonly reason: "dropped";
      readonly local: "ours" | "edited";
      readonly found: FoundFile;
      readonly backup: boolean;
    }
  /** The wanted content is there already; it only becomes ours. */
  | { readonly kind: "adopt"; readonly path: string; readonly entry: FileEntry; readonly reason: "present" }
  /** It stays as it is, against the repository. `entry` is null where the repository dropped the file. */
  | {
      readonly kind: "keep";
      readonly path: string;
      readonly entry: FileEntry | null;
      readonly reason: "edited" | "foreign" | "dropped";
      readonly found: FoundFile | null;
    };

/** What stands in the place, as far as somebody looked. */
export interface FoundFile {
  readonly size: number;
  readonly mode: number;
  /** Null where the size alone decided, and where the content could not be read. */
  readonly sha256: Sha256 | null;
}

export interface PlanSums {
  readonly add: number;
  readonly replace: number;
  readonly remove: number;
  readonly adopt: number;
  readonly keep: number;
  /** Files that are as they should be. */
  readonly equal: number;
  /** Different contents that must come from the hub, and their bytes. */
  readonly fetchFiles: number;
  readonly fetchBytes: number;
  /** Files whose content is in the installation already, under whatever name. */
  readonly copyFiles: number;
  /** Bytes that are written, whatever their source. */
  readonly writeBytes: number;
  /** Bytes of what is replaced or removed. */
  readonly freedBytes: number;
}

/** A path that cannot be brought into its state. */
export interface PlanFault {
  readonly path: string;
  readonly problem: string;
}

export interface Plan {
  /** In the order of the paths. */
  readonly operations: readonly PlanOperation[];
  /** Not empty: the plan must not be carried out. */
  readonly faults: readonly PlanFault[];
  readonly sums: PlanSums;
  /** What InstallState.config records afterwards, in the order of the paths. */
  readonly recorded: readonly FileEntry[];
}

export interface PlanOptions {
  readonly edits: EditsPolicy;
  /** False where the file system has no permission bits to compare. */
  readonly modes: boolean;
}

/** Brings the two ordered lists together. Linear. */
export function planRows(recorded: readonly FileEntry[], target: readonly FileEntry[]): PlanRow[] {
  const rows: PlanRow[] = [];
  let i = 0;
  let j = 0;
  while (i < recorded.length || j < target.length) {
    const old = recorded[i];
    const wanted = target[j];
    if (wanted === undefined || (old !== undefined && old.path < wanted.path)) {
      if (old !== undefined) rows.push({ path: old.path, recorded: old, target: null });
      i++;
    } else if (old === undefined || wanted.path < old.path) {
      rows.push({ path: wanted.path, recorded: null, target: wanted });
      j++;
    } else {
      rows.push({ path: wanted.path, recorded: old, target: wanted });
      i++;
      j++;
    }
  }
  return rows;
}

/** Whether the content of a local file must be read to decide about it. */
export function needsDigest(row: PlanRow, local: LocalFile): boolean {
  if (local.kind !== "file" || local.sha256 !== null) return false;
  return local.size === row.target?.size || local.size === row.recorded?.size;
}

function hasContent(local: LocalFile, row: PlanRow, entry: FileEntry | null): boolean {
  if (entry === null) return false;
  if (local.kind === "recorded")
    return row.recorded !== null && row.recorded.sha256 === entry.sha256 && row.recorded.size === entry.size;
  return local.kind === "file" && local.size === entry.size && local.sha256 === entry.sha256;
}

function foundFile(local: LocalFile, row: PlanRow): FoundFile | null {
  if (local.kind === "file") return { size: local.size, mode: local.mode, sha256: local.sha256 };
  if (local.kind !== "recorded" || row.recorded === null) return null;
  return { size: row.recorded.size, mode: row.recorded.mode, sha256: row.recorded.sha256 };
}

type Undecided = PlanOperation | "equal" | "forget" | PlanFault;

const FROM_HUB: ContentSource = { kind: "hub" };

function decideDropped(row: PlanRow, local: LocalFile, options: PlanOptions): Undecided {
  if (local.kind === "missing") return "forget";
  const found = foundFile(local, row);
  const edited = !hasContent(local, row, row.recorded);
  // What is no file any more is no longer ours; an edited file goes only where the repository wins, and leaves a copy.
  if (found === null || (edited && keepsEdits(options.edits)))
    return { kind: "keep", path: row.path, entry: null, reason: "dropped", found };
  const backup = edited || row.recorded?.backup === true;
  return {
    kind: "remove",
    path: row.path,
    reason: "dropped",
    local: edited ? "edited" : "ours",
    found,
    backup,
  };
}

function decideWanted(row: PlanRow, entry: FileEntry, local: LocalFile, options: PlanOptions): Undecided {
  const { path, recorded } = row;
  if (local.kind === "blocked") return { path, problem: local.problem };
  if (local.kind === "missing" || local.kind === "folder")
    return recorded === null
      ? { kind: "add", path, entry, reason: "new", source: FROM_HUB }
      : {
          kind: "replace",
          path,
          entry,
          reason: local.kind,
          local: "ours",
          found: null,
          source: FROM_HUB,
          backup: false,
        };
  const found = foundFile(local, row);
  const equal = hasContent(local, row, entry);
  const sameMode = found === null || !options.modes || found.mode === entry.mode;
  if (equal && sameMode) {
    const known = recorded !== null && recorded.sha256 === entry.sha256 && recorded.size === entry.size;
    return known ? "equal" : { kind: "adopt", path, entry, reason: "present" };
  }
  const local_ = ownership(row, local, equal, options);
  if (local_ !== "ours" && keepsEdits(options.edits))
    return { kind: "keep", path, entry, reason: local_, found };
  return {
    kind: "replace",
    path,
    entry,
    reason: replaceReason(found, entry, equal),
    local: local_,
    found,
    source: FROM_HUB,
    backup: !equal && (local_ !== "ours" || entry.backup || recorded?.backup === true),
  };
}

function replaceReason(found: FoundFile | null, entry: FileEntry, equal: boolean): ReplaceReason {
  if (found === null) return "link";
  if (found.size !== entry.size) return "size";
  if (equal) return "mode";
  return found.sha256 === null ? "lost" : "hash";
}

function ownership(row: PlanRow, local: LocalFile, equal: boolean, options: PlanOptions): Ownership {
  if (row.recorded === null) return equal ? "ours" : "foreign";
  if (!hasContent(local, row, row.recorded)) return equal ? "ours" : "edited";
  // The content is ours and the mode is not what it should be: an edit, unless the repository changed its mind.
  const edited = equal && local.kind === "file" && options.modes && local.mode !== row.recorded.mode;
  return edited ? "edited" : "ours";
}

/**
 * Decides about every row. `locals` are the observations in the order of the rows, with a digest wherever
 * `needsDigest` asked for one. The same input gives the same plan. Linear in the number of rows.
 */
export function makePlan(rows: readonly PlanRow[], locals: readonly LocalFile[], options: PlanOptions): Plan {
  const undecided: PlanOperation[] = [];
  const faults: PlanFault[] = [];
  const recorded: FileEntry[] = [];
  let equal = 0;
  for (const [index, row] of rows.entries()) {
    const local = locals[index];
    if (local === undefined) throw new RangeError(`no observation of ${row.path}`);
    const decision =
      row.target === null
        ? decideDropped(row, local, options)
        : decideWanted(row, row.target, local, options);
    if (decision === "forget") continue;
    if (decision === "equal") {
      equal++;
      if (row.target !== null) recorded.push(row.target);
    } else if (!("kind" in decision)) faults.push(decision);
    else {
      undecided.push(decision);
      if (decision.kind === "keep") {
        // What we last put there stays the measure, so that undoing the edit makes the file ours again.
        if (decision.entry !== null && row.recorded !== null) recorded.push(row.recorded);
      } else if (decision.kind !== "remove") recorded.push(decision.entry);
    }
  }
  faults.push(...findObstacles(undecided, rows, locals));
  const operations = withSources(undecided, rows, locals);
  return { operations, faults, recorded, sums: sum(operations, equal) };
}

/**
 * What would stand in the way although each path alone is fine: a folder where a file must go holds something that
 * stays, or a file that stays is where a folder must go.
 */
function findObstacles(
  operations: readonly PlanOperation[],
  rows: readonly PlanRow[],
  locals: readonly LocalFile[],
): PlanFault[] {
  const faults: PlanFault[] = [];
  const removed = new Set<string>();
  const stays = new Set<string>();
  for (const operation of operations) {
    if (operation.kind === "remove") removed.add(operation.path);
    if (operation.kind === "keep" && operation.entry === null) stays.add(operation.path);
  }
  for (const [index, row] of rows.entries()) {
    if (row.target === null) continue;
    const local = locals[index];
    if (local?.kind === "folder") {
      const left = local.holds.find((path) => !removed.has(path));
      if (left !== undefined)
        faults.push({
          path: row.path,
          problem: `a folder stands in its place and holds ${left}, which is not ours`,
        });
    }
    if (stays.size === 0) continue;
    for (let slash = row.path.indexOf("/"); slash > 0; slash = row.path.indexOf("/", slash + 1)) {
      const folder = row.path.slice(0, slash);
      if (stays.has(folder))
        faults.push({ path: row.path, problem: `it needs a folder where the edited file ${folder} stays` });
    }
  }
  return faults;
}

/** Finds contents that need not be fetched because some file of the installation has them (a renamed file). */
function withSources(
  operations: readonly PlanOperation[],
  rows: readonly PlanRow[],
  locals: readonly LocalFile[],
): PlanOperation[] {
  const wanted = new Set<Sha256>();
  for (const operation of operations)
    if (operation.kind === "add" || operation.kind === "replace") wanted.add(operation.entry.sha256);
  if (wanted.size === 0) return [...operations];
  const places = new Map<Sha256, { readonly path: string; readonly size: number }>();
  for (const [index, row] of rows.entries()) {
    const local = locals[index];
    const found = local?.kind === "recorded" ? row.recorded : local?.kind === "file" ? local : null;
    if (found === null || found.sha256 === null || !wanted.has(found.sha256)) continue;
    if (!places.has(found.sha256)) places.set(found.sha256, { path: row.path, size: found.size });
  }
  return operations.map((operation) => {
    if (operation.kind !== "add" && operation.kind !== "replace") return operation;
    const place = places.get(operation.entry.sha256);
    return place === undefined || place.size !== operation.entry.size
      ? operation
      : { ...operation, source: { kind: "local", path: place.path } };
  });
}

function sum(operations: readonly PlanOperation[], equal: number): PlanSums {
  const counts = { add: 0, replace: 0, remove: 0, adopt: 0, keep: 0 };
  const fetched = new Set<Sha256>();
  let fetchBytes = 0;
  let copyFiles = 0;
  let writeBytes = 0;
  let freedBytes = 0;
  for (const operation of operations) {
    counts[operation.kind]++;
    if (operation.kind === "replace" || operation.kind === "remove") freedBytes += operation.found?.size ?? 0;
    if (operation.kind !== "add" && operation.kind !== "replace") continue;
    writeBytes += operation.entry.size;
    if (operation.source.kind === "local") copyFiles++;
    else if (!fetched.has(operation.entry.sha256)) {
      fetched.add(operation.entry.sha256);
      fetchBytes += operation.entry.size;
    }
  }
  return { ...counts, equal, fetchFiles: fetched.size, fetchBytes, copyFiles, writeBytes, freedBytes };
}
