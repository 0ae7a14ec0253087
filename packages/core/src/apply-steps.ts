import { type CommitDirectory, parentOf, parentsOf } from "./apply.ts";
import type { CommitBody, CommitDirection } from "./apply-record.ts";
import type { FileMark } from "./file-mark.ts";

/**
 * The steps of an update, as data, in their order of durability.
 *
 * Three lists for the three directions of a record. Each can be carried out from the beginning again, whatever part of
 * an earlier pass reached the disk, in whatever order it did: a step looks at what it finds, and does nothing where it
 * was done already. That needs care in three places only, and the sync steps stand exactly there. A directory must be
 * durable before something is moved into it (else both the old and the new place of the file can be lost). What was
 * moved must be durable before the record changes its direction or goes. And the change of direction must be durable
 * before the first step of the new direction.
 *
 * All paths are relative to the installation directory; the empty path is the directory itself.
 */
export type ApplyStep =
  /** Makes it unless it stands there. `aside`: a file in its place is set aside rather than an error. */
  | { readonly do: "make-directory"; readonly path: string; readonly mode: number; readonly aside: boolean }
  /** Removes it if it stands there. `not-empty` says what happens then: an error, or it stays. */
  | { readonly do: "remove-directory"; readonly path: string; readonly notEmpty: "fail" | "leave" }
  /** Puts a head in force. Nothing when `from` is gone and the head in force is that of this update and direction. */
  | { readonly do: "turn"; readonly from: string; readonly id: string; readonly direction: CommitDirection }
  /**
   * Moves a new file into its place, replacing what is there. Nothing when `from` is gone and the place shows that it
   * was done; gone without that, it is lost.
   */
  | {
      readonly do: "put";
      readonly from: string;
      readonly to: string;
      /** Another spelling of `to` that is removed first: on a disk that ignores case, the same file. */
      readonly instead: string | null;
      /** Of what stood there before, so that this is what must not stand there; null where nothing did. */
      readonly former: FileMark | null;
      /** Of the file itself; null where `former` has to tell. */
      readonly mark: FileMark | null;
    }
  /** Moves something that only saves time, or only helps later. Nothing when `from` is gone. */
  | { readonly do: "move"; readonly from: string; readonly to: string }
  /**
   * Moves what was kept back to where it stood, making parents that are missing and setting aside what cannot be
   * replaced. Nothing where it stands there: it never left, or has come back already. Where neither is so and `kept` is
   * gone, it is lost.
   */
  | {
      readonly do: "restore";
      readonly kept: string;
      readonly to: string;
      readonly instead: string | null;
      /** Of the file that stood there. */
      readonly mark: FileMark;
      /** Of `kept`, where that is a copy. */
      readonly copy: FileMark | null;
    }
  /** Removes the file at `path` if it is the one that was kept: by its second name, or by its mark if that is a copy. */
  | {
      readonly do: "remove-kept";
      readonly path: string;
      readonly kept: string;
      readonly copied: boolean;
      readonly mark: FileMark;
    }
  /** Removes the file at `path` if it came from `staged`: that is the same file, or is gone and left its mark there. */
  | { readonly do: "take-out"; readonly path: string; readonly staged: string; readonly mark: FileMark }
  /** Makes the entries of these directories durable, those that exist. */
  | { readonly do: "sync"; readonly directories: readonly string[] }
  /** Takes the head out of force: keeps it as `retired`, or removes it. Nothing when it is gone. */
  | { readonly do: "drop-head"; readonly retired: string | null };

/** The staging directory goes afterwards, as a leftover, and only when the head is gone for good (clearStagings). */
const DROP_HEAD: ApplyStep = { do: "drop-head", retired: null };

/** Where everything of ours stands, relative to the installation directory. */
export const APPLY_LAYOUT = {
  private: ".lockstep",
  head: ".lockstep/commit.json",
  stagings: ".lockstep/staging",
  previous: ".lockstep/previous",
  index: ".lockstep/index",
  state: "InstallState.config",
} as const;

