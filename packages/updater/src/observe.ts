import { lstatSync, readdirSync, type Stats } from "node:fs";
import { type LocalFile, needsDigest, type PlanRow } from "@lockstep/core";
import { isLockstepError, LockstepError } from "@lockstep/protocol/wire";
import { type Look, lookAtFiles } from "./digest.ts";
import { guarded, ioFailure } from "./io-failure.ts";
import type { ProgressMeter } from "./progress.ts";
import { type SeenStat, StatIndex } from "./stat-index.ts";

/**
 * What stands in an installation, for each row of a plan.
 *
 * By default each file's metadata is looked at once; where it is as it was when the content was last known, that is all.
 * Only files whose size agrees but whose metadata does not are read. `everything` reads them all and believes nothing.
 */
export interface Observation {
  readonly locals: LocalFile[];
  /** What to remember of row number i: a fresh look at known content, the old entry (null), or nothing (undefined). */
  readonly seen: (SeenStat | null | undefined)[];
  /** When the look began, milliseconds since 1970. */
  readonly at: number;
  /** How many files were opened. */
  readonly read: number;
}

export interface ObserveOptions {
  readonly everything: boolean;
  readonly now: () => number;
  readonly signal?: AbortSignal | undefined;
  readonly meter?: ProgressMeter | undefined;
  /** Takes the files that this user may not read, which count as recorded then; without it they are a failure. */
  readonly unreadable?: Unreadable[] | undefined;
}

/** A file of which this user cannot say what is in it. */
export interface Unreadable {
  readonly path: string;
  /** What the system said: EACCES. */
  readonly found: string;
}

/** Looks at every row. `index` speaks of the recorded files, in their order. Throws INTERRUPTED, INSTALLATION_IO_FAILED. */
export async function observe(
  root: string,
  rows: readonly PlanRow[],
  index: StatIndex,
  options: ObserveOptions,
): Promise<Observation> {
  const at = options.now();
  const folders = new FolderView(root, rows);
  const locals = new Array<LocalFile>(rows.length);
  const seen = new Array<SeenStat | null | undefined>(rows.length);
  const toRead: number[] = [];
  let bytes = 0;
  let recordedPosition = -1;
  for (const [position, row] of rows.entries()) {
    if (row.recorded !== null) recordedPosition++;
    const obstacle = allowing<LocalFile | null>(options, row.path, RECORDED, () => folders.above(row.path));
    if (obstacle !== null) {
      locals[position] = obstacle;
      continue;
    }
    if (options.everything) {
      toRead.push(position);
      bytes += (row.target ?? row.recorded)?.size ?? 0;
      continue;
    }
    const { stat, local } = allowing(options, row.path, NOT_SEEN, () => lookAt(root, row.path));
    locals[position] = local;
    if (stat === undefined || local.kind !== "file") continue;
    if (row.recorded !== null && index.matches(recordedPosition, stat)) {
      locals[position] = RECORDED;
      seen[position] = null;
    } else if (needsDigest(row, local)) {
      toRead.push(position);
      bytes += stat.size;
    }
  }
  await readThose(root, rows, toRead, bytes, locals, seen, options);
  return { locals, seen, at, read: toRead.length };
}

/** A look at one file; one that is not allowed is noted where somebody wants to know, and is `otherwise`. */
function allowing<T>({ unreadable }: ObserveOptions, path: string, otherwise: T, work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (unreadable === undefined || !isLockstepError(error) || error.found !== "EACCES") throw error;
    unreadable.push({ path, found: error.found });
    return otherwise;
  }
}

const MISSING: LocalFile = { kind: "missing" };
const RECORDED: LocalFile = { kind: "recorded" };

interface Seen {
  readonly stat: Stats | undefined;
  readonly local: LocalFile;
}

const NOT_SEEN: Seen = { stat: undefined, local: RECORDED };

function lookAt(root: string, path: string): Seen {
  const stat = look(root, path);
  return { stat, local: stat === undefined ? MISSING : classify(root, path, stat) };
}

async function readThose(
  root: string,
  rows: readonly PlanRow[],
  positions: readonly number[],
  bytesExpected: number,
  locals: LocalFile[],
  seen: (SeenStat | null | undefined)[],
  options: ObserveOptions,
): Promise<void> {
  if (positions.length === 0) return;
  const { meter } = options;
  if (meter !== undefined) {
    meter.filesTotal = positions.length;
    meter.bytesTotal = bytesExpected;
  }
  const pathOf = (position: number) => rows[position]?.path ?? "";
  const looks = await lookAtFiles(
    positions.map((position) => `${root}/${pathOf(position)}`),
    { signal: options.signal, bytesExpected, onProgress: (files, bytes) => meter?.add(files, bytes) },
  );
  meter?.end();
  for (const [i, position] of positions.entries()) {
    const found = looks[i];
    if (found === undefined) continue;
    const path = pathOf(position);
    locals[position] = allowing(options, path, RECORDED, () => fromLook(root, path, found));
    if (found.kind === "file" && found.sha256 !== null) seen[position] = found;
  }
}

