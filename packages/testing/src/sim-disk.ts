import { foldPath } from "@lockstep/core";
import { type Disk, type FileStat, systemErrorCode } from "@lockstep/platform";
import { afterPowerCut, type PowerCutOptions } from "./power-cut.ts";
import type { Prng } from "./prng.ts";
import { type Entry, type Inode, Journal, newInode } from "./sim-journal.ts";

/**
 * A disk in memory that forgets.
 *
 * It holds two states: what programs see, and what would be found after the power fails. Whatever a program does changes
 * the first; only a sync carries it to the second. `kill` ends the program alone: what was seen stays seen, durable or
 * not. `cutPower` leaves one of the states that the model allows:
 *
 * - Every change of directories (make, remove, create, link, rename, unlink) is atomic, also a rename between two
 *   directories.
 * - Model `any-subset`: each such change is lost or kept by itself, until *every* directory that it changed has been
 *   synced since. Nothing is ordered: a file can be in a directory that is lost, and then is lost with it. Syncing a file
 *   says nothing about its name.
 * - Model `ordered-journal` (ext4, xfs): changes survive in the order in which they were made, up to some moment; a
 *   sync of anything is a moment.
 * - Content and mode of a file, until that file is synced: the last synced state, the present one, or torn (cut short,
 *   or with zeros at its end), each of content and mode by itself; a file never synced may be empty.
 * - A sync that fails makes content worthless: a later one succeeds and still nothing is durable.
 * - With `tornRenames`, a rename of a file may survive as its first half: both names.
 *
 * Both models are stricter than journaling file systems are, so what survives here survives there. Not modelled: bit
 * rot of what was synced, and a device that lies about its cache.
 *
 * It also fills up, has no hard links, ignores case, refuses to change directories without write permission, and fails
 * or dies at the n-th call, each where asked to.
 */
export interface SimDiskOptions extends PowerCutOptions {
  readonly ignoresCase: boolean;
  /** The error code with which `link` fails; null where links work. */
  readonly linkError: string | null;
  readonly capacityBytes: number;
}

export const SIM_DISK_DEFAULTS: SimDiskOptions = {
  model: "any-subset",
  tornRenames: false,
  ignoresCase: false,
  linkError: null,
  capacityBytes: Number.POSITIVE_INFINITY,
};

/** Thrown by every call once the simulated machine or program has died. */
export class SimCrash extends Error {
  constructor() {
    super("the simulated program has died");
    this.name = "SimCrash";
  }
}

/** What happens at a call: the program dies before it acts, or it fails with a code; `lasting`: and all after it. */
export type SimFailure = { readonly call: number } & (
  | { readonly code: string; readonly lasting?: boolean }
  | { readonly dies: true }
);

/** What stands in a tree, by path relative to the directory that was asked for. */
export type SimTree = Map<string, string>;

const INODE_BYTES = 256;
const NAME_BYTES = 64;
const LINKS_FOLLOWED_MAX = 20;

export class SimDisk implements Disk {
  readonly windows = false;
  readonly options: SimDiskOptions;
  /** Files that a program holds open, as on Windows. */
  readonly held = new Set<string>();
  /** By inode: files that nobody may link, rename, replace or remove; and whether the system tells so beforehand. */
  readonly #locked = new Map<number, { readonly foreseen: boolean }>();
  #journal: Journal;
  #calls = 0;
  #failures: readonly SimFailure[] = [];
  #dead = false;

  constructor(options: Partial<SimDiskOptions> = {}) {
    this.options = { ...SIM_DISK_DEFAULTS, ...options };
    this.#journal = new Journal();
  }

  /** Bytes in use. */
  get usedBytes(): number {
    return this.#journal.usedBytes(INODE_BYTES, NAME_BYTES);
  }

