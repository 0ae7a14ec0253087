import {
  byPath,
  FILE_MODE_MAX,
  type FileEntry,
  formatRow,
  formatTarget,
  isSha256,
  type Manifest,
  parseTarget,
  readRows,
} from "@lockstep/core";
import { LockstepError } from "./errors.ts";

/**
 * The canonical text of a manifest, over which its digest is taken.
 *
 * The first line is a header, each further line one file: a JSON array `[path, size, sha256, mode, backup]` without
 * white space, ordered by path; each line ends in a line feed. One file a line makes the change of a manifest a
 * change of lines, so that the list itself travels as a small delta (anchors: 43,000 files, four changed).
 */
const FORMAT = "lockstep-manifest/1";

type Row = [path: string, size: number, sha256: string, mode: number, backup: 0 | 1];

/** One file as one line, without the line feed. */
export function formatEntry(entry: FileEntry): string {
  return formatRow(entry);
}

/** Writes the canonical text. The entries must be in order already. */
export function formatManifest(manifest: Manifest): string {
  const header = JSON.stringify({ format: FORMAT, target: formatTarget(manifest.target) });
  return `${[header, ...manifest.entries.map(formatEntry)].join("\n")}\n`;
}

function invalid(problem: string): LockstepError {
  return new LockstepError("MANIFEST_INVALID", `the manifest is not usable: ${problem}`, {
    hint: "Nothing was changed. Look at the hub's log; a proxy between may have altered the answer.",
  });
}

function toEntry(row: Row, previous: string | null): FileEntry {
  if (!Array.isArray(row) || row.length !== 5) throw invalid("a line is not a file entry");
  const [path, size, sha256, mode, backup] = row;
  if (typeof path !== "string" || path === "") throw invalid("a path is missing");
  if (!Number.isSafeInteger(size) || size < 0) throw invalid(`size ${JSON.stringify(size)} of ${path}`);
  if (!isSha256(sha256)) throw invalid(`digest of ${path}`);
  if (!Number.isInteger(mode) || mode < 0 || mode > FILE_MODE_MAX)
    throw invalid(`mode ${JSON.stringify(mode)} of ${path}`);
  if (backup !== 0 && backup !== 1) throw invalid(`backup mark of ${path}`);
  if (previous !== null && byPath({ path: previous }, { path }) >= 0)
    throw invalid(`${path} is out of order`);
  return { path, size, sha256, mode, backup: backup === 1 };
}

/** Reads entries from lines that were written by `formatEntry`. Throws MANIFEST_INVALID. */
export function parseEntries(lines: readonly string[]): FileEntry[] {
  let rows: Row[];
  try {
    rows = JSON.parse(`[${lines.join(",")}]`) as Row[];
  } catch (cause) {
    throw new LockstepError("MANIFEST_INVALID", "the manifest is not usable: it is not JSON", { cause });
  }
  let previous: string | null = null;
  return rows.map((row) => {
    const entry = toEntry(row, previous);
    previous = entry.path;
    return entry;
  });
}

/**
 * Reads a canonical text. Throws MANIFEST_INVALID. The paths are *not* held against the portable grammar here:
 * the updater does that again at apply, whoever wrote the manifest.
 */
export function parseManifest(text: string): Manifest {
  if (!text.endsWith("\n")) throw invalid("it is cut off");
  const firstEnd = text.indexOf("\n");
  let header: { format?: unknown; target?: unknown };
  try {
    header = JSON.parse(text.slice(0, firstEnd)) as typeof header;
  } catch (cause) {
    throw new LockstepError("MANIFEST_INVALID", "the manifest is not usable: no header", { cause });
  }
  if (header?.format !== FORMAT)
    throw invalid(`format ${JSON.stringify(header?.format)}, expected ${FORMAT}`);
  const target = typeof header.target === "string" ? parseTarget(header.target) : null;
  if (target === null) throw invalid(`target ${JSON.stringify(header.target)}`);
  const read = readRows(text, firstEnd + 1, "");
  if (read !== null && read.end === text.length) return { target, entries: read.entries };
  // Something is wrong: the slow way says what.
  return { target, entries: parseEntries(text.slice(firstEnd + 1, -1).split("\n")) };
}

/** The difference of two manifests of one target: what goes, and what comes or changes. */
export interface ManifestDelta {
  readonly removed: readonly string[];
  readonly put: readonly FileEntry[];
}

/** Computes what leads from one list of entries to another. Both must be in order. */
export function diffEntries(from: readonly FileEntry[], to: readonly FileEntry[]): ManifestDelta {
  const removed: string[] = [];
  const put: FileEntry[] = [];
  let i = 0;
  let j = 0;
  while (i < from.length || j < to.length) {
    const a = from[i];
    const b = to[j];
    if (b === undefined || (a !== undefined && a.path < b.path)) {
      if (a !== undefined) removed.push(a.path);
      i++;
    } else if (a === undefined || b.path < a.path) {
      put.push(b);
      j++;
    } else {
      if (a.sha256 !== b.sha256 || a.size !== b.size || a.mode !== b.mode || a.backup !== b.backup)
        put.push(b);
      i++;
      j++;
    }
  }
  return { removed, put };
}

/** Applies a delta. Whether the result is the promised one is for the caller to verify by its digest. */
export function applyDelta(from: readonly FileEntry[], delta: ManifestDelta): FileEntry[] {
  const removed = new Set(delta.removed);
  const replaced = new Set(delta.put.map((entry) => entry.path));
  const kept = from.filter((entry) => !removed.has(entry.path) && !replaced.has(entry.path));
  // Two ordered lists: merging keeps the cost of a small change to a large list linear.
  const result: FileEntry[] = [];
  let i = 0;
  for (const entry of delta.put) {
    for (let next = kept[i]; next !== undefined && next.path < entry.path; next = kept[++i])
      result.push(next);
    result.push(entry);
  }
  for (let next = kept[i]; next !== undefined; next = kept[++i]) result.push(next);
  return result;
}

const DELTA_FORMAT = "lockstep-manifest-delta/1";

/** Writes a delta as text: a header, then `-` and a path (JSON), or `+` and an entry, one a line. */
export function formatDelta(delta: ManifestDelta): string {
  const lines = [
    JSON.stringify({ format: DELTA_FORMAT }),
    ...delta.removed.map((path) => `-${JSON.stringify(path)}`),
    ...delta.put.map((entry) => `+${formatEntry(entry)}`),
  ];
  return `${lines.join("\n")}\n`;
}

/** Reads a delta from its text. Throws MANIFEST_INVALID. */
export function parseDelta(text: string): ManifestDelta {
  if (!text.endsWith("\n")) throw invalid("the delta is cut off");
  const lines = text.slice(0, -1).split("\n");
  if (lines[0] !== JSON.stringify({ format: DELTA_FORMAT })) throw invalid("the delta has no header");
  const removed: string[] = [];
  const put: string[] = [];
  for (const line of lines.slice(1)) {
    if (line.startsWith("+")) put.push(line.slice(1));
    else if (line.startsWith("-")) removed.push(line.slice(1));
    else throw invalid("a line of the delta has no sign");
  }
  try {
    const paths = removed.map((path) => JSON.parse(path) as unknown);
    if (!paths.every((path) => typeof path === "string")) throw invalid("a removed path is no text");
    return { removed: paths as string[], put: parseEntries(put) };
  } catch (cause) {
    if (cause instanceof LockstepError) throw cause;
    throw new LockstepError("MANIFEST_INVALID", "the delta is not usable: it is not JSON", { cause });
  }
}
