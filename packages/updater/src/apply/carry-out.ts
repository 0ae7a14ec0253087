import {
  APPLY_LAYOUT,
  type ApplyStep,
  type FileMark,
  markOf,
  mayBeSame,
  parentOf,
  parentsOf,
  parseCommitHead,
} from "@lockstep/core";
import { type FileStat, isSameFile, systemErrorCode } from "@lockstep/platform";
import { LockstepError } from "@lockstep/protocol/wire";
import { installationError, lostError } from "./failure.ts";
import { Places } from "./places.ts";
import type { ApplyContext } from "./types.ts";

/**
 * Carries steps out on a disk. Each step first looks at what is there, or tries and then looks, so that it may have been
 * done already, wholly or not at all; which of the two is nobody's memory but the disk's.
 */
export class Carrier {
  readonly #ctx: ApplyContext;
  readonly #places: Places;

  constructor(ctx: ApplyContext) {
    this.#ctx = ctx;
    this.#places = new Places(ctx.disk, ctx.root);
  }

  get places(): Places {
    return this.#places;
  }

  /** What could not be restored because it is gone from where it was kept. */
  readonly lost: { readonly path: string; readonly from: string }[] = [];

  /** Carries all steps out in their order. Throws INSTALLATION_* at the first that fails; the rest is not begun. */
  async carryOut(steps: readonly ApplyStep[]): Promise<void> {
    for (const step of steps) {
      try {
        // Between two renames of a switch no other work of this process may delay the next.
        if (step.do === "sync") await this.#sync(step.directories);
        else this.#act(step);
      } catch (error) {
        throw installationError(error, DOING[step.do], describe(step, this.#ctx.root));
      }
    }
  }

  #act(step: Exclude<ApplyStep, { do: "sync" }>): void {
    switch (step.do) {
      case "make-directory":
        this.#makeDirectory(step);
        break;
      case "remove-directory":
        this.#removeDirectory(step);
        break;
      case "turn":
        this.#turn(step);
        break;
      case "put":
        this.#put(step);
        break;
      case "move":
        this.#rename(step.from, step.to);
        break;
      case "restore":
        this.#restore(step);
        break;
      case "remove-kept":
        this.#removeKept(step);
        break;
      case "take-out":
        this.#takeOut(step);
        break;
      case "drop-head":
        this.#dropHead(step);
        break;
      default:
        unreachable(step);
    }
  }

  #removeKept(step: Extract<ApplyStep, { do: "remove-kept" }>): void {
    const { disk, log } = this.#ctx;
    // Behind a link stands nothing of ours; on a second pass it can be the one that this update put there.
    const path = this.#places.reach(step.path);
    const standing = path === null ? null : disk.lstat(path);
    // A directory is the next version's, or somebody's.
    if (path === null || standing === null || standing.kind === "directory") return;
    const from = this.#places.at(step.kept);
    const kept = disk.lstat(from);
    const mayBe = mayBeSame(markOf(standing), step.mark);
    if (kept === null && mayBe) throw lostError(this.#ctx.root, [{ path: step.path, from }]);
    const isKept = kept !== null && (step.copied ? mayBe : isSameFile(kept, standing));
    if (isKept) disk.unlink(path);
    else log.warn("a file appeared where one was to be removed; it stays", { path });
  }

  #takeOut(step: Extract<ApplyStep, { do: "take-out" }>): void {
    const { disk } = this.#ctx;
    // Behind a link stands nothing of ours: the link itself was there before, in the place of a file.
    const path = this.#places.reach(step.path);
    const standing = path === null ? null : disk.lstat(path);
    if (path === null || standing === null || standing.kind === "directory") return;
    const staged = disk.lstat(this.#places.at(step.staged));
    // Still staged: what stands there did not come from us, unless it is the same file under both names.
    const isOurs = staged === null ? mayBeSame(markOf(standing), step.mark) : isSameFile(staged, standing);
    if (isOurs) disk.unlink(path);
  }

  #dropHead(step: Extract<ApplyStep, { do: "drop-head" }>): void {
    const { disk, log } = this.#ctx;
    const head = this.#places.at(APPLY_LAYOUT.head);
    if (disk.lstat(head) === null) return;
    const keeper = step.retired === null ? null : disk.lstat(this.#places.at(parentOf(step.retired)));
    // Where previous/ was cleared away meanwhile there is nothing to go back to, and nothing that a record would tell.
    if (step.retired === null || keeper?.kind !== "directory") {
      disk.unlink(head);
      return;
    }
    disk.rename(head, this.#places.at(step.retired));
    try {
      // Both names can have been one file already, half of an earlier rename; then a rename does nothing.
      if (disk.lstat(head) !== null) disk.unlink(head);
    } catch (error) {
      // If it is still there, the next recovery finds that everything is done and drops it.
      log.warn("the commit record could not be looked at once more", { path: head, error });
    }
  }

  #makeDirectory(step: Extract<ApplyStep, { do: "make-directory" }>): void {
    const { disk } = this.#ctx;
    const path = this.#places.at(step.path);
    const kind = disk.lstat(path)?.kind;
    if (kind === "directory") return;
    if (kind !== undefined && step.aside) this.#setAside(path);
    disk.makeDirectory(path, step.mode);
  }

  #removeDirectory(step: Extract<ApplyStep, { do: "remove-directory" }>): void {
    const path = this.#places.reach(step.path);
    if (path === null || this.#ctx.disk.lstat(path)?.kind !== "directory") return;
    try {
      this.#ctx.disk.removeDirectory(path);
      this.#places.forget(step.path);
    } catch (error) {
      // Some systems say EEXIST.
      const notEmpty = ["ENOTEMPTY", "EEXIST"].includes(systemErrorCode(error) ?? "");
      if (step.notEmpty === "leave") {
        if (!notEmpty) this.#ctx.log.warn("an empty directory could not be removed", { path, error });
        return;
      }
      if (!notEmpty) throw error;
      throw new LockstepError("INSTALLATION_CONFLICT", `${path} holds files that are not the product's`, {
        hint: "A file of the new version takes the place of this directory. Move them elsewhere, then try again.",
        cause: error,
      });
    }
  }

  #turn(step: Extract<ApplyStep, { do: "turn" }>): void {
    if (this.#rename(step.from, APPLY_LAYOUT.head)) return;
    const { disk, root } = this.#ctx;
    const inForce = this.#places.at(APPLY_LAYOUT.head);
    const head =
      disk.lstat(inForce)?.kind === "file" ? parseCommitHead(utf8.decode(disk.readFile(inForce))) : null;
    if (head?.id === step.id && head.direction === step.direction) return;
    throw lostError(root, [{ path: APPLY_LAYOUT.head, from: this.#places.at(step.from) }]);
  }

  #put(step: Extract<ApplyStep, { do: "put" }>): void {
    const { disk, root } = this.#ctx;
    const from = this.#places.at(step.from);
    if (step.instead !== null && disk.lstat(from) !== null) this.#unlinkIfThere(step.instead);
    if (this.#rename(step.from, step.to)) return;
    const standing = disk.lstat(this.#places.at(step.to));
    const done =
      standing !== null &&
      standing.kind !== "directory" &&
      (step.mark === null ? markOf(standing) !== step.former : mayBeSame(markOf(standing), step.mark));
    if (!done) throw lostError(root, [{ path: step.to, from }]);
  }

  /** False when `from` is gone. Anything else, a missing directory above `to` included, is a failure. */
  #rename(from: string, to: string): boolean {
    const { disk } = this.#ctx;
    const source = this.#places.at(from);
    try {
      disk.rename(source, this.#places.at(to));
      return true;
    } catch (error) {
      if (systemErrorCode(error) !== "ENOENT" || disk.lstat(source) !== null) throw error;
      return false;
    }
  }

  #restore(step: Extract<ApplyStep, { do: "restore" }>): void {
    const { disk } = this.#ctx;
    const from = this.#places.at(step.kept);
    const to = this.#places.at(step.to);
    const kept = disk.lstat(from);
    const standing = disk.lstat(to);
    if (kept === null) {
      if (standing === null || !isBack(standing, step)) this.lost.push({ path: step.to, from });
      return;
    }
    if (standing !== null && neverLeft(standing, kept, step.mark)) return;
    this.#clearPlace(step.to, to);
    if (step.instead !== null) this.#unlinkIfThere(step.instead);
    disk.rename(from, to);
  }

  #unlinkIfThere(path: string): void {
    const absolute = this.#places.at(path);
    if (this.#ctx.disk.lstat(absolute) !== null) this.#ctx.disk.unlink(absolute);
  }

  /** What stood somewhere before comes back there, whatever happened to the place meanwhile. */
  #clearPlace(to: string, absolute: string): void {
    const { disk } = this.#ctx;
    for (const parent of parentsOf(to)) {
      const directory = this.#places.at(parent);
      const kind = disk.lstat(directory)?.kind;
      if (kind === "directory") continue;
      if (kind !== undefined) this.#setAside(directory);
      disk.makeDirectory(directory, 0o755);
    }
    if (disk.lstat(absolute)?.kind === "directory") this.#setAside(absolute);
  }

  #setAside(path: string): void {
    const { disk } = this.#ctx;
    let tried = 1;
    while (disk.lstat(`${path}.kept-${tried}`) !== null) tried++;
    const aside = `${path}.kept-${tried}`;
    disk.rename(path, aside);
    this.#places.forget();
    this.#ctx.log.warn("something stood in the way of a file that was restored; it was set aside", {
      path,
      aside,
    });
  }

