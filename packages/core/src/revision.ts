import { type DeployTarget, formatTarget } from "./deploy-target.ts";
import { byPath, type FileEntry, sameEntry } from "./file.ts";
import type { Manifest } from "./manifest.ts";
import { checkPath, findTwins } from "./path.ts";
import {
  type Layout,
  type Placement,
  packageClosure,
  placementsOfRoles,
  placePath,
} from "./revision-layout.ts";

/**
 * What a software revision says: from the file revisions, their deploy targets and the layout to one manifest for each
 * role and package (S19). The same rows give the same manifests, whatever order they come in.
 */

/** A file revision that has content. Without deploy targets it is never distributed (behaviour 18). */
export interface TargetedFile extends FileEntry {
  /** Formatted targets, `role:Server`. */
  readonly targets: readonly string[];
}

/** Why a set of files cannot be distributed; `where` is the path that a person must look at. */
export interface RevisionFault {
  readonly kind: "path" | "twin" | "conflict";
  readonly where: string;
  readonly problem: string;
}

/**
 * The manifests of all roles and packages of the layout, those without files too, ordered by their formatted target,
 * one after the other: together they can be many times as large as the set.
 * Targets of a file that the layout does not know are passed over.
 */
export function* computeManifests(
  files: readonly TargetedFile[],
  layout: Layout,
): Generator<Manifest, void, undefined> {
  const byTarget = groupByTarget(files);
  const closure = packageClosure(layout);
  const placements = placementsOfRoles(layout);
  const targets: DeployTarget[] = [
    ...layout.packages.map(({ name }) => ({ kind: "package", name }) as const),
    ...layout.roles.map(({ path }) => ({ kind: "role", name: path }) as const),
  ];
  targets.sort((a, b) => byText(formatTarget(a), formatTarget(b)));
  for (const target of targets) {
    if (target.kind === "package") {
      const places = [target.name, ...(closure.get(target.name) ?? [])];
      const atRoot = places.map((name) => ({ package: name, subdirectory: "" }));
      yield { target, entries: collect(byTarget, [], atRoot) };
    } else {
      const own = byTarget.get(formatTarget(target)) ?? [];
      yield { target, entries: collect(byTarget, own, placements.get(target.name) ?? []) };
    }
  }
}

/**
 * Finds what keeps a set of files from being distributed. An installation may choose any roles and packages, so all of
 * them count as one installation: no path may mean two contents, nor be a folder here and a file there, nor differ from
 * another only in a way that some file system does not see. Files without targets count by their own path, since
 * assigning them must not break anything later. `sha256` null: nothing was loaded under that name yet. Without `grammar`
 * the files' own paths are taken to be checked already.
 */
export function findRevisionFaults(
  files: readonly (Omit<TargetedFile, "sha256" | "size"> & { readonly sha256: string | null })[],
  layout: Layout,
  options: { readonly grammar: boolean } = { grammar: true },
): RevisionFault[] {
  const faults: RevisionFault[] = [];
  for (const { path } of options.grammar ? files : []) {
    const fault = checkPath(path);
    if (fault !== null) faults.push({ kind: "path", where: path, problem: fault.problem });
  }
  const twins = findTwins(files.map((file) => file.path));
  for (const twin of twins) faults.push(twinFault(twin.kind, twin.path, twin.other));
  const placed = placedBelow(layout);
  if (placed.length === 0) return faults;

  const effective = new Map<string, (typeof files)[number]>();
  const byTarget = new Map<string, (typeof files)[number][]>();
  for (const file of files) {
    if (file.targets.length === 0 || file.sha256 === null) continue;
    effective.set(file.path, file);
    for (const target of file.targets) append(byTarget, target, file);
  }
  const known = new Set(twins.map((twin) => `${twin.path}\0${twin.other}`));
  for (const { package: name, subdirectory } of placed) {
    for (const file of byTarget.get(formatTarget({ kind: "package", name })) ?? []) {
      const path = placePath(subdirectory, file.path);
      const other = effective.get(path);
      if (other === undefined) {
        effective.set(path, file);
        const fault = checkPath(path);
        if (fault !== null) faults.push({ kind: "path", where: path, problem: fault.problem });
      } else if (other.sha256 !== file.sha256 || other.mode !== file.mode || other.backup !== file.backup)
        faults.push({
          kind: "conflict",
          where: path,
          problem: `${file.path} of package ${name} and ${other.path} would land in the same place with different content`,
        });
    }
  }
  for (const twin of findTwins(effective.keys()))
    if (!known.has(`${twin.path}\0${twin.other}`)) faults.push(twinFault(twin.kind, twin.path, twin.other));
  return faults;
}

