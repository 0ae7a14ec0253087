import { lstatSync, readdirSync, realpathSync, type Stats } from "node:fs";
import { join } from "node:path";
import { byPath, checkPath, compileGlob, findTwins, foldPath, type Glob, isGlobFault } from "@lockstep/core";
import { type Fault, LockstepError } from "@lockstep/protocol/wire";
import { sourceUnreadable } from "./source-changed.ts";

/** A file below the base directory, as it was when the directory was read. */
export interface SourceFile {
  /** Relative to the base directory, in the portable grammar. */
  readonly path: string;
  readonly size: number;
  /** Permission bits alone. */
  readonly mode: number;
  /** Says whether it is still the same file: times in milliseconds, and its number in the file system. */
  readonly mtimeMs: number;
  readonly ctimeMs: number;
  readonly ino: number;
}

/** What is below the base directory. */
export interface Scan {
  /** The real path of the base directory. */
  readonly base: string;
  /** Ordered by path. */
  readonly files: readonly SourceFile[];
  readonly bytes: number;
  /** Paths that `--exclude` left out; of a folder that was left out as a whole only its own, ending in a slash. */
  readonly excluded: readonly string[];
  /** Files that carried set-user-id, set-group-id or sticky bits, which never travel. */
  readonly specialModes: readonly string[];
  /** Folders without any file in them: there is nothing to load of them. */
  readonly emptyFolders: readonly string[];
}

export interface ScanOptions {
  readonly exclude: readonly string[];
  /** A file at the root that is not one of the product: the module description. */
  readonly omit: string | null;
}

/** What versioning programs keep in a working directory. Nobody means to send that to a thousand machines. */
const VERSIONING = new Set([".git", ".hg", ".svn"]);

/**
 * Reads a directory that is to be loaded. Everything in it must be a plain file or a folder under a portable name:
 * links, devices, sockets and FIFOs are refused, as are names outside the grammar and twins, all of them at once.
 * Nothing is left out silently.
 *
 * Throws LOAD_SOURCE_UNREADABLE where something cannot be read, else PATH_REFUSED where something must not be loaded,
 * USAGE for a pattern that is none.
 */
export function scanDirectory(directory: string, options: ScanOptions): Scan {
  const scanner = new Scanner(realBase(directory), options);
  scanner.walk("");
  return scanner.result();
}

function realBase(directory: string): string {
  try {
    const base = realpathSync(directory);
    if (lstatSync(base).isDirectory()) return base;
  } catch (cause) {
    throw unreadable(directory, [{ where: directory, problem: describeSystemError(cause) }], cause);
  }
  throw unreadable(directory, [{ where: directory, problem: "it is not a directory" }]);
}

function unreadable(directory: string, faults: readonly Fault[], cause?: unknown): LockstepError {
  return sourceUnreadable(`the directory ${directory}`, faults, cause);
}

class Scanner {
  readonly #base: string;
  readonly #omit: string | null;
  readonly #exclude: readonly { readonly glob: Glob; readonly foldersOnly: boolean }[];
  readonly #files: SourceFile[] = [];
  readonly #excluded: string[] = [];
  readonly #specialModes: string[] = [];
  readonly #emptyFolders: string[] = [];
  readonly #refused: Fault[] = [];
  readonly #unreadable: Fault[] = [];