  async #sync(directories: readonly string[]): Promise<void> {
    const { disk } = this.#ctx;
    const standing = directories
      .map((directory) => this.#places.reach(directory))
      .filter((directory) => directory !== null)
      .filter((directory) => disk.lstat(directory)?.kind === "directory");
    await disk.syncDirectories(standing);
  }
}

/** Whether what stands somewhere is the very file that was kept, or that a copy was kept of. */
function neverLeft(standing: FileStat, kept: FileStat, mark: FileMark): boolean {
  return isSameFile(standing, kept) || markOf(standing) === mark;
}

/** Whether what stands somewhere is what was kept of it, moved back in an earlier pass, or never moved at all. */
function isBack(standing: FileStat, { mark, copy }: { mark: FileMark; copy: FileMark | null }): boolean {
  const found = markOf(standing);
  return mayBeSame(found, mark) || (copy !== null && mayBeSame(found, copy));
}

const utf8 = new TextDecoder();

const DOING: Record<ApplyStep["do"], string> = {
  "make-directory": "make",
  "remove-directory": "remove",
  turn: "put a record in force at",
  put: "put a file in place at",
  move: "put a file in place at",
  restore: "restore",
  "remove-kept": "remove",
  "take-out": "remove",
  sync: "make changes durable in",
  "drop-head": "remove",
};

function describe(step: ApplyStep, root: string): string {
  switch (step.do) {
    case "move":
    case "put":
    case "restore":
      return `${root}/${step.to}`;
    case "sync":
      return root;
    case "turn":
    case "drop-head":
      return `${root}/${APPLY_LAYOUT.head}`;
    default:
      return `${root}/${step.path}`;
  }
}

function unreachable(step: never): never {
  throw new Error(`no such step: ${JSON.stringify(step)}`);
}
