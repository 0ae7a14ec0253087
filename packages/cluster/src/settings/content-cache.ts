import { type Disk, systemErrorCode } from "@lockstep/platform";
import { hashOf } from "./checkpoint-scan.ts";

/**
 * Contents by hash in a private directory, so that a takeover need not fetch them. Disposable: what is damaged or missing
 * is fetched again, so nothing here is made durable.
 */
export class ContentCache {
  readonly #disk: Disk;
  readonly #directory: string;

  constructor(disk: Disk, directory: string) {
    this.#disk = disk;
    this.#directory = directory;
  }

  /** The content, verified, or null. */
  read(sha256: string): Uint8Array | null {
    const path = this.#path(sha256);
    if (this.#disk.lstat(path)?.kind !== "file") return null;
    const bytes = this.#disk.readFile(path);
    return hashOf(bytes) === sha256 ? bytes : null;
  }

  /** Keeps it if there is room; a full disk must not keep a service from starting. */
  write(sha256: string, bytes: Uint8Array): void {
    try {
      if (this.#disk.lstat(this.#directory) === null) this.#disk.makeDirectory(this.#directory, 0o700);
      if (this.#disk.lstat(this.#path(sha256)) !== null) this.#disk.unlink(this.#path(sha256));
      this.#disk.writeFile(this.#path(sha256), bytes, 0o600);
    } catch (error) {
      if (systemErrorCode(error) === null) throw error;
    }
  }

  keepOnly(hashes: ReadonlySet<string>): void {
    if (this.#disk.lstat(this.#directory) === null) return;
    for (const name of this.#disk.readDirectory(this.#directory))
      if (!hashes.has(name)) this.#disk.unlink(`${this.#directory}/${name}`);
  }

  #path(sha256: string): string {
    return `${this.#directory}/${sha256}`;
  }
}
