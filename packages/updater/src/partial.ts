import {
  appendFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
} from "node:fs";
import { join, relative } from "node:path";
import type { Sha256 } from "@lockstep/core";
import { isSha256 } from "@lockstep/core";
import type { ContentEncoding } from "@lockstep/protocol/wire";
import { guarded } from "./io-failure.ts";
import { type InstallationPaths, PRIVATE_MODE } from "./layout.ts";

/**
 * What has arrived and is not installed yet, kept over interruptions, so that nothing is fetched twice.
 *
 * Large contents arrive as they travel, in `SHA.zstd` or `SHA.identity`, and go on where they stopped. Small ones are
 * staged at once; a journal says which content each staged file is. A run that ends without its commit (killed, cut,
 * refused by a plug-in) leaves the files in its staging directory, and the next one moves them here as `SHA` before the
 * staging is cleared away. Nothing here is trusted: each content is read and held against its digest when it is used.
 */
const JOURNAL = "staged";
const JOURNAL_CHARACTERS_MAX = 64 * 1024;

export class PartialStore {
  readonly #paths: InstallationPaths;
  #lines = "";

  constructor(paths: InstallationPaths) {
    this.#paths = paths;
  }

  /** Makes the directory. */
  open(): void {
    guarded(this.#paths.partial, "making", () =>
      mkdirSync(this.#paths.partial, { recursive: true, mode: PRIVATE_MODE }),
    );
  }

  /** The place of a content that has arrived whole. */
  wholePath(sha256: Sha256): string {
    return join(this.#paths.partial, sha256);
  }

  /** The place of a content on its way. */
  travellingPath(sha256: Sha256, encoding: ContentEncoding): string {
    return join(this.#paths.partial, `${sha256}.${encoding}`);
  }

  /** What has arrived of a content on its way, in whichever encoding. */
  travelling(sha256: Sha256): { readonly encoding: ContentEncoding; readonly offset: number } | null {
    for (const encoding of ["zstd", "identity"] as const) {
      const path = this.travellingPath(sha256, encoding);
      const size = guarded(path, "looking at", () => statSync(path, { throwIfNoEntry: false })?.size ?? 0);
      if (size > 0) return { encoding, offset: size };
    }
    return null;
  }

  /** The contents of which something has arrived, whole or not. */
  begun(): ReadonlySet<Sha256> {
    const names = guarded(this.#paths.partial, "looking at", () => readdirSync(this.#paths.partial));
    return new Set(names.map((name) => name.replace(/\.(zstd|identity)$/, "")));
  }

  /** Whether a content has arrived whole in an earlier run. */
  hasWhole(sha256: Sha256): boolean {
    return existsSync(this.wholePath(sha256));
  }

  drop(sha256: Sha256): void {
    for (const path of [
      this.wholePath(sha256),
      this.travellingPath(sha256, "zstd"),
      this.travellingPath(sha256, "identity"),
    ])
      guarded(path, "removing", () => rmSync(path, { force: true }));
  }

  /** Notes that a verified content stands in a staging directory. On the disk after `flush`, which costs a call. */
  noteStaged(sha256: Sha256, path: string): void {
    this.#lines += `${sha256} ${relative(this.#paths.staging, path)}\n`;
    if (this.#lines.length > JOURNAL_CHARACTERS_MAX) this.flush();
  }

  flush(): void {
    if (this.#lines === "") return;
    const lines = this.#lines;
    this.#lines = "";
    guarded(this.#paths.partial, "writing", () =>
      appendFileSync(join(this.#paths.partial, JOURNAL), lines, { mode: 0o600 }),
    );
  }

  /** Forgets everything: an update is complete and nothing is on its way any more. */
  clear(): void {
    this.#lines = "";
    const { partial } = this.#paths;
    guarded(partial, "removing", () => rmSync(partial, { recursive: true, force: true }));
  }
}

/** What had arrived for an update that is complete now. Never throws: it only takes space, and the next update clears it. */
export function forgetPartial(paths: InstallationPaths): void {
  try {
    new PartialStore(paths).clear();
  } catch {
    // It stays.
  }
}

/**
 * Saves what an unfinished run had staged. To be called before staging directories are cleared away, and never while a
 * commit is in force: then the staged files belong to it. Returns how many contents were saved.
 */
export function salvage(paths: InstallationPaths): number {
  const journal = join(paths.partial, JOURNAL);
  if (existsSync(paths.commit)) return 0;
  let text: string;
  try {
    text = readFileSync(journal, "utf8");
  } catch {
    return 0;
  }
  let saved = 0;
  for (const line of text.split("\n")) {
    const sha256 = line.slice(0, 64);
    const place = line.slice(65);
    // The file is ours, but it is read as if it were not: a place outside the staging directories is no place.
    if (!isSha256(sha256) || !/^[a-z0-9-]+\/new\/\d+$/.test(place)) continue;
    try {
      renameSync(join(paths.staging, place), join(paths.partial, sha256));
      saved++;
    } catch {
      // Gone, or never quite there: then it is fetched again.
    }
  }
  try {
    rmSync(journal, { force: true });
  } catch {
    // It names places that are empty now: the next time it saves nothing.
  }
  return saved;
}
