import { formatTarget } from "./deploy-target.ts";
import { byPath, type FileEntry, sameEntry } from "./file.ts";
import type { Manifest } from "./manifest.ts";
import { checkPath, findTwins } from "./path.ts";

/**
 * The files of an installation: the manifests of all its roles and packages, joined.
 *
 * The hub refuses at load what cannot stand together, but an installation does not take its word: whoever owns the hub
 * does not own the machine. So each path is held against the grammar again, twins are looked for again, and two
 * manifests that want different contents in one place are a fault, never a matter of order.
 */
export type JoinFaultKind = "path" | "twin" | "conflict";

export interface JoinFault {
  readonly kind: JoinFaultKind;
  readonly path: string;
  readonly problem: string;
}

export interface JoinedFiles {
  /** Ordered by path, each path once. */
  readonly entries: readonly FileEntry[];
  /** Empty when the files may be installed. At most FAULTS_MAX. */
  readonly faults: readonly JoinFault[];
}

/** More than this many faults are not collected: nobody reads them, and a hostile list could be long. */
const FAULTS_MAX = 100;

/**
 * Joins manifests of any number of roles and packages. `known` are files whose paths were judged before (what is
 * installed already), in order, so that the cost of the check follows the change. Linear in the number of files.
 */
export function joinManifests(
  manifests: readonly Manifest[],
  known: readonly { readonly path: string }[] = [],
): JoinedFiles {
  const faults: JoinFault[] = [];
  const report = (kind: JoinFaultKind, path: string, problem: string) => {
    if (faults.length < FAULTS_MAX) faults.push({ kind, path, problem });
  };
  const entries = unite(manifests, report);
  let fresh = 0;
  let next = 0;
  for (const { path } of entries) {
    while ((known[next]?.path ?? path) < path) next++;
    if (known[next]?.path === path) continue;
    fresh++;
    const found = isPlainPath(path) ? null : checkPath(path);
    if (found !== null) report("path", path, found.problem);
  }
  // Paths that stood side by side before still can.
  if (fresh === 0) return { entries, faults };
  for (const twin of findTwins(entries.map((entry) => entry.path))) {
    const problem =
      twin.kind === "same"
        ? `it is the same file as ${twin.other} on some file systems`
        : `it needs a folder where ${twin.other} is a file`;
    report("twin", twin.path, problem);
  }
  return { entries, faults };
}

function unite(
  manifests: readonly Manifest[],
  report: (kind: JoinFaultKind, path: string, problem: string) => void,
): readonly FileEntry[] {
  const [first] = manifests;
  if (first === undefined) return [];
  if (manifests.length === 1) return first.entries;
  const found = new Map<string, { readonly entry: FileEntry; readonly from: Manifest }>();
  for (const from of manifests) {
    for (const entry of from.entries) {
      const other = found.get(entry.path);
      if (other === undefined) found.set(entry.path, { entry, from });
      else if (!sameEntry(other.entry, entry))
        report(
          "conflict",
          entry.path,
          `${formatTarget(other.from.target)} and ${formatTarget(from.target)} want different files there`,
        );
    }
  }
  return [...found.values()].map(({ entry }) => entry).sort(byPath);
}

// Letters, digits and a few signs that mean nothing anywhere; no name begins or ends with a dot.
const PLAIN =
  /^[A-Za-z0-9_@+-](?:[A-Za-z0-9_@+.-]*[A-Za-z0-9_@+-])?(?:\/[A-Za-z0-9_@+-](?:[A-Za-z0-9_@+.-]*[A-Za-z0-9_@+-])?)*$/;
const SPECIAL =
  /(?:^|\/)(?:con|prn|aux|nul|com\d|lpt\d)(?:[./]|$)|^(?:installstate|update|softwarerevision)/i;
/** Short enough that neither the limit of a name nor that of the depth can be reached. */
const PLAIN_LENGTH_MAX = 120;

/**
 * Whether a path is so plain that the grammar need not be asked: it is accepted by `checkPath` for certain (a property
 * test holds the two together). Nearly all paths are; asking costs a twentieth.
 */
export function isPlainPath(path: string): boolean {
  return path.length <= PLAIN_LENGTH_MAX && PLAIN.test(path) && !SPECIAL.test(path);
}
