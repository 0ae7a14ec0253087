import type { CommitChange, CommitDirectory, CommitEntry, Former } from "./apply.ts";
import { isSha256, type Sha256 } from "./file.ts";
import { type FileMark, isFileMark } from "./file-mark.ts";
import { checkPath } from "./path.ts";

/**
 * The commit record as text.
 *
 * It has two parts. The *body* lists everything that is done; it can be long, lies in the staging directory and is
 * durable before anything happens. The *head* names the body by its digest and says in which direction to go; it is so
 * small that it exists in three versions from the beginning, and its rename to `commit.json` is the one atomic point:
 * the same rename of another version turns the update back or declares it final, without needing a byte of new space.
 *
 * A head is only ever renamed into place after it was made durable, so a torn one means that the disk or somebody has
 * damaged it. Both parts are read back as strictly as they were written: a head must be the very text that we would
 * write for its values, a body must have the digest that the head names. Anything else is reported and nothing touched.
 */
export const COMMIT_FORMAT = "lockstep-commit/1";

/** `forward`: switch, then ask whether it holds. `back`: undo. `finish`: it holds, only the end is missing. */
export type CommitDirection = "forward" | "back" | "finish";
export const COMMIT_DIRECTIONS: readonly CommitDirection[] = ["forward", "back", "finish"];

/** The content of commit.json. */
export interface CommitHead {
  readonly id: string;
  readonly direction: CommitDirection;
  /** Digest of the body's bytes. */
  readonly body: Sha256;
}

/** The content of body.json: which update it is, and all that it changes. */
export interface CommitBody extends CommitChange {
  readonly id: string;
  readonly from: number | null;
  readonly to: number;
  /** Milliseconds since 1970, UTC. */
  readonly startedAt: number;
  /** What becomes of the InstallState.config that stands there before. */
  readonly state: Pick<CommitEntry, "former" | "mark" | "copy">;
  /** Of the revision file that stands there before; null where none does. */
  readonly formerRevision: FileMark | null;
}

const FORMERS: readonly Former[] = ["none", "linked", "copied"];
const ID_PATTERN = /^[a-z0-9][a-z0-9-]{0,63}$/;

/** Whether a text can name a staging directory. */
export function isCommitId(text: unknown): text is string {
  return typeof text === "string" && ID_PATTERN.test(text);
}

/** Writes a head. */
export function formatCommitHead(head: CommitHead): string {
  const { id, direction, body } = head;
  return `${JSON.stringify({ format: COMMIT_FORMAT, id, direction, body })}\n`;
}

/** Reads a head. Returns null when the text is not exactly what `formatCommitHead` writes for some head. */
export function parseCommitHead(text: string): CommitHead | null {
  const found = parseJson(text);
  if (!isObject(found)) return null;
  const { id, direction, body } = found;
  const known = COMMIT_DIRECTIONS.find((each) => each === direction);
  if (!isCommitId(id) || known === undefined || !isSha256(body)) return null;
  const head = { id, direction: known, body };
  return formatCommitHead(head) === text ? head : null;
}

/** Writes a body: one JSON document, one entry a line. */
export function formatCommitBody(body: CommitBody): string {
  const { id, from, to, startedAt, state, formerRevision, entries, make, makeLate, clear } = body;
  const rows = (list: readonly unknown[]) =>
    list.length === 0 ? "[]" : `[\n${list.map((each) => JSON.stringify(each)).join(",\n")}\n]`;
  const directories = (list: readonly CommitDirectory[]) => rows(list.map(({ path, mode }) => [path, mode]));
  const files = entries.map((each) => [
    each.n,
    each.kind,
    each.path,
    each.former,
    each.formerPath,
    each.mark,
    each.copy,
  ]);
  const stateRow = [state.former, state.mark, state.copy];
  const head = JSON.stringify({
    format: COMMIT_FORMAT,
    id,
    from,
    to,
    startedAt,
    state: stateRow,
    formerRevision,
  });
  return `${head.slice(0, -1)},
"entries":${rows(files)},
"make":${directories(make)},
"makeLate":${directories(makeLate)},
"clear":${directories(clear)}}
`;
}

