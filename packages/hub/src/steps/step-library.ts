import { rm } from "node:fs/promises";
import type { Sha256 } from "@lockstep/core";
import type { Clock, Logger } from "@lockstep/platform";
import { LockstepError } from "@lockstep/protocol";
import type { ContentStore } from "@lockstep/store";
import type pg from "pg";
import { createDecoder, findContent, findContentHeaders, readStored } from "../repository/content-read.ts";
import { readSettings } from "../repository/settings.ts";
import { makeStepApart } from "./make-step.ts";
import type { ContentFile } from "./messages.ts";
import type { StepFile, StepFiles } from "./step-files.ts";

/**
 * Steps between manifests: found, or made, one at a time.
 *
 * Whoever asks for one that is being made waits for it; all installations of a role ask for the same one after a release.
 * That a step would save nothing is remembered too, and so is one that could not be made, for a while.
 */
export interface StepLibraryOptions {
  readonly pool: pg.Pool;
  readonly cache: ContentStore;
  readonly files: StepFiles;
  readonly clock: Clock;
  readonly log: Logger;
  readonly stopping: AbortSignal;
}

export type FoundStep =
  | { readonly kind: "step"; readonly file: StepFile }
  /** Fetching the contents costs no more, or it could not be made. */
  | { readonly kind: "none" }
  /** It is being made, or waits for its turn. */
  | { readonly kind: "coming" };

const WAITING_MAX = 200;
const FAILED_MS = 600_000;
const REMEMBERED_MAX = 1_000;
/** What a content costs beside its bytes when it is fetched whole: its header in the stream. */
const HEADER_BYTES = 50;

export class StepLibrary {
  readonly #options: StepLibraryOptions;
  readonly #making = new Map<string, Promise<void>>();
  /** Steps that are none, with until when that is believed. */
  readonly #none = new Map<string, number>();
  #last: Promise<void> = Promise.resolve();

  constructor(options: StepLibraryOptions) {
    this.#options = options;
  }

  /** Finds a step, makes it where there is none, and waits for `waitMs` at most, or until `leaving` aborts. Throws HUB_BUSY. */
  async obtain(from: Sha256, to: Sha256, waitMs: number, leaving?: AbortSignal): Promise<FoundStep> {
    const settings = await readSettings(this.#options.pool);
    if (settings["Common/Transfer/Steps"] === false) return { kind: "none" };
    const found = await this.#find(from, to);
    if (found !== null) return found;
    const making = this.#make(from, to);
    const waited = new AbortController();
    const { clock, stopping } = this.#options;
    const signal = AbortSignal.any([stopping, waited.signal, ...(leaving === undefined ? [] : [leaving])]);
    await Promise.race([making, clock.sleep(waitMs, signal).catch(() => {})]);
    waited.abort();
    return (await this.#find(from, to)) ?? { kind: "coming" };
  }

  async #find(from: Sha256, to: Sha256): Promise<FoundStep | null> {
    const file = await this.#options.files.find(from, to);
    if (file !== null) return { kind: "step", file };
    const until = this.#none.get(keyOf(from, to));
    return until !== undefined && this.#options.clock.monotonic() < until ? { kind: "none" } : null;
  }

  #make(from: Sha256, to: Sha256): Promise<void> {
    const key = keyOf(from, to);
    const running = this.#making.get(key);
    if (running !== undefined) return running;
    if (this.#making.size >= WAITING_MAX)
      throw new LockstepError("HUB_BUSY", "too many steps wait to be made", {
        found: this.#making.size,
        hint: "The contents can be fetched whole meanwhile.",
        retryAfterSeconds: 60,
      });
    const made = this.#last.then(() => this.#makeNow(from, to)).finally(() => this.#making.delete(key));
    this.#last = made;
    this.#making.set(key, made);
    return made;
  }

  async #makeNow(from: Sha256, to: Sha256): Promise<void> {
    const { files, log, clock, stopping } = this.#options;
    if (stopping.aborted) return;
    const target = files.temporary(from, to);
    const began = clock.monotonic();
    try {
      await rm(target, { force: true });
      const bytes = await makeStepApart({
        from: await this.#asFile(from),
        to: await this.#asFile(to),
        target,
        provide: (contents) => this.#provide(contents.map(({ sha256 }) => sha256)),
        signal: stopping,
      });
      if (bytes === null) this.#remember(keyOf(from, to), Number.POSITIVE_INFINITY);
      else await files.place(from, to);
      log.info("made a step", { from, to, bytes, ms: Math.round(clock.monotonic() - began) });
    } catch (error) {
      await rm(target, { force: true }).catch(() => {});
      if (stopping.aborted) return;
      this.#remember(keyOf(from, to), clock.monotonic() + FAILED_MS);
      log.warn("a step could not be made; installations fetch whole contents", { from, to, error });
    }
  }

  #remember(key: string, until: number): void {
    this.#none.set(key, until);
    const [oldest] = this.#none.keys();
    if (this.#none.size > REMEMBERED_MAX && oldest !== undefined) this.#none.delete(oldest);
  }

  async #provide(digests: readonly Sha256[]): Promise<Record<Sha256, ContentFile>> {
    const headers = await findContentHeaders(this.#options.pool, digests);
    const files: Record<Sha256, ContentFile> = {};
    for (const sha256 of digests) {
      const wholeBytes = (headers.get(sha256)?.stored ?? 0) + HEADER_BYTES;
      files[sha256] = { path: await this.#asFile(sha256), wholeBytes };
    }
    return files;
  }

  /** A content as a file of the cache, as it is. */
  async #asFile(sha256: Sha256): Promise<string> {
    const { pool, cache } = this.#options;
    const stored = await findContent(pool, sha256);
    if (stored === null)
      throw new LockstepError("NOT_FOUND", `the hub has no content ${sha256}`, { found: sha256 });
    const key = { sha256, size: stored.size, encoding: "identity" } as const;
    const file = await cache.openOrFill(key, () => {
      const parts = readStored(pool, stored);
      return stored.encoding === "zstd" ? createDecoder(parts) : parts;
    });
    await file.close();
    return cache.path(key);
  }
}

const keyOf = (from: Sha256, to: Sha256) => `${from} ${to}`;
