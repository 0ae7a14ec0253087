import { CHECKPOINT_RECORD, type CheckpointEntry, entryKey } from "@lockstep/core";
import type { Disk } from "@lockstep/platform";
import { parentOf } from "./lay-down.ts";

/**
 * What this node itself stored or laid down last, by entry the hash of its content: whatever else stands in a file was
 * changed here and is not known to be stored. What is about to be laid down is noted before (`pending`), so that a crash
 * in between makes nobody's own work look like somebody else's. A store is noted after it only: to report a change once too
 * often is better than to lose one silently.
 */
export class CheckpointRecordFile {
  readonly #disk: Disk;
  readonly #path: string;
  #settled: ReadonlyMap<string, string> = new Map();
  #pending: ReadonlyMap<string, string> = new Map();

  constructor(disk: Disk, path: string) {
    this.#disk = disk;
    this.#path = path;
  }

  /** Reads it. One that is missing or damaged knows nothing: then every difference is reported, and a copy is kept. */
  load(): void {
    this.#settled = new Map();
    this.#pending = new Map();
    if (this.#disk.lstat(this.#path)?.kind !== "file") return;
    const parsed = CHECKPOINT_RECORD.parse(Buffer.from(this.#disk.readFile(this.#path)).toString("utf8"));
    if (!parsed.ok) return;
    this.#settled = new Map(parsed.value.settled.map(({ key, sha256 }) => [key, sha256]));
    this.#pending = new Map(parsed.value.pending.map(({ key, sha256 }) => [key, sha256]));
  }

  /** Whether this node put that content there. */
  knows(key: string, sha256: string): boolean {
    return this.#settled.get(key) === sha256 || this.#pending.get(key) === sha256;
  }

  /** Whether this node had a file there. */
  had(key: string): boolean {
    return this.#settled.has(key);
  }

  /** About to lay these down. */
  async begin(entries: readonly CheckpointEntry[]): Promise<void> {
    this.#pending = hashes(entries);
    await this.#write();
  }

  async settle(entries: readonly CheckpointEntry[]): Promise<void> {
    this.#settled = hashes(entries);
    this.#pending = new Map();
    await this.#write();
  }

  async #write(): Promise<void> {
    const list = (map: ReadonlyMap<string, string>) => [...map].map(([key, sha256]) => ({ key, sha256 }));
    const text = CHECKPOINT_RECORD.format({ settled: list(this.#settled), pending: list(this.#pending) });
    await replaceFile(this.#disk, this.#path, Buffer.from(text, "utf8"), 0o600);
  }
}

const hashes = (entries: readonly CheckpointEntry[]) =>
  new Map(entries.filter(({ kind }) => kind === "file").map((entry) => [entryKey(entry), entry.sha256]));

/**
 * Writes a file so that it is wholly old or wholly new after any crash; durable when it returns. `prepare` is told where it
 * stands before it gets its name.
 */
export async function replaceFile(
  disk: Disk,
  path: string,
  bytes: Uint8Array,
  mode: number,
  prepare: (temporary: string) => void = () => {},
): Promise<void> {
  const temporary = `${path}.new`;
  if (disk.lstat(temporary) !== null) disk.unlink(temporary);
  disk.writeFile(temporary, bytes, mode);
  prepare(temporary);
  await disk.syncFiles([temporary]);
  disk.rename(temporary, path);
  await disk.syncDirectories([parentOf(path)]);
}