/** Reads a body whose digest was verified. Returns null when it is none of ours all the same. */
export function parseCommitBody(text: string): CommitBody | null {
  const found = parseJson(text);
  if (!isObject(found) || found.format !== COMMIT_FORMAT) return null;
  const { id, from, to, startedAt, formerRevision } = found;
  if (!isCommitId(id) || !(from === null || isCount(from)) || !isCount(to) || !isCount(startedAt))
    return null;
  if (!(formerRevision === null || isFileMark(formerRevision))) return null;
  const state = Array.isArray(found.state) ? parseKeeping(found.state) : null;
  const entries = parseList(found.entries, parseEntry);
  const make = parseList(found.make, parseDirectory);
  const makeLate = parseList(found.makeLate, parseDirectory);
  const clear = parseList(found.clear, parseDirectory);
  if (state === null || entries === null || make === null || makeLate === null || clear === null) return null;
  return { id, from, to, startedAt, state, formerRevision, entries, make, makeLate, clear };
}

function parseEntry(row: unknown): CommitEntry | null {
  if (!Array.isArray(row) || row.length !== 7) return null;
  const [n, kind, path, former, formerPath, mark, copy] = row as unknown[];
  if (!isCount(n) || (kind !== "put" && kind !== "remove") || !isPath(path)) return null;
  const keeping = parseKeeping([former, mark, copy]);
  if (keeping === null || !(formerPath === null || isPath(formerPath))) return null;
  return { n, kind, path, formerPath, ...keeping };
}

/** What is said of a former file; a mark of its copy where, and only where, it was copied. */
function parseKeeping(row: readonly unknown[]): CommitBody["state"] | null {
  const [former, mark, copy] = row;
  const known = FORMERS.find((each) => each === former);
  if (row.length !== 3 || known === undefined || !isFileMark(mark)) return null;
  if (!(copy === null || isFileMark(copy)) || (copy !== null) !== (known === "copied")) return null;
  return { former: known, mark, copy };
}

function parseDirectory(row: unknown): CommitDirectory | null {
  if (!Array.isArray(row) || row.length !== 2) return null;
  const [path, mode] = row as unknown[];
  return isPath(path) && isCount(mode) && mode <= 0o777 ? { path, mode } : null;
}

function parseList<T>(rows: unknown, parse: (row: unknown) => T | null): T[] | null {
  if (!Array.isArray(rows)) return null;
  const list: T[] = [];
  for (const row of rows as unknown[]) {
    const item = parse(row);
    if (item === null) return null;
    list.push(item);
  }
  return list;
}

/** What a recovery found: the head's text, and the body with its digest in staging/<id> and in previous/. */
export interface FoundRecord {
  readonly head: CommitHead;
  readonly staged: FoundBody | null;
  readonly previous: FoundBody | null;
}

export interface FoundBody {
  readonly text: string;
  readonly sha256: Sha256;
}

export type RecoveryDecision =
  | { readonly kind: "carry-out"; readonly direction: CommitDirection; readonly body: CommitBody }
  /** Everything is done but the removal of the head. */
  | { readonly kind: "drop"; readonly body: CommitBody }
  | { readonly kind: "damaged"; readonly problem: string };

/** Decides what a record that was found demands. Never guesses: what does not fit together is damage. */
export function decideRecovery(found: FoundRecord): RecoveryDecision {
  const { head, staged, previous } = found;
  const body = staged ?? (head.direction === "finish" ? previous : null);
  if (body === null)
    return { kind: "damaged", problem: `the record's body in staging/${head.id} is missing` };
  if (body.sha256 !== head.body)
    return { kind: "damaged", problem: "the record's body is not the one that its head names" };
  const parsed = parseCommitBody(body.text);
  if (parsed === null || parsed.id !== head.id)
    return { kind: "damaged", problem: "the record's body is not one that this version writes" };
  // The staging directory has become previous/: the last act but one of an update that holds.
  if (staged === null) return { kind: "drop", body: parsed };
  return { kind: "carry-out", direction: head.direction, body: parsed };
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isCount(value: unknown): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}

function isPath(value: unknown): value is string {
  return typeof value === "string" && checkPath(value) === null;
}
