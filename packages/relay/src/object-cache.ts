import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { type FileHandle, mkdir, readdir, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { isSha256, type Sha256 } from "@lockstep/core";
import type { Clock, Logger } from "@lockstep/platform";
import { type ContentEncoding, ERRORS, isLockstepError, LockstepError } from "@lockstep/protocol/wire";
import { ContentStore, type OpenContent } from "@lockstep/store";
import { ComingObject } from "./coming-object.ts";
import type { Upstream } from "./upstream.ts";

/**
 * What never changes, on disk: contents and manifests by their digest, steps and differences of manifests by their names.
 *
 * Bytes lie in a content store under a digest, and are held against it before they are served. A step's name does not tell
 * its digest; that stands in a small file beside (`names/`), which says what the hub sent under that name. Losing any of it
 * loses nothing: it is fetched again.
 *
 * A step that the hub still makes would come for some neighbours and too late for others, and both, the step and the whole
 * contents, would travel. So the relay waits for it a while in the place of all, even for those who would not wait
 * themselves; and where it does not come, there is none for anybody for ten minutes: the contents are on their way here by then,
 * for all. How long a hub may be silent is not longer by that.
 */
export interface CachedObject {
  readonly kind: "here";
  readonly file: FileHandle;
  readonly encoding: ContentEncoding;
  readonly length: number;
  readonly type: string;
  readonly etag: string | null;
}

export type FoundObject = CachedObject | { readonly kind: "coming"; readonly object: ComingObject };

export interface ObjectQuestion {
  /** Address at the hub, without what only says how long to wait. */
  readonly path: string;
  /** Digest of the content, or null where the name does not tell it. */
  readonly sha256: Sha256 | null;
  readonly type: string;
  readonly acceptsZstd: boolean;
  readonly authorization: string | undefined;
  /** How long whoever asks would wait for it; null where nothing has to be made first. */
  readonly waitSeconds: number | null;
}

interface NameRecord {
  readonly path: string;
  readonly sha256: Sha256;
  readonly encoding: ContentEncoding;
  readonly type: string;
  readonly etag: string | null;
}

/** That there is no step is as good as known for a minute. */
const ABSENT_MS = 60_000;
/** For so long all neighbours fetch whole what one was told to fetch whole. */
const WHOLE_MS = 600_000;
/** For so long after a step did not come in time others are waited for only as long as whoever asks wants to. */
const IMPATIENT_MS = 60_000;
const ABSENT_MAX = 1_000;
const NAMES_MAX = 20_000;
const ABANDONED_MS = 7 * 86_400_000;
const CONTENT_BYTES_MAX = 2 ** 40;

export class ObjectCache {
  readonly store: ContentStore;
  readonly #directory: string;
  readonly #hub: Upstream;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #stopping: AbortSignal;
  readonly #stepWaitSeconds: number;
  readonly #coming = new Map<string, ComingObject>();
  readonly #absent = new Map<string, { readonly error: unknown; readonly until: number }>();
  #impatientUntil = Number.NEGATIVE_INFINITY;
  #collecting = false;

  private constructor(
    store: ContentStore,
    directory: string,
    hub: Upstream,
    options: { clock: Clock; log: Logger; stopping: AbortSignal; stepWaitSeconds: number },
  ) {
    const { clock, log, stopping, stepWaitSeconds } = options;
    this.store = store;
    this.#directory = directory;
    this.#hub = hub;
    this.#clock = clock;
    this.#log = log;
    this.#stopping = stopping;
    this.#stepWaitSeconds = stepWaitSeconds;
  }

  /** `stepWaitSeconds`: how long to wait at least for a step that is being made. */
  static async open(
    directory: string,
    hub: Upstream,
    options: {
      clock: Clock;
      log: Logger;
      stopping: AbortSignal;
      sizeBytesMax: number;
      stepWaitSeconds?: number;
    },
  ): Promise<ObjectCache> {
    const { sizeBytesMax, stepWaitSeconds = 0, ...more } = options;
    const store = await ContentStore.open(join(directory, "contents"), { sizeBytesMax });
    for (const name of ["names", "coming"])
      await mkdir(join(directory, name), { recursive: true, mode: 0o700 });
    const cache = new ObjectCache(store, directory, hub, { ...more, stepWaitSeconds });
    await cache.#tidy();
    return cache;
  }

  /** What is here, or on its way, begun where nobody has. Throws what the hub says when its answer begins. */
  async find(question: ObjectQuestion): Promise<FoundObject> {
    const here = await this.#look(question);
    if (here !== null) return here;
    const name = nameOf(question);
    const absent = this.#absent.get(name);
    if (absent !== undefined && absent.until > this.#clock.monotonic()) throw absent.error;
    let object = this.#coming.get(name);
    if (object === undefined) {
      object = this.#begin(name, question);
      const coming = object;
      this.#coming.set(name, coming);
      coming.whole
        .catch((error: unknown) => this.#noteFailure(name, question, error))
        .finally(() => this.#coming.delete(name));
    }
    await object.head;
    return { kind: "coming", object };
  }

  /** Brings the store below its limit when it is above it; in the background. */
  collectWhenOverfull(): void {
    if (!this.store.isOverfull || this.#collecting) return;
    this.#collecting = true;
    this.store
      .collect()
      .catch((error: unknown) => this.#log.warn("the cache could not be cleared up", { error }))
      .finally(() => {
        this.#collecting = false;
      });
  }

  /** Notes under which name an object that is in the store was given: for what came by another way than a question. */
  async remember(path: string, sha256: Sha256, etag: string | null): Promise<void> {
    const name = nameOf({ path, acceptsZstd: false });
    await this.#writeRecord(name, {
      path,
      sha256,
      encoding: "identity",
      type: "application/octet-stream",
      etag,
    });
  }

  async #look(question: ObjectQuestion): Promise<CachedObject | null> {
    const { sha256, type, acceptsZstd } = question;
    if (sha256 === null) return await this.#lookByName(question);
    for (const encoding of acceptsZstd ? (["zstd", "identity"] as const) : (["identity"] as const)) {
      const found = await this.store.openMeasured({ sha256, size: null, encoding });
      if (found === null) continue;
      const etag = encoding === "zstd" ? `"${sha256}-zstd"` : `"${sha256}"`;
      return cached(found, { encoding, type, etag });
    }
    return null;
  }

  async #lookByName(question: ObjectQuestion): Promise<CachedObject | null> {
    const record = await readRecord(this.#recordPath(nameOf(question)), question.path);
    if (record === null) return null;
    const found = await this.store.openMeasured({ sha256: record.sha256, size: null, encoding: "identity" });
    return found === null ? null : cached(found, record);
  }

  #begin(name: string, question: ObjectQuestion): ComingObject {
    const { path, sha256, acceptsZstd, authorization, waitSeconds } = question;
    const isPatient = this.#clock.monotonic() >= this.#impatientUntil;
    const waits = Math.max(waitSeconds ?? 0, waitSeconds !== null && isPatient ? this.#stepWaitSeconds : 0);
    const wanted = {
      path: waits > 0 ? `${path}${path.includes("?") ? "&" : "?"}wait=${waits}` : path,
      accepts: acceptsZstd ? ("zstd" as const) : ("identity" as const),
      authorization,
      // Not what we wait of ourselves: a hub that is silent is given up when it would have been.
      waitSeconds: waitSeconds ?? 0,
    };
    return new ComingObject(this.#hub, wanted, join(this.#directory, "coming", name), {
      clock: this.#clock,
      signal: this.#stopping,
      bytesMax: CONTENT_BYTES_MAX,
      keep: async (file, head) => {
        if (sha256 !== null) await this.store.adopt({ sha256, size: null, encoding: head.encoding }, file);
        else {
          const found = await digestOfFile(file);
          await this.store.adopt({ sha256: found, size: null, encoding: "identity" }, file);
          const { encoding, type, etag } = head;
          await this.#writeRecord(name, { path, sha256: found, encoding, type, etag });
        }
        this.collectWhenOverfull();
      },
    });
  }

  #noteFailure(name: string, { path, waitSeconds }: ObjectQuestion, error: unknown): void {
    const code = isLockstepError(error) ? error.code : null;
    if (code !== null && ERRORS[code].http === 404) this.#noteAbsent(name, error, ABSENT_MS);
    else if (code === "HUB_BUSY" && waitSeconds !== null) {
      this.#impatientUntil = this.#clock.monotonic() + IMPATIENT_MS;
      this.#noteAbsent(name, tooLate(path), WHOLE_MS);
    } else if (code !== "HUB_BUSY" && !this.#stopping.aborted)
      this.#log.warn("an object did not come whole", { path, error });
  }

  #noteAbsent(name: string, error: unknown, forMs: number): void {
    this.#absent.delete(name);
    this.#absent.set(name, { error, until: this.#clock.monotonic() + forMs });
    const [oldest] = this.#absent.keys();
    if (this.#absent.size > ABSENT_MAX && oldest !== undefined) this.#absent.delete(oldest);
  }

  #recordPath(name: string): string {
    return join(this.#directory, "names", name);
  }

  async #writeRecord(name: string, record: NameRecord): Promise<void> {
    const temporary = `${this.#recordPath(name)}.new`;
    await writeFile(temporary, JSON.stringify(record), { mode: 0o600 });
    await rename(temporary, this.#recordPath(name));
  }

  /** Names that too many were given, and parts that nobody went on with. */
  async #tidy(): Promise<void> {
    const names = join(this.#directory, "names");
    const found = await readdir(names);
    if (found.length > NAMES_MAX) for (const name of found) await rm(join(names, name), { force: true });
    const coming = join(this.#directory, "coming");
    for (const name of await readdir(coming)) {
      const { mtimeMs } = await stat(join(coming, name));
      if (this.#clock.now() - mtimeMs > ABANDONED_MS) await rm(join(coming, name), { force: true });
    }
  }
}

function cached(
  { file, stored }: OpenContent,
  how: { readonly encoding: ContentEncoding; readonly type: string; readonly etag: string | null },
): CachedObject {
  const { encoding, type, etag } = how;
  return { kind: "here", file, length: stored, encoding, type, etag };
}

function tooLate(path: string): LockstepError {
  return new LockstepError("STEP_NONE", "the hub had not made this step when it was asked for", {
    found: path,
    hint: "Fetch the contents whole: they travel to the relay once for all.",
  });
}

/** A name for a file, of what is asked for and in which form. */
function nameOf({ path, acceptsZstd }: Pick<ObjectQuestion, "path" | "acceptsZstd">): string {
  return createHash("sha256")
    .update(`${acceptsZstd ? "zstd" : "identity"} ${path}`)
    .digest("hex");
}

async function readRecord(file: string, path: string): Promise<NameRecord | null> {
  try {
    const record = JSON.parse(await readFile(file, "utf8")) as NameRecord;
    const { sha256, encoding, type } = record;
    const known = encoding === "identity" || encoding === "zstd";
    return record.path === path && isSha256(sha256) && known && typeof type === "string" ? record : null;
  } catch {
    return null;
  }
}

async function digestOfFile(file: string): Promise<Sha256> {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(file) as AsyncIterable<Buffer>) hash.update(chunk);
  return hash.digest("hex");
}

/** What a disk refuses, in words that say that the hub can be asked instead. */
export function cacheFailure(error: unknown): LockstepError {
  if (isLockstepError(error)) return error;
  return new LockstepError("RELAY_CACHE_FAILED", "the relay cannot use its cache", {
    found: error instanceof Error ? error.message : String(error),
    hint: "Installations ask the hub instead. Look at the disk of the relay and at its log.",
    cause: error,
  });
}