/** The names inside one staging directory, and so inside previous/. */
export const STAGING_NAMES = {
  /** Verified new content by operation number. */
  new: "new",
  /** What is replaced or removed, by operation number. */
  old: "old",
  body: "body.json",
  head: { forward: "head.forward.json", back: "head.back.json", finish: "head.finish.json" },
  state: "state",
  formerState: "state.former",
  revision: "revision",
  /** The stat cache, once its content is durable; until then the other name. */
  index: "index",
  unsyncedIndex: "index.new",
  /** In previous/ alone: the head, out of force. */
  retiredHead: "commit.json",
} as const;

export function stagingDirectory(id: string): string {
  return `${APPLY_LAYOUT.stagings}/${id}`;
}

/** Where a head waits until it is put in force. */
export function stagedHead(id: string, direction: CommitDirection): string {
  return `${stagingDirectory(id)}/${STAGING_NAMES.head[direction]}`;
}

/** The name of the revision file at the root of an installation (S20). */
export function revisionFileName(windows: boolean): string {
  return windows ? "softwarerevision.viv" : ".softwarerevision.viv";
}

/** Puts a head in force: the one rename that decides, and what makes it last. */
export function turnSteps(id: string, direction: CommitDirection): ApplyStep[] {
  return [
    { do: "turn", from: stagedHead(id, direction), id, direction },
    sync([APPLY_LAYOUT.private, stagingDirectory(id)]),
  ];
}

/** Everything before the switch that needs the record but shows nothing yet: empty directories. */
export function prepareSteps(body: CommitBody): ApplyStep[] {
  return makeAndSync(body.make, false);
}

/**
 * The switch itself: while these steps run, a reader can see old and new files side by side. Removals come first, since
 * a file may stand where a directory is needed. A sync is among them only where that is the case.
 */
export function switchSteps(body: CommitBody): ApplyStep[] {
  const stage = stagingDirectory(body.id);
  const removals = body.entries.filter(({ kind }) => kind === "remove");
  const puts = body.entries.filter(({ kind }) => kind === "put");
  return [
    ...removals.map(
      ({ n, path, former, mark }): ApplyStep => ({
        do: "remove-kept",
        path,
        kept: `${stage}/${STAGING_NAMES.old}/${n}`,
        copied: former === "copied",
        mark,
      }),
    ),
    ...body.clear.map(({ path }): ApplyStep => ({ do: "remove-directory", path, notEmpty: "fail" })),
    ...makeAndSync(body.makeLate, false),
    ...puts.map((entry) =>
      put(`${stage}/${STAGING_NAMES.new}/${entry.n}`, entry.path, entry, entry.formerPath),
    ),
    put(`${stage}/${STAGING_NAMES.state}`, APPLY_LAYOUT.state, body.state),
  ];
}

/** Makes the switch durable. */
export function settleSteps(body: CommitBody): ApplyStep[] {
  return [sync([...touchedDirectories(body), `${stagingDirectory(body.id)}/${STAGING_NAMES.new}`])];
}

/**
 * The way back, once the head says so: from any state between old and new to the old one. What is put back replaces
 * whatever came, so a new file is only taken out where nothing was before. What never changed is left alone: whatever
 * kept it from being changed (a mark that makes it immutable) keeps it from being restored.
 */
export function backSteps(body: CommitBody): ApplyStep[] {
  const stage = stagingDirectory(body.id);
  const takeOut = body.entries.filter(({ kind, former }) => kind === "put" && former === "none");
  const kept = body.entries.filter(({ former }) => former !== "none");
  const made = [...body.make, ...body.makeLate].sort(innerFirst);
  return [
    ...takeOut.map(
      ({ n, path, mark }): ApplyStep => ({
        do: "take-out",
        path,
        staged: `${stage}/${STAGING_NAMES.new}/${n}`,
        mark,
      }),
    ),
    ...made.map(({ path }): ApplyStep => ({ do: "remove-directory", path, notEmpty: "leave" })),
    ...makeAndSync([...body.clear].reverse(), true),
    ...kept.map(
      ({ n, path, formerPath, mark, copy }): ApplyStep => ({
        do: "restore",
        kept: `${stage}/${STAGING_NAMES.old}/${n}`,
        to: formerPath ?? path,
        instead: formerPath === null ? null : path,
        mark,
        copy,
      }),
    ),
    body.state.former === "none"
      ? {
          do: "take-out",
          path: APPLY_LAYOUT.state,
          staged: `${stage}/${STAGING_NAMES.state}`,
          mark: body.state.mark,
        }
      : {
          do: "restore",
          kept: `${stage}/${STAGING_NAMES.formerState}`,
          to: APPLY_LAYOUT.state,
          instead: null,
          mark: body.state.mark,
          copy: body.state.copy,
        },
    sync([...touchedDirectories(body), `${stage}/${STAGING_NAMES.old}`]),
  ];
}