/** A file on one side of a comparison. */
export interface RevisionSide extends FileEntry {
  readonly targets: readonly string[];
}

export interface RevisionChange<T extends RevisionSide = RevisionSide> {
  readonly path: string;
  readonly kind: "added" | "changed" | "removed";
  readonly from: T | null;
  readonly to: T | null;
}

/** What leads from one set to another, ordered by path. Both may come in any order; no path may come twice. */
export function diffSets<T extends RevisionSide>(from: readonly T[], to: readonly T[]): RevisionChange<T>[] {
  const before = new Map(from.map((file) => [file.path, file]));
  const changes: RevisionChange<T>[] = [];
  for (const file of to) {
    const old = before.get(file.path);
    before.delete(file.path);
    if (old === undefined) changes.push({ path: file.path, kind: "added", from: null, to: file });
    else if (!sameEntry(old, file) || !sameTargets(old.targets, file.targets))
      changes.push({ path: file.path, kind: "changed", from: old, to: file });
  }
  for (const file of before.values())
    changes.push({ path: file.path, kind: "removed", from: file, to: null });
  return changes.sort(byPath);
}

/** Whether two lists name the same targets. */
export function sameTargets(a: readonly string[], b: readonly string[]): boolean {
  if (a.length !== b.length) return false;
  if (a.every((target, index) => target === b[index])) return true;
  const sorted = [...b].sort();
  return [...a].sort().every((target, index) => target === sorted[index]);
}

/** The target of a manifest in its one text form. */
export function manifestTarget(manifest: { readonly target: DeployTarget }): string {
  return formatTarget(manifest.target);
}

function groupByTarget(files: readonly TargetedFile[]): Map<string, TargetedFile[]> {
  const groups = new Map<string, TargetedFile[]>();
  for (const file of files) for (const target of file.targets) append(groups, target, file);
  return groups;
}

function append<T>(groups: Map<string, T[]>, key: string, value: T): void {
  const list = groups.get(key);
  if (list === undefined) groups.set(key, [value]);
  else list.push(value);
}

function collect(
  byTarget: Map<string, TargetedFile[]>,
  own: readonly TargetedFile[],
  places: readonly Placement[],
): FileEntry[] {
  // A file that belongs to the role and to its package is one file; findRevisionFaults has refused everything else.
  const entries = new Map<string, FileEntry>();
  const put = (path: string, { size, sha256, mode, backup }: TargetedFile) => {
    if (!entries.has(path)) entries.set(path, { path, size, sha256, mode, backup });
  };
  for (const file of own) put(file.path, file);
  for (const place of places)
    for (const file of byTarget.get(formatTarget({ kind: "package", name: place.package })) ?? [])
      put(placePath(place.subdirectory, file.path), file);
  return [...entries.values()].sort(byPath);
}

/** Every (package, subdirectory) that some role asks for, but those at the root. */
function placedBelow(layout: Layout): Placement[] {
  const placed = new Map<string, Placement>();
  for (const places of placementsOfRoles(layout).values())
    for (const place of places)
      if (place.subdirectory !== "") placed.set(`${place.subdirectory}:${place.package}`, place);
  return [...placed.values()];
}

function twinFault(kind: "same" | "below", path: string, other: string): RevisionFault {
  const problem =
    kind === "same"
      ? `it is the same file as ${other} on some file systems`
      : `it needs a folder where ${other} is a file`;
  return { kind: "twin", where: path, problem };
}

function byText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
