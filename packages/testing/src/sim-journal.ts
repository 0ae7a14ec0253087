/**
 * What the simulated disk holds: inodes as programs see them, and beside them what is durable.
 *
 * For a file that is its last synced content and mode. For directories it is a base that is certain, and a log of the
 * changes since, in their order, each with the directories that still have to be synced before it is certain too.
 */
export interface Entry {
  /** As it was spelled. */
  readonly name: string;
  readonly ino: number;
}

export interface Inode {
  ino: number;
  readonly kind: "file" | "directory" | "link";
  mode: number;
  readonly bytes: Uint8Array;
  readonly target: string;
  /** By key: the name, or its folded form on a disk that ignores case. */
  readonly entries: Map<string, Entry>;
  mtimeNs: bigint;
  ctimeNs: bigint;
  /** Last synced content and mode; null for a file never synced. Links and directories come with their entry. */
  durable: { readonly bytes: Uint8Array; readonly mode: number } | null;
  /** A sync of it failed: no later one makes it durable. */
  worthless: boolean;
}

export interface EntryChange {
  readonly directory: number;
  readonly key: string;
  /** Null removes the name. */
  readonly entry: Entry | null;
}

export interface LoggedChange {
  readonly changes: readonly EntryChange[];
  /** A rename of a file, which may survive by half. */
  readonly isFileRename: boolean;
  /** Directories not synced since. Empty: certain. */
  readonly unsynced: Set<number>;
}

export type CrashModel = "any-subset" | "ordered-journal";

const ROOT_INO = 1;
const NO_BYTES = new Uint8Array(0);

export function newInode(
  kind: Inode["kind"],
  more: { mode: number; bytes?: Uint8Array; target?: string },
): Inode {
  return {
    ino: 0,
    kind,
    mode: more.mode,
    bytes: more.bytes ?? NO_BYTES,
    target: more.target ?? "",
    entries: new Map(),
    mtimeNs: 0n,
    ctimeNs: 0n,
    durable: null,
    worthless: false,
  };
}

export class Journal {
  readonly #inodes = new Map<number, Inode>();
  /** Certain entries by directory. */
  readonly #base = new Map<number, Map<string, Entry>>();
  #log: LoggedChange[] = [];
  #nextIno = ROOT_INO + 1;
  #timeNs = 1_700_000_000_000_000_000n;

  constructor() {
    const root = newInode("directory", { mode: 0o755 });
    root.ino = ROOT_INO;
    this.#inodes.set(ROOT_INO, root);
  }

  /** A journal that holds exactly these inodes, all of it durable. The root must be among them. */
  static of(inodes: Iterable<Inode>, like: Journal): Journal {
    const journal = new Journal();
    for (const inode of inodes) {
      journal.#inodes.set(inode.ino, inode);
      journal.#nextIno = Math.max(journal.#nextIno, inode.ino + 1);
    }
    journal.#timeNs = like.#timeNs;
    journal.settle();
    return journal;
  }

  clone(): Journal {
    const copy = new Journal();
    for (const inode of this.#inodes.values())
      copy.#inodes.set(inode.ino, { ...inode, entries: new Map(inode.entries) });
    for (const [ino, entries] of this.#base) copy.#base.set(ino, new Map(entries));
    copy.#log = this.#log.map((each) => ({ ...each, unsynced: new Set(each.unsynced) }));
    copy.#nextIno = this.#nextIno;
    copy.#timeNs = this.#timeNs;
    return copy;
  }

  get root(): Inode {
    return this.inode(ROOT_INO);
  }

  /** Changes that are not certain to survive are among these, in their order. */
  get log(): readonly LoggedChange[] {
    return this.#log;
  }

  get inodes(): Iterable<Inode> {
    return this.#inodes.values();
  }

  inode(ino: number): Inode {
    const inode = this.#inodes.get(ino);
    if (inode === undefined) throw new Error(`the simulated disk has lost inode ${ino}`);
    return inode;
  }

  /** What is certain of a directory's entries. */
  baseOf(ino: number): ReadonlyMap<string, Entry> {
    return this.#base.get(ino) ?? new Map();
  }

  adopt(inode: Inode): void {
    inode.ino = this.#nextIno++;
    this.#inodes.set(inode.ino, inode);
    this.touch(inode);
    inode.mtimeNs = inode.ctimeNs;
  }

  /** Its metadata changed. */
  touch(inode: Inode): void {
    this.#timeNs += 1_000_000n;
    inode.ctimeNs = this.#timeNs;
  }

  /** One atomic change of directories. */
  change(changes: readonly EntryChange[], isFileRename = false): void {
    for (const { directory, key, entry } of changes) {
      const { entries } = this.inode(directory);
      if (entry === null) entries.delete(key);
      else entries.set(key, entry);
    }
    this.#log.push({ changes, isFileRename, unsynced: new Set(changes.map(({ directory }) => directory)) });
  }

  syncFile(inode: Inode, model: CrashModel): void {
    if (!inode.worthless) inode.durable = { bytes: inode.bytes, mode: inode.mode };
    if (model === "ordered-journal") this.#commitLog();
  }

  syncDirectory(inode: Inode, model: CrashModel): void {
    if (model === "ordered-journal") {
      this.#commitLog();
      return;
    }
    for (const each of this.#log) each.unsynced.delete(inode.ino);
    // Certain changes in front of every doubtful one are part of the base; behind one they must wait for their turn.
    let certain = 0;
    while (this.#log[certain]?.unsynced.size === 0) certain++;
    this.#fold(this.#log.slice(0, certain));
    this.#log = this.#log.slice(certain);
  }

  settle(): void {
    this.#log = [];
    this.#base.clear();
    for (const inode of this.#inodes.values()) {
      if (inode.kind === "directory") this.#base.set(inode.ino, new Map(inode.entries));
      inode.durable = { bytes: inode.bytes, mode: inode.mode };
      inode.worthless = false;
    }
  }

  usedBytes(inodeBytes: number, nameBytes: number): number {
    let bytes = 0;
    const seen = new Set<number>();
    const walk = (inode: Inode) => {
      if (seen.has(inode.ino)) return;
      seen.add(inode.ino);
      bytes += inodeBytes + inode.bytes.length + inode.entries.size * nameBytes;
      for (const { ino } of inode.entries.values()) walk(this.inode(ino));
    };
    walk(this.root);
    return bytes;
  }

  #commitLog(): void {
    this.#fold(this.#log);
    this.#log = [];
  }

  #fold(log: readonly LoggedChange[]): void {
    for (const { changes } of log)
      for (const { directory, key, entry } of changes) {
        const entries = this.#base.get(directory) ?? new Map<string, Entry>();
        this.#base.set(directory, entries);
        if (entry === null) entries.delete(key);
        else entries.set(key, entry);
      }
  }
}
