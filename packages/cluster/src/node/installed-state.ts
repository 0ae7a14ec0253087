import { createHash } from "node:crypto";
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { revisionFileName, type VirtualServerDefinition } from "@lockstep/core";
import type { Clock } from "@lockstep/platform";

/** What a node has of each virtual server on its own disk: the configuration's hash, the installation's revision. */
export interface InstalledState {
  readonly configHashes: Readonly<Record<string, string | null>>;
  readonly revisions: Readonly<Record<string, number | null>>;
}

export interface FileReads {
  readonly config: (path: string) => Promise<string | null>;
  readonly revision: (directory: string) => Promise<number | null>;
}

/** A configuration file beyond this is no configuration. */
const CONFIG_BYTES_MAX = 16 * 1024 * 1024;
/** Whoever looks waits so long for a file, and then goes on with what was known of it. */
const PATIENCE_MS = 250;
/** A file that is still being read after this hangs: it counts as one that cannot be read. */
const HANG_MS = 5_000;
/** Reads that hang keep a thread of the process each, of which there are four. */
const HANGING_MAX = 2;

interface Kept<Value> {
  value: Value | null;
  /** The read that is under way, and since when. */
  since: number | null;
  isHanging: boolean;
}

/**
 * Looks at the files of a node; reads a configuration again only when its file has changed. A file on a volume whose server
 * is gone may never answer: nobody waits for it, it is not asked a second time, and it is told of once.
 */
export class InstalledFiles {
  readonly #clock: Clock;
  readonly #hangs: (path: string) => void;
  readonly #reads: FileReads;
  readonly #configs = new Map<string, Kept<string>>();
  readonly #revisions = new Map<string, Kept<number>>();

  constructor(clock: Clock, hangs: (path: string) => void, reads: FileReads = fileReads()) {
    this.#clock = clock;
    this.#hangs = hangs;
    this.#reads = reads;
  }

  async look(definitions: Iterable<VirtualServerDefinition>): Promise<InstalledState> {
    const configHashes: [string, string | null][] = [];
    const revisions: [string, number | null][] = [];
    const { config: readConfig, revision: readRevision } = this.#reads;
    for (const definition of definitions) {
      const { name, config } = definition;
      const hash = config === null ? null : await this.#ask(this.#configs, config.path, readConfig);
      configHashes.push([name, hash]);
      const directory = installationOf(definition);
      const revision = directory === null ? null : await this.#ask(this.#revisions, directory, readRevision);
      revisions.push([name, revision]);
    }
    return { configHashes: Object.fromEntries(configHashes), revisions: Object.fromEntries(revisions) };
  }

  /** A file is still being read, and may yet answer: it is worth looking again soon. */
  get isWaiting(): boolean {
    return this.#all().some(({ since, isHanging }) => since !== null && !isHanging);
  }

  async #ask<Value>(
    all: Map<string, Kept<Value>>,
    path: string,
    read: (path: string) => Promise<Value | null>,
  ): Promise<Value | null> {
    const kept = all.get(path) ?? { value: null, since: null, isHanging: false };
    all.set(path, kept);
    const now = this.#clock.monotonic();
    if (kept.since === null && this.#all().filter(({ since }) => since !== null).length < HANGING_MAX) {
      kept.since = now;
      const reading = read(path).then((value) => {
        kept.value = value;
        kept.since = null;
        kept.isHanging = false;
      });
      const waiting = new AbortController();
      await Promise.race([reading, this.#clock.sleep(PATIENCE_MS, waiting.signal)]);
      waiting.abort();
    } else if (kept.since !== null && !kept.isHanging && now - kept.since >= HANG_MS) {
      kept.isHanging = true;
      this.#hangs(path);
    }
    return kept.isHanging ? null : kept.value;
  }

  #all(): Kept<unknown>[] {
    return [...this.#configs.values(), ...this.#revisions.values()];
  }
}

/** Of the real disk. What cannot be read is null. */
function fileReads(): FileReads {
  const known = new Map<string, { readonly mark: string; readonly hash: string | null }>();
  return {
    config: async (path) => {
      try {
        const { size, mtimeMs, ctimeMs, ino } = await stat(path);
        const mark = `${size}:${mtimeMs}:${ctimeMs}:${ino}`;
        const before = known.get(path);
        if (before?.mark === mark) return before.hash;
        const isTooLarge = size > CONFIG_BYTES_MAX;
        const hash = isTooLarge ? null : digestOf(await readFile(path));
        known.set(path, { mark, hash });
        return hash;
      } catch {
        known.delete(path);
        return null;
      }
    },
    revision: async (directory) => {
      try {
        const text = await readFile(join(directory, revisionFileName(process.platform === "win32")), "utf8");
        const number = Number(text.split("\n")[0]);
        return Number.isSafeInteger(number) && number >= 0 ? number : null;
      } catch {
        return null;
      }
    },
  };
}

const digestOf = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");

/** Where the service lies, where its definition names an installation. */
function installationOf({ resources }: VirtualServerDefinition): string | null {
  const named = resources
    .map(({ settings }) => settings.installation)
    .find((each) => typeof each === "string");
  return typeof named === "string" ? named : null;
}