function fromLook(root: string, path: string, found: Look): LocalFile {
  switch (found.kind) {
    case "file":
      if (found.sha256 === null)
        throw new LockstepError("INSTALLATION_FILE_IN_USE", `${root}/${path} changes while it is read`, {
          expected: "a file that stands still",
          found: "new content at each look",
          hint: "Stop the program that writes to it, then run it again.",
        });
      return { kind: "file", size: found.size, mode: found.mode, sha256: found.sha256 };
    case "folder":
      return { kind: "folder", holds: filesBelow(root, path) };
    // Nothing can be known of its content, which is never what it should be: it is replaced like one that was changed.
    case "lost":
      return { kind: "file", size: found.size, mode: found.mode, sha256: null };
    case "other":
      return { kind: "blocked", problem: "a device, pipe or socket stands there" };
    case "failed":
      throw new LockstepError("INSTALLATION_IO_FAILED", `reading ${root}/${path} failed: ${found.code}`, {
        found: found.code,
        hint: "Give this user read permission for the file, or look at the disk and at the system's log.",
      });
    default:
      return { kind: found.kind };
  }
}

function look(root: string, path: string): Stats | undefined {
  try {
    return lstatSync(`${root}/${path}`, { throwIfNoEntry: false });
  } catch (error) {
    throw ioFailure(error, `${root}/${path}`, "looking at");
  }
}

function classify(root: string, path: string, stat: Stats): LocalFile {
  if (stat.isFile()) return { kind: "file", size: stat.size, mode: stat.mode & 0o777, sha256: null };
  if (stat.isSymbolicLink()) return { kind: "link" };
  if (stat.isDirectory()) return { kind: "folder", holds: filesBelow(root, path) };
  return { kind: "blocked", problem: "a device, pipe or socket stands there" };
}

/** Everything below a folder that is not a folder itself, and folders with nothing in them. */
function filesBelow(root: string, path: string): string[] {
  const found: string[] = [];
  const open = [path];
  for (let folder = open.pop(); folder !== undefined; folder = open.pop()) {
    const entries = guarded(`${root}/${folder}`, "reading", () =>
      readdirSync(`${root}/${folder}`, { withFileTypes: true }),
    );
    if (entries.length === 0) found.push(folder);
    for (const entry of entries) {
      const below = `${folder}/${entry.name}`;
      if (entry.isDirectory()) open.push(below);
      else found.push(below);
    }
  }
  return found.sort();
}

/** The folders above the files: each is looked at once, and none may be a link that leads out of the installation. */
class FolderView {
  readonly #root: string;
  readonly #rows: readonly PlanRow[];
  /** Null: a folder. */
  readonly #known = new Map<string, LocalFile | null>();
  #recorded: Set<string> | null = null;
  #last = "";
  #lastFound: LocalFile | null = null;

  constructor(root: string, rows: readonly PlanRow[]) {
    this.#root = root;
    this.#rows = rows;
  }

  /** What keeps a path from being reached, or null. */
  above(path: string): LocalFile | null {
    const slash = path.lastIndexOf("/");
    if (slash === -1) return null;
    const folder = path.slice(0, slash);
    if (folder === this.#last) return this.#lastFound;
    this.#lastFound = this.#folder(folder);
    // Only then: a look that was not allowed says nothing of the next file in it.
    this.#last = folder;
    return this.#lastFound;
  }

  #folder(folder: string): LocalFile | null {
    const known = this.#known.get(folder);
    if (known !== undefined) return known;
    const slash = folder.lastIndexOf("/");
    const outer = slash === -1 ? null : this.#folder(folder.slice(0, slash));
    const found = outer ?? this.#look(folder);
    this.#known.set(folder, found);
    return found;
  }

  #look(folder: string): LocalFile | null {
    const stat = look(this.#root, folder);
    if (stat === undefined) return MISSING;
    if (stat.isDirectory()) return null;
    if (stat.isSymbolicLink()) return { kind: "blocked", problem: `its folder ${folder} is a symbolic link` };
    // A file of ours may become a folder: whether it goes is for the plan to find out.
    this.#recorded ??= new Set(this.#rows.flatMap((row) => (row.recorded === null ? [] : [row.path])));
    return this.#recorded.has(folder)
      ? MISSING
      : { kind: "blocked", problem: `${folder}, which is not ours, stands where a folder is needed` };
  }
}

/**
 * The cache for the list of files that an observation ends in: what is known of each, by its path. `changed` holds
 * fresh looks at files that were put in place since.
 */
export function nextIndex(
  files: readonly { readonly path: string }[],
  rows: readonly PlanRow[],
  observation: Observation,
  former: StatIndex,
  changed: ReadonlyMap<string, SeenStat>,
  changedAt: number,
): StatIndex {
  const index = StatIndex.empty(files.length);
  let row = 0;
  let formerPosition = -1;
  for (const [position, file] of files.entries()) {
    for (; row < rows.length; row++) {
      const here = rows[row];
      if (here === undefined || here.path > file.path) break;
      if (here.recorded !== null) formerPosition++;
      if (here.path !== file.path) continue;
      const fresh = changed.get(file.path);
      const seen = observation.seen[row];
      if (fresh !== undefined) index.set(position, fresh, changedAt);
      else if (seen === null) index.copy(position, former, formerPosition);
      else if (seen !== undefined && isAs(observation.locals[row], here))
        index.set(position, seen, observation.at);
      row++;
      break;
    }
  }
  return index;
}

/** Whether what was read is what will be recorded: an edited file that stays must be read again each time. */
function isAs(local: LocalFile | undefined, row: PlanRow): boolean {
  if (local?.kind !== "file") return false;
  const entry = row.target ?? row.recorded;
  return (
    entry !== null && local.sha256 === entry.sha256 && local.size === entry.size && local.mode === entry.mode
  );
}