  constructor(base: string, options: ScanOptions) {
    this.#base = base;
    this.#omit = options.omit;
    this.#exclude = options.exclude.map((pattern) => {
      const glob = compileGlob(pattern.replace(/\/+$/, ""));
      if (!isGlobFault(glob)) return { glob, foldersOnly: pattern.endsWith("/") };
      throw new LockstepError("USAGE", `--exclude ${JSON.stringify(pattern)}: ${glob.problem}`);
    });
  }

  /** `folder` is empty or ends in a slash. */
  walk(folder: string): void {
    const names = this.#names(folder);
    if (names === null) return;
    if (names.length === 0 && folder !== "") this.#emptyFolders.push(folder);
    for (const name of names) this.#entry(folder + name, name);
  }

  result(): Scan {
    for (const twin of findTwins(this.#files.map((file) => file.path))) {
      const problem =
        twin.kind === "same"
          ? `some systems take it for the same file as ${twin.other}`
          : `${twin.other} is a file, and some systems need a folder of that name here`;
      this.#refused.push({ where: twin.path, problem });
    }
    if (this.#unreadable.length > 0) throw unreadable(this.#base, [...this.#unreadable, ...this.#refused]);
    if (this.#refused.length > 0)
      throw new LockstepError("PATH_REFUSED", `${this.#base} holds what cannot be loaded`, {
        faults: this.#refused,
        hint: "Nothing was loaded. Rename or remove these, or leave them out by --exclude GLOB.",
      });
    return {
      base: this.#base,
      files: this.#files.sort(byPath),
      bytes: this.#files.reduce((sum, file) => sum + file.size, 0),
      excluded: this.#excluded,
      specialModes: this.#specialModes,
      emptyFolders: this.#emptyFolders,
    };
  }

  #names(folder: string): string[] | null {
    const place = join(this.#base, folder);
    try {
      const names = readdirSync(place);
      // A name that is not UTF-8 was read as something else; only its bytes tell.
      if (names.some((name) => name.includes("\ufffd"))) this.#refuseBrokenNames(place, folder);
      return names.filter((name) => !name.includes("\ufffd")).sort();
    } catch (error) {
      this.#unreadable.push({ where: folder || ".", problem: describeSystemError(error) });
      return null;
    }
  }

  #refuseBrokenNames(place: string, folder: string): void {
    for (const bytes of readdirSync(place, { encoding: "buffer" })) {
      const name = bytes.toString("utf8");
      if (!name.includes("\ufffd") || this.#isExcluded(folder + name, false)) continue;
      const broken = !Buffer.from(name, "utf8").equals(bytes);
      const problem = broken ? "its name is not UTF-8" : "its name holds the replacement character U+FFFD";
      this.#refused.push({ where: folder + name, problem });
    }
  }

  #entry(path: string, name: string): void {
    let stat: Stats;
    try {
      stat = lstatSync(join(this.#base, path));
    } catch (error) {
      this.#unreadable.push({ where: path, problem: describeSystemError(error) });
      return;
    }
    const isFolder = stat.isDirectory();
    if (path === this.#omit || this.#isExcluded(path, isFolder)) return;
    const fault = VERSIONING.has(foldPath(name))
      ? `it belongs to a version control system; leave it out by --exclude '**/${name}'`
      : (refusedKind(stat) ?? checkPath(path)?.problem);
    if (fault !== undefined) this.#refused.push({ where: path, problem: fault });
    else if (isFolder) this.walk(`${path}/`);
    else this.#file(path, stat);
  }

  #isExcluded(path: string, isFolder: boolean): boolean {
    const excluded = this.#exclude.some((rule) => (isFolder || !rule.foldersOnly) && rule.glob.matches(path));
    if (excluded) this.#excluded.push(isFolder ? `${path}/` : path);
    return excluded;
  }

  #file(path: string, stat: Stats): void {
    if ((stat.mode & 0o7000) !== 0) this.#specialModes.push(path);
    // Windows knows no permission bits; what its files need elsewhere is the module description's to say.
    const mode = process.platform === "win32" ? 0o644 : stat.mode & 0o777;
    const { size, mtimeMs, ctimeMs, ino } = stat;
    this.#files.push({ path, size, mode, mtimeMs, ctimeMs, ino });
  }
}

function refusedKind(stat: Stats): string | undefined {
  if (stat.isFile() || stat.isDirectory()) return undefined;
  const kind = stat.isSymbolicLink()
    ? "a symbolic link"
    : stat.isFIFO()
      ? "a FIFO"
      : stat.isSocket()
        ? "a socket"
        : "a device";
  return `it is ${kind}; only plain files and folders can be loaded`;
}

/** `EACCES: permission denied, open '/x'` without what the place says already. */
function describeSystemError(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return text.replace(/,? *(?:scandir|open|lstat|realpath|read)(?: '.*')?$/s, "");
}
