import { createHash } from "node:crypto";
import { dirname } from "node:path";
import {
  APPLY_LAYOUT,
  COMMIT_DIRECTIONS,
  type CommitBody,
  type CommitEntry,
  checkPath,
  type FileMark,
  formatCommitBody,
  formatCommitHead,
  markOf,
  type PlannedEntry,
  planChange,
  revisionFileName,
  STAGING_NAMES,
  type Survey,
} from "@lockstep/core";
import { type FileStat, systemErrorCode } from "@lockstep/platform";
import { LockstepError } from "@lockstep/protocol/wire";
import { attempt } from "./failure.ts";
import { Places } from "./places.ts";
import { formatRevisionFile, REVISION_FILE_MODE } from "./revision-file.ts";
import { keepSecondName } from "./second-name.ts";
import { demandChangeable, demandSpace, surveyInstallation } from "./survey.ts";
import type { ApplyContext, CommitRequest, Operation } from "./types.ts";

const STATE_FILE_MODE = 0o644;
const RECORD_MODE = 0o600;
/** Room for directory entries and for what other programs write meanwhile. */
const SPARE_BYTES = 1 << 20;
const ENTRY_BYTES = 4096;
/** Of a file that is gone when it is looked at: no other one has it. */
const NO_MARK: FileMark = "0.0.0";

const utf8 = new TextEncoder();

export interface LayOutRequest extends CommitRequest {
  /** What is put is what stood there before, so it may be a link that somebody had put in a file's place. */
  readonly restoring?: boolean;
}

/**
 * Lays out everything that an update needs in its staging directory and makes it durable: new files with their modes,
 * the former files, the next state and revision file, and the record with all its heads. After it, the switch needs no
 * more space and nothing that could be lost. Nothing of the installation has changed.
 *
 * Throws PATH_REFUSED, INSTALLATION_CONFLICT or another INSTALLATION_*.
 */
export async function layOut(ctx: ApplyContext, request: LayOutRequest): Promise<CommitBody> {
  const { operations, staging } = request;
  refusePaths(operations);
  const survey = surveyInstallation(ctx, operations);
  const plan = planChange(operations, survey, request.restoring === true);
  if (plan.kind === "conflict")
    throw new LockstepError("INSTALLATION_CONFLICT", "the update would touch what is not the product's", {
      faults: plan.conflicts.map(({ path, problem }) => ({ where: path, problem })),
      hint: "Move these files elsewhere, then try again. Nothing was changed.",
    });
  const { change } = plan;
  const paths = change.entries.map(({ path }) => path);
  demandChangeable(ctx, [APPLY_LAYOUT.state, ...paths, ...change.clear.map(({ path }) => path)], survey);
  demandSpace(ctx, request.state.length + ENTRY_BYTES * change.entries.length + SPARE_BYTES);

  const layer = new Layer(ctx, request);
  layer.checkNewFiles();
  const entries = layer.keepFormerFiles(change.entries, survey);
  const former = layer.keepFormerState();
  const formerRevision = layer.lookAtFormerRevision();
  const newState = layer.writeState();
  const body: CommitBody = {
    ...change,
    entries,
    id: staging.id,
    from: request.from,
    to: request.to,
    startedAt: request.startedAt,
    state: former ?? { former: "none", mark: newState, copy: null },
    formerRevision,
  };
  layer.writeRecord(body);
  await layer.makeDurable();
  return body;
}

/** The grammar was held against these paths when they were loaded; here it does not matter by whom (behaviour B1). */
function refusePaths(operations: readonly Operation[]): void {
  const faults = operations.flatMap(({ path }) => {
    const fault = checkPath(path);
    return fault === null ? [] : [{ where: path, problem: fault.problem }];
  });
  if (faults.length > 0)
    throw new LockstepError("PATH_REFUSED", "the update names paths that no installation accepts", {
      faults,
      hint: "Nothing was changed. Look at who can write to the hub.",
    });
}