  /** An independent disk in the same state, without planned failures, perhaps of another size. */
  clone(capacityBytes = this.options.capacityBytes): SimDisk {
    const copy = new SimDisk({ ...this.options, capacityBytes });
    copy.#journal = this.#journal.clone();
    for (const path of this.held) copy.held.add(path);
    for (const [ino, how] of this.#locked) copy.#locked.set(ino, how);
    return copy;
  }

  /** Marks a file as immutable (foreseen) or as one that may only be appended to (not foreseen). */
  lockFile(path: string, foreseen: boolean): void {
    this.#locked.set(this.#existing(path).ino, { foreseen });
  }

  /** Takes all these marks away. */
  unlockFiles(): void {
    this.#locked.clear();
  }

  /** Calls since `plan`. Each path of a sync counts as one. */
  get calls(): number {
    return this.#calls;
  }

  /** Whether the planned death came. */
  get dead(): boolean {
    return this.#dead;
  }

  /** Starts counting anew, with these failures to come. Call 1 is the next one. A death comes before its call acts. */
  plan(...failures: readonly SimFailure[]): void {
    this.#calls = 0;
    this.#failures = failures;
  }

  /** The program is gone, the machine is not: everything that was seen stays, durable or not. */
  kill(): void {
    this.#dead = false;
    this.plan();
  }

  /** The power failed and came back: what is left is what the model allows, drawn by chance. All of it is durable then. */
  cutPower(prng: Prng): void {
    this.#journal = afterPowerCut(this.#journal, this.options, prng);
    this.kill();
  }

  /** Makes everything durable, as an installation that was made long ago is. */
  settle(): void {
    this.#journal.settle();
  }

  /** Everything below a directory: `file MODE CONTENT`, `directory MODE` or `link TARGET`. */
  tree(directory: string): SimTree {
    const tree: SimTree = new Map();
    const walk = (inode: Inode, prefix: string) => {
      for (const { name, ino } of inode.entries.values()) {
        const child = this.#journal.inode(ino);
        const path = prefix === "" ? name : `${prefix}/${name}`;
        const mode = child.mode.toString(8);
        if (child.kind === "file")
          tree.set(path, `file ${mode} ${Buffer.from(child.bytes).toString("latin1")}`);
        else if (child.kind === "link") tree.set(path, `link ${child.target}`);
        else {
          tree.set(path, `directory ${mode}`);
          walk(child, path);
        }
      }
    };
    const found = this.#find(directory);
    if (found !== null) walk(found, "");
    return tree;
  }

  lstat(path: string): FileStat | null {
    this.#call();
    const inode = this.#find(path);
    return inode === null ? null : statOf(inode);
  }

  readDirectory(path: string): string[] {
    this.#call();
    return [...this.#directory(path).entries.values()].map(({ name }) => name).sort();
  }

  readFile(path: string): Uint8Array {
    this.#call();
    return this.#file(path).bytes;
  }

  readLink(path: string): string {
    this.#call();
    const inode = this.#existing(path);
    if (inode.kind !== "link") throw systemError("EINVAL", path);
    return inode.target;
  }

  makeDirectory(path: string, mode: number): void {
    this.#call();
    this.#create(path, newInode("directory", { mode }), INODE_BYTES);
  }

  removeDirectory(path: string): void {
    this.#call();
    if (this.#directory(path).entries.size > 0) throw systemError("ENOTEMPTY", path);
    const { directory, key } = this.#place(path);
    this.#journal.change([{ directory: directory.ino, key, entry: null }]);
  }

  writeFile(path: string, bytes: Uint8Array, mode: number): void {
    this.#call();
    // A full disk leaves the file behind, cut short, as the real one does.
    const room = this.#freeBytes() - INODE_BYTES - NAME_BYTES;
    const written = room >= bytes.length ? bytes : bytes.subarray(0, Math.max(0, room));
    this.#create(path, newInode("file", { mode, bytes: written.slice() }), INODE_BYTES);
    if (written.length < bytes.length) throw systemError("ENOSPC", path);
  }

  copyFile(from: string, to: string, mode: number): void {
    this.#call();
    const { bytes } = this.#file(from);
    if (this.#freeBytes() < bytes.length + INODE_BYTES + NAME_BYTES) throw systemError("ENOSPC", to);
    this.#create(to, newInode("file", { mode, bytes }), INODE_BYTES);
  }

  link(from: string, to: string): void {
    this.#call();
    if (this.options.linkError !== null) throw systemError(this.options.linkError, to);
    const inode = this.#existing(from);
    const { directory, key } = this.#place(to);
    if (directory.entries.has(key)) throw systemError("EEXIST", to);
    if (inode.kind === "directory" || this.#locked.has(inode.ino)) throw systemError("EPERM", from);
    this.#demandFree(NAME_BYTES, to);
    this.#enter(to, inode);
  }

  symlink(target: string, path: string): void {
    this.#call();
    this.#create(path, newInode("link", { mode: 0o777, target }), INODE_BYTES);
  }

  rename(from: string, to: string): void {
    this.#call();
    const source = this.#place(from);
    const target = this.#place(to);
    const inode = this.#existing(from);
    const above = (path: string) => this.#follow(parentPath(path), 0, []);
    if (above(to).includes(inode)) throw systemError("EINVAL", to);
    this.#demandChangeable(source.directory, from);
    this.#demandChangeable(target.directory, to);
    const replaced = this.#find(to);
    if (replaced !== null && above(from).includes(replaced)) throw systemError("ENOTEMPTY", to);
    if (replaced?.ino === inode.ino) {
      const sameEntry = source.directory === target.directory && source.key === target.key;
      if (sameEntry && source.name !== target.name)
        this.#journal.change([
          { directory: target.directory.ino, key: target.key, entry: { name: target.name, ino: inode.ino } },
        ]);
      return;
    }
    for (const each of [inode, replaced])
      if (each !== null && this.#locked.has(each.ino)) throw systemError("EPERM", to);
    if (inode.kind === "directory") {
      if (replaced !== null && replaced.kind !== "directory") throw systemError("ENOTDIR", to);
      if (replaced !== null && replaced.entries.size > 0) throw systemError("ENOTEMPTY", to);
    } else if (replaced?.kind === "directory") throw systemError("EISDIR", to);
    this.#journal.change(
      [
        { directory: source.directory.ino, key: source.key, entry: null },
        { directory: target.directory.ino, key: target.key, entry: { name: target.name, ino: inode.ino } },
      ],
      inode.kind === "file",
    );
    this.#journal.touch(inode);
  }

  unlink(path: string): void {
    this.#call();
    const { kind, ino } = this.#existing(path);
    if (kind === "directory") throw systemError("EISDIR", path);
    const { directory, key } = this.#place(path);
    this.#demandChangeable(directory, path);
    if (this.#locked.has(ino)) throw systemError("EPERM", path);
    this.#journal.change([{ directory: directory.ino, key, entry: null }]);
  }

  changeMode(path: string, mode: number): void {
    this.#call();
    const inode = this.#existing(path);
    inode.mode = mode;
    this.#journal.touch(inode);
  }

  demandWritable(directory: string): void {
    this.#call();
    this.#demandChangeable(this.#directory(directory), directory);
  }

  demandReplaceable(path: string): void {
    this.#call();
    if (this.#locked.get(this.#existing(path).ino)?.foreseen === true) throw systemError("EPERM", path);
  }

  isInUse(path: string): boolean {
    this.#call();
    return this.held.has(path);
  }

  freeBytes(_path: string): number {
    this.#call();
    return this.#freeBytes();
  }

  async syncFiles(paths: readonly string[]): Promise<void> {
    for (const path of paths) {
      const inode = this.#find(path);
      this.#call(() => {
        if (inode !== null) inode.worthless = true;
      });
      this.#journal.syncFile(this.#file(path), this.options.model);
    }
  }

  async syncDirectories(paths: readonly string[]): Promise<void> {
    for (const path of paths) {
      this.#call();
      this.#journal.syncDirectory(this.#directory(path), this.options.model);
    }
  }

  #call(onFailure?: () => void): void {
    if (this.#dead) throw new SimCrash();
    this.#calls++;
    for (const failure of this.#failures) {
      const lasts = "lasting" in failure && failure.lasting === true && this.#calls > failure.call;
      if (failure.call !== this.#calls && !lasts) continue;
      if ("dies" in failure) {
        this.#dead = true;
        throw new SimCrash();
      }
      onFailure?.();
      throw systemError(failure.code, "simulated");
    }
  }

  /** Follows links in all parts but the last, as the system does. Null when nothing is there. */
  #find(path: string): Inode | null {
    try {
      return this.#existing(path);
    } catch (error) {
      const code = systemErrorCode(error);
      if (code === "ENOENT" || code === "ENOTDIR") return null;
      throw error;
    }
  }

  #existing(path: string): Inode {
    if (path === "/") return this.#journal.root;
    const entry = this.#walk(parentPath(path)).entries.get(this.#key(baseName(path)));
    if (entry === undefined) throw systemError("ENOENT", path);
    return this.#journal.inode(entry.ino);
  }

  /** The directory that a path leads to, through links. ENOENT, ENOTDIR, ELOOP. */
  #walk(path: string): Inode {
    return this.#follow(path, 0, []).at(-1) ?? this.#journal.root;
  }

  /** The directories from the root to the one that a path leads to, the root left out. */
  #follow(path: string, followed: number, from: readonly Inode[]): Inode[] {
    if (followed > LINKS_FOLLOWED_MAX) throw systemError("ELOOP", path);
    let stack = path.startsWith("/") ? [] : [...from];
    for (const name of path.split("/")) {
      if (name === "" || name === ".") continue;
      if (name === "..") {
        stack.pop();
        continue;
      }
      const entry = (stack.at(-1) ?? this.#journal.root).entries.get(this.#key(name));
      if (entry === undefined) throw systemError("ENOENT", path);
      const inode = this.#journal.inode(entry.ino);
      if (inode.kind === "file") throw systemError("ENOTDIR", path);
      if (inode.kind === "directory") stack.push(inode);
      else stack = this.#follow(inode.target, followed + 1, stack);
    }
    return stack;
  }

  #directory(path: string): Inode {
    const inode = this.#existing(path);
    if (inode.kind !== "directory") throw systemError("ENOTDIR", path);
    return inode;
  }