/** The end of the way back, when nothing was found to be lost. */
export function endBackSteps(): ApplyStep[] {
  return [DROP_HEAD];
}

/** The end, once the head says that the update holds: revision file last of what others read (S26), then our own. */
export function finishSteps(body: CommitBody, revisionFile: string): ApplyStep[] {
  const stage = stagingDirectory(body.id);
  const left = leftDirectories(body);
  return [
    {
      do: "put",
      from: `${stage}/${STAGING_NAMES.revision}`,
      to: revisionFile,
      instead: null,
      former: body.formerRevision,
      mark: null,
    },
    ...left.map((path): ApplyStep => ({ do: "remove-directory", path, notEmpty: "leave" })),
    move(`${stage}/${STAGING_NAMES.index}`, APPLY_LAYOUT.index),
    // The stat cache's place is not among them: a former one that comes back does not fit the new files and is seen not to.
    sync(["", stage, ...left.map(parentOf)]),
    ...(keepsPrevious(body)
      ? [DROP_HEAD]
      : [
          // What was previous/ goes out of the way as a leftover.
          move(APPLY_LAYOUT.previous, `${stage}.former`),
          move(stage, APPLY_LAYOUT.previous),
          ...dropSteps(),
        ]),
  ];
}

/**
 * Whether previous/ stays what it is: a change within one software revision (a repair) mends what should be there, and
 * a rollback after it must lead to the former revision, not to the damage.
 */
export function keepsPrevious(body: CommitBody): boolean {
  return body.from === body.to;
}

/**
 * The very last step: the head goes out of force by becoming part of previous/. Not made durable, because nothing
 * depends on it: a head that comes back finds previous/ in place and is dropped again.
 */
export function dropSteps(): ApplyStep[] {
  return [
    // That previous/ is seen does not make it last, and without the head nothing would say what its files are.
    sync([APPLY_LAYOUT.private, APPLY_LAYOUT.stagings]),
    { do: "drop-head", retired: `${APPLY_LAYOUT.previous}/${STAGING_NAMES.retiredHead}` },
  ];
}

/** Every directory whose entries the switch or its undoing may change. */
export function touchedDirectories(body: CommitBody): string[] {
  const touched = new Set<string>(["", stagingDirectory(body.id)]);
  for (const { path, formerPath } of body.entries) {
    touched.add(parentOf(path));
    if (formerPath !== null) touched.add(parentOf(formerPath));
  }
  for (const { path } of [...body.make, ...body.makeLate, ...body.clear]) touched.add(parentOf(path));
  return [...touched];
}

/** Directories that may be empty now because files of ours went, inner ones first. */
function leftDirectories(body: CommitBody): string[] {
  const left = new Set<string>();
  for (const { kind, path } of body.entries)
    if (kind === "remove") for (const each of parentsOf(path)) left.add(each);
  return [...left].sort((a, b) => (a < b ? 1 : -1));
}

function makeAndSync(directories: readonly CommitDirectory[], aside: boolean): ApplyStep[] {
  if (directories.length === 0) return [];
  return [
    ...directories.map(({ path, mode }): ApplyStep => ({ do: "make-directory", path, mode, aside })),
    // Also on a second pass, when they stand already: what stands need not be durable.
    sync(directories.map(({ path }) => parentOf(path))),
  ];
}

function innerFirst(a: CommitDirectory, b: CommitDirectory): number {
  return a.path < b.path ? 1 : a.path > b.path ? -1 : 0;
}

function move(from: string, to: string): ApplyStep {
  return { do: "move", from, to };
}

function put(
  from: string,
  to: string,
  { former, mark }: CommitBody["state"],
  instead: string | null = null,
): ApplyStep {
  return former === "none"
    ? { do: "put", from, to, instead, former: null, mark }
    : { do: "put", from, to, instead, former: mark, mark: null };
}

function sync(directories: readonly string[]): ApplyStep {
  return { do: "sync", directories: [...new Set(directories)] };
}
