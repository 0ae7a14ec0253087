import { createHash } from "node:crypto";
import { dirname, join } from "node:path";
import { type Disk, systemErrorCode } from "@lockstep/platform";

/** Where trusted metadata is kept. */
export interface KeptMetadata {
  /** Call it before anything is read. */
  makeReady(): Promise<void>;
  /** The bytes of a TUF role, or null where there are none. */
  read(role: string): Uint8Array | null;
  write(role: string, bytes: Uint8Array): Promise<void>;
  /** A record of ours beside the metadata, or null. */
  readRecord(name: RecordName): Uint8Array | null;
  writeRecord(name: RecordName, bytes: Uint8Array): Promise<void>;
}

/**
 * Trusted metadata on the disk, so that whoever dies at any instant leaves the former or the next document, whole.
 *
 * The root is the anchor: lost or torn, every later refresh fails for ever; older than it was, an attacker's retired key
 * works again. So a document is written beside its place, made durable, renamed into place, and the rename is made
 * durable before anybody acts on it. Documents are kept as the bytes that came, since those are what was signed.
 *
 * The name of a delegated TUF role comes from a document and is no file name: it stands here by its digest (A21).
 */
export class MetadataStore implements KeptMetadata {
  readonly #disk: Disk;
  readonly #directory: string;
  #ready = false;

  /** `directory` is absolute; it is made at the first write, its parent must exist. */
  constructor(disk: Disk, directory: string) {
    this.#disk = disk;
    this.#directory = directory;
  }

  /**
   * Makes durable what a killed process may have renamed and not lived to flush: whoever acts on a document must find
   * it after the next power cut, too. Call it before anything is read.
   */
  async makeReady(): Promise<void> {
    if (this.#ready) return;
    if (this.#disk.lstat(this.#directory) === null) return;
    await this.#disk.syncDirectories([this.#directory, dirname(this.#directory)]);
    this.#ready = true;
  }

  /** The bytes of a TUF role, or null where there are none. */
  read(role: string): Uint8Array | null {
    return this.#read(fileNameOf(role));
  }

  /** Replaces the bytes of a TUF role. What this returned for is found after any crash. */
  async write(role: string, bytes: Uint8Array): Promise<void> {
    await this.#write(fileNameOf(role), bytes);
  }

  /** A record of ours beside the metadata, or null. */
  readRecord(name: RecordName): Uint8Array | null {
    return this.#read(name);
  }

  async writeRecord(name: RecordName, bytes: Uint8Array): Promise<void> {
    await this.#write(name, bytes);
  }

  /** Removes everything but the root: for who pins another one. */
  async forget(): Promise<void> {
    for (const name of this.#disk.readDirectory(this.#directory))
      if (name !== fileNameOf("root")) this.#disk.unlink(join(this.#directory, name));
    await this.#disk.syncDirectories([this.#directory]);
  }

  #read(name: string): Uint8Array | null {
    const path = join(this.#directory, name);
    return this.#disk.lstat(path)?.kind === "file" ? this.#disk.readFile(path) : null;
  }

  async #write(name: string, bytes: Uint8Array): Promise<void> {
    await this.#makeDirectory();
    const path = join(this.#directory, name);
    const temporary = `${path}.new`;
    // Left by somebody who died here; whoever writes holds the lock of the installation.
    if (this.#disk.lstat(temporary) !== null) this.#disk.unlink(temporary);
    try {
      this.#disk.writeFile(temporary, bytes, 0o600);
      await this.#disk.syncFiles([temporary]);
      this.#disk.rename(temporary, path);
    } catch (error) {
      this.#discard(temporary);
      throw error;
    }
    await this.#disk.syncDirectories([this.#directory]);
  }

  async #makeDirectory(): Promise<void> {
    if (this.#disk.lstat(this.#directory) === null) {
      try {
        this.#disk.makeDirectory(this.#directory, 0o700);
      } catch (error) {
        if (systemErrorCode(error) !== "EEXIST") throw error;
      }
    }
    await this.makeReady();
  }

  #discard(path: string): void {
    try {
      this.#disk.unlink(path);
    } catch {
      // The next write clears it away.
    }
  }
}

/**
 * A copy in memory, for looking without changing anything: what would be trusted is known, and nothing is written until
 * somebody says `keepIn`.
 */
export class MetadataCopy implements KeptMetadata {
  readonly #base: KeptMetadata | null;
  readonly #roles = new Map<string, Uint8Array>();
  readonly #records = new Map<RecordName, Uint8Array>();

  /** `base` null: nothing is kept yet. */
  constructor(base: KeptMetadata | null) {
    this.#base = base;
  }

  async makeReady(): Promise<void> {
    // The base is only read, and what is in memory needs nothing.
  }

  read(role: string): Uint8Array | null {
    return this.#roles.get(role) ?? this.#base?.read(role) ?? null;
  }

  async write(role: string, bytes: Uint8Array): Promise<void> {
    this.#roles.set(role, bytes);
  }

  readRecord(name: RecordName): Uint8Array | null {
    return this.#records.get(name) ?? this.#base?.readRecord(name) ?? null;
  }

  async writeRecord(name: RecordName, bytes: Uint8Array): Promise<void> {
    this.#records.set(name, bytes);
  }

  /** Writes what was learned to where it is kept, in the order in which it was learned. */
  async keepIn(store: KeptMetadata): Promise<void> {
    await store.makeReady();
    for (const [role, bytes] of this.#roles) await store.write(role, bytes);
    for (const [name, bytes] of this.#records) await store.writeRecord(name, bytes);
  }
}

const TOP_LEVEL = new Set(["root", "timestamp", "snapshot", "targets"]);

/**
 * What of ours stands beside the metadata: newest trusted time, history of releases, what a run goes to, what is installed, orders; and, in a
 * directory of their own, the identity of an installation and its session with the hub.
 */
export type RecordName =
  | "clock"
  | "history"
  | "goal"
  | "installed"
  | "orders"
  | "identity"
  | "candidate"
  | "session";

/** The file of a TUF role: its name where it is one of the four, else a digest of it. */
export function fileNameOf(role: string): string {
  if (TOP_LEVEL.has(role)) return `${role}.json`;
  return `delegated-${createHash("sha256").update(role).digest("hex")}.json`;
}