/** One pass over a staging directory; remembers what must be made durable. */
class Layer {
  readonly #ctx: ApplyContext;
  readonly #request: LayOutRequest;
  readonly #places: Places;
  readonly #written: string[] = [];
  readonly #stagedMarks = new Map<number, FileMark>();

  constructor(ctx: ApplyContext, request: LayOutRequest) {
    this.#ctx = ctx;
    this.#request = request;
    this.#places = new Places(ctx.disk, ctx.root);
  }

  /** Every new file is there, is plain, and gets its mode. */
  checkNewFiles(): void {
    const { disk } = this.#ctx;
    for (const operation of this.#request.operations) {
      if (operation.kind !== "put") continue;
      const path = this.#request.staging.pathFor(operation.n);
      const stat = attempt("look at", path, () => disk.lstat(path));
      if (stat !== null) this.#stagedMarks.set(operation.n, markOf(stat));
      // A rollback puts links back that the former version's files had been replaced by.
      if (stat?.kind === "link" && this.#request.restoring === true) continue;
      if (stat?.kind !== "file")
        throw new LockstepError(
          "INSTALLATION_IO_FAILED",
          `${path} is not the staged file of ${operation.path}`,
          {
            expected: "file",
            found: stat?.kind ?? "nothing",
            hint: "Another program changed the private directory. Try again.",
          },
        );
      if (stat.mode !== operation.mode && !disk.windows)
        attempt("set the mode of", path, () => disk.changeMode(path, operation.mode));
      this.#written.push(path);
    }
  }

  /** Gives every former file a second name, or copies it where there are none. Returns the entries saying which. */
  keepFormerFiles(entries: readonly PlannedEntry[], survey: Survey): CommitEntry[] {
    return entries.map((entry) => {
      if (entry.former === "none")
        return { ...entry, mark: this.#stagedMarks.get(entry.n) ?? NO_MARK, copy: null };
      const from = this.#places.at(entry.formerPath ?? entry.path);
      return { ...entry, ...this.#keep(from, `${STAGING_NAMES.old}/${entry.n}`, entry, survey) };
    });
  }

  #keep(from: string, name: string, entry: PlannedEntry, survey: Survey): CommitBody["state"] {
    const { disk } = this.#ctx;
    return attempt("keep", from, () => {
      const stat = disk.lstat(from);
      if (stat === null) throw changedMeanwhile(from);
      const kept = this.#second(from, name, stat);
      // Where a file's number depends on its name, a second name cannot prove later what the first one was.
      if (entry.kind === "put" || kept.former === "copied") return kept;
      const linked = disk.lstat(this.#own(name));
      const standing = survey.at.get(entry.formerPath ?? entry.path);
      return linked === null || `${linked.dev}:${linked.ino}` === standing?.identity
        ? kept
        : { former: "copied", mark: kept.mark, copy: markOf(linked) };
    });
  }

  /** Null where none stands there. */
  keepFormerState(): CommitBody["state"] | null {
    const { disk } = this.#ctx;
    const from = this.#places.at(APPLY_LAYOUT.state);
    return attempt("keep", from, () => {
      const stat = disk.lstat(from);
      if (stat === null) return null;
      if (stat.kind !== "file")
        throw new LockstepError("INSTALLATION_CONFLICT", `${from} is not a file`, {
          expected: "file",
          found: stat.kind,
          hint: "Move it elsewhere and restore the file, then try again. Nothing was changed.",
        });
      return this.#second(from, STAGING_NAMES.formerState, stat);
    });
  }

  /** It is replaced at the very end, when nothing can be taken back any more: so it is asked about now. */
  lookAtFormerRevision(): FileMark | null {
    const { disk } = this.#ctx;
    const path = this.#places.at(revisionFileName(disk.windows));
    return attempt("look at", path, () => {
      const stat = disk.lstat(path);
      if (stat === null) return null;
      this.#demandReplaceable(path, stat);
      return markOf(stat);
    });
  }

  writeState(): FileMark {
    this.#write(STAGING_NAMES.state, this.#request.state, STATE_FILE_MODE);
    const path = this.#own(STAGING_NAMES.state);
    const stat = attempt("look at", path, () => this.#ctx.disk.lstat(path));
    return stat === null ? NO_MARK : markOf(stat);
  }

  writeRecord(body: CommitBody): void {
    const { to: revision, startedAt } = this.#request;
    const revisionText = formatRevisionFile({ revision, startedAt });
    this.#write(STAGING_NAMES.revision, utf8.encode(revisionText), REVISION_FILE_MODE);
    const text = utf8.encode(formatCommitBody(body));
    this.#write(STAGING_NAMES.body, text, RECORD_MODE);
    const sha256 = createHash("sha256").update(text).digest("hex");
    for (const direction of COMMIT_DIRECTIONS) {
      const head = formatCommitHead({ id: body.id, direction, body: sha256 });
      this.#write(STAGING_NAMES.head[direction], utf8.encode(head), RECORD_MODE);
    }
  }

  /** Content first, then names; everything that is new, and the private directories whether they are new or not. */
  async makeDurable(): Promise<void> {
    const { disk, root } = this.#ctx;
    const directory = this.#request.staging.directory;
    try {
      await disk.syncFiles(this.#written);
      // Also those that stood before: an updater that was killed may have made them without making them durable.
      await disk.syncDirectories([
        this.#own(STAGING_NAMES.new),
        this.#own(STAGING_NAMES.old),
        directory,
        this.#places.at(APPLY_LAYOUT.stagings),
        this.#places.at(APPLY_LAYOUT.private),
        root,
      ]);
      if (this.#request.from === null) await this.#makeRootDurable();
    } catch (error) {
      attempt("make durable what is staged in", directory, () => {
        throw error;
      });
    }
  }

  /** The first time, the installation directory itself may be new; it stands in one that need not be ours to read. */
  async #makeRootDurable(): Promise<void> {
    try {
      await this.#ctx.disk.syncDirectories([dirname(this.#ctx.root)]);
    } catch (error) {
      if (!["EACCES", "EPERM"].includes(systemErrorCode(error) ?? "")) throw error;
    }
  }

  #own(name: string): string {
    return `${this.#request.staging.directory}/${name}`;
  }

  #write(name: string, bytes: Uint8Array, mode: number): void {
    const path = this.#own(name);
    attempt("write", path, () => this.#ctx.disk.writeFile(path, bytes, mode));
    this.#written.push(path);
  }

  /** Keeps a file under a name of the staging directory. */
  #second(from: string, name: string, stat: FileStat): CommitBody["state"] {
    const { disk } = this.#ctx;
    const to = this.#own(name);
    // An immutable file can have no second name, like any file where there are none: this tells the two apart.
    const how = keepSecondName(disk, from, to, stat, () => this.#demandReplaceable(from, stat));
    const mark = markOf(stat);
    if (how === "linked") return { former: "linked", mark, copy: null };
    if (stat.kind === "file") this.#written.push(to);
    const copy = disk.lstat(to);
    return { former: "copied", mark, copy: copy === null ? NO_MARK : markOf(copy) };
  }

  #demandReplaceable(path: string, stat: FileStat): void {
    if (stat.kind !== "file") return;
    try {
      this.#ctx.disk.demandReplaceable(path);
    } catch (error) {
      throw new LockstepError("INSTALLATION_NOT_WRITABLE", `${path} is marked immutable`, {
        expected: "a file that can be replaced",
        ...(systemErrorCode(error) === null ? {} : { found: systemErrorCode(error) ?? "" }),
        hint: `Take the mark away (Linux: chattr -i ${path}), then try again. Nothing was changed.`,
        cause: error,
      });
    }
  }
}

function changedMeanwhile(path: string): LockstepError {
  return new LockstepError("INSTALLATION_FILE_IN_USE", `${path} disappeared while the update was prepared`, {
    hint: "Another program changes the installation. Try again when it has ended. Nothing was changed.",
  });
}