  #file(path: string): Inode {
    const inode = this.#existing(path);
    if (inode.kind !== "file") throw systemError(inode.kind === "directory" ? "EISDIR" : "ELOOP", path);
    return inode;
  }

  #place(path: string): { directory: Inode; key: string; name: string } {
    const name = baseName(path);
    return { directory: this.#walk(parentPath(path)), key: this.#key(name), name };
  }

  #create(path: string, inode: Inode, bytes: number): void {
    this.#demandFree(bytes + NAME_BYTES, path);
    // Found before the inode is adopted, so that a refused one leaves no trace.
    const { directory, key } = this.#place(path);
    if (directory.entries.has(key)) throw systemError("EEXIST", path);
    this.#demandChangeable(directory, path);
    this.#journal.adopt(inode);
    this.#enter(path, inode);
  }

  #enter(path: string, inode: Inode): void {
    const { directory, key, name } = this.#place(path);
    if (directory.entries.has(key)) throw systemError("EEXIST", path);
    this.#demandChangeable(directory, path);
    const entry: Entry = { name, ino: inode.ino };
    this.#journal.change([{ directory: directory.ino, key, entry }]);
    this.#journal.touch(inode);
  }

  #demandChangeable(directory: Inode, path: string): void {
    if ((directory.mode & 0o200) === 0) throw systemError("EACCES", path);
  }

  #demandFree(bytes: number, path: string): void {
    if (this.#freeBytes() < bytes) throw systemError("ENOSPC", path);
  }

  #freeBytes(): number {
    if (this.options.capacityBytes === Number.POSITIVE_INFINITY) return 2 ** 50;
    return this.options.capacityBytes - this.usedBytes;
  }

  #key(name: string): string {
    return this.options.ignoresCase ? foldPath(name) : name;
  }
}

function statOf(inode: Inode): FileStat {
  return {
    kind: inode.kind,
    size: inode.kind === "file" ? inode.bytes.length : 0,
    mode: inode.mode,
    mtimeNs: inode.mtimeNs,
    ctimeNs: inode.ctimeNs,
    ino: BigInt(inode.ino),
    dev: 1n,
  };
}

function parentPath(path: string): string {
  const slash = path.lastIndexOf("/");
  return slash <= 0 ? "/" : path.slice(0, slash);
}

function baseName(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}

/** An error as the system gives it. */
export function systemError(code: string, path: string): Error & { readonly code: string } {
  return Object.assign(new Error(`${code}: simulated, ${path}`), { code });
}
