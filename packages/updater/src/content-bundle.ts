import { hash } from "node:crypto";
import { writeFileSync } from "node:fs";
import { zstdDecompressSync } from "node:zlib";
import type { Sha256 } from "@lockstep/core";
import {
  type ContentEvent,
  type ContentHeader,
  ContentStreamReader,
  LockstepError,
} from "@lockstep/protocol/wire";
import { Persistence } from "./content-retry.ts";
import { SMALL_BYTES_MAX, type StagingTask, type StagingTotals, type WantedContent } from "./contents.ts";
import { throwIfInterrupted } from "./interruption.ts";
import { guarded } from "./io-failure.ts";

/**
 * Many small contents in one answer: a request for each of 40,000 files would cost more than the files.
 *
 * A bundle that is cut gives what came whole before the cut; the next request names only the rest. Contents are decoded
 * with a cap on their length, verified and written one after the other, so that memory holds one of them at a time.
 */
const BUNDLE_BYTES_MAX = 32 * 1024 * 1024;
const BUNDLE_CONTENTS_MAX = 4096;
/** A frame of zstd can be a little longer than what it holds. */
const STORED_SLACK_BYTES = 1024;

/** Fetches the contents, bundle by bundle. `done` is called for each that stands in its first place. */
export async function fetchBundles(
  task: StagingTask,
  contents: readonly WantedContent[],
  totals: StagingTotals,
  done: (content: WantedContent) => void,
): Promise<void> {
  for (const bundle of split(contents)) {
    const left = new Map(bundle.map((content) => [content.sha256, content]));
    const persistence = new Persistence(task.clock, task.signal);
    while (left.size > 0) {
      throwIfInterrupted(task.signal);
      const before = left.size;
      try {
        await receive(task, left, totals, done);
        if (left.size > 0) throw incomplete(task, left);
      } catch (error) {
        if (left.size < before) persistence.progress();
        await persistence.after(error);
      }
    }
  }
}

function split(contents: readonly WantedContent[]): WantedContent[][] {
  const bundles: WantedContent[][] = [];
  let bundle: WantedContent[] = [];
  let bytes = 0;
  for (const content of contents) {
    if (
      bundle.length > 0 &&
      (bytes + content.size > BUNDLE_BYTES_MAX || bundle.length >= BUNDLE_CONTENTS_MAX)
    ) {
      bundles.push(bundle);
      bundle = [];
      bytes = 0;
    }
    bundle.push(content);
    bytes += content.size;
  }
  if (bundle.length > 0) bundles.push(bundle);
  return bundles;
}

/** Receives one answer and takes what came whole out of `left`. */
async function receive(
  task: StagingTask,
  left: Map<Sha256, WantedContent>,
  totals: StagingTotals,
  done: (content: WantedContent) => void,
): Promise<void> {
  totals.requests++;
  const chunks = await task.client.bundle([...left.keys()], { signal: task.signal });
  const reader = new ContentStreamReader({
    documentBytesMax: 64 * 1024,
    contentBytesMax: SMALL_BYTES_MAX + STORED_SLACK_BYTES,
  });
  const assembly = new Assembly();
  for await (const chunk of chunks) {
    totals.receivedBytes += chunk.length;
    for (const event of events(reader, chunk)) {
      const whole = assembly.take(event, left);
      if (whole === null) continue;
      const { content, header, bytes } = whole;
      store(task, content, decode(content, header, bytes));
      left.delete(content.sha256);
      task.meter.add(1, content.size);
      done(content);
    }
    throwIfInterrupted(task.signal);
  }
}

/** What the reader finds wrong with an answer is the hub's fault, not that of a request. */
function* events(reader: ContentStreamReader, chunk: Uint8Array): Generator<ContentEvent, void> {
  try {
    yield* reader.push(chunk);
  } catch (cause) {
    throw new LockstepError("HUB_ANSWER_INVALID", "the hub's bundle cannot be read", {
      expected: "a content stream",
      found: cause instanceof Error ? cause.message : "something else",
      hint: "Check that no proxy between alters answers; nothing was changed.",
      cause,
    });
  }
}

/** Puts the bytes of one content together. */
class Assembly {
  #content: WantedContent | null = null;
  #parts: Uint8Array[] = [];

  take(
    event: ContentEvent,
    left: ReadonlyMap<Sha256, WantedContent>,
  ): { content: WantedContent; header: ContentHeader; bytes: Uint8Array } | null {
    if (event.kind === "content") {
      this.#content = expected(event.header, left);
      this.#parts = [];
    } else if (event.kind === "bytes") this.#parts.push(Buffer.from(event.bytes));
    else if (event.kind === "content-end" && this.#content !== null) {
      const [only] = this.#parts;
      const bytes = this.#parts.length === 1 && only !== undefined ? only : Buffer.concat(this.#parts);
      const whole = { content: this.#content, header: event.header, bytes };
      this.#content = null;
      return whole;
    }
    return null;
  }
}

function expected(header: ContentHeader, left: ReadonlyMap<Sha256, WantedContent>): WantedContent {
  const content = left.get(header.sha256);
  if (content === undefined)
    throw new LockstepError("HUB_ANSWER_INVALID", "the hub sent a content that nobody asked for", {
      expected: "the contents of the request",
      found: header.sha256,
      hint: "Check that no proxy between alters answers; nothing was changed.",
    });
  if (content.size !== header.size)
    throw mismatch(content.sha256, `${content.size} bytes`, `${header.size} bytes`);
  return content;
}

function decode(content: WantedContent, header: ContentHeader, stored: Uint8Array): Uint8Array {
  let bytes = stored;
  if (header.encoding === "zstd") {
    try {
      // The cap holds whatever the frame claims.
      bytes = zstdDecompressSync(stored, { maxOutputLength: Math.max(content.size, 1) });
    } catch (cause) {
      throw mismatch(content.sha256, `${content.size} bytes`, "a broken or longer compression", cause);
    }
  }
  const found = bytes.length === content.size ? hash("sha256", bytes, "hex") : `${bytes.length} bytes`;
  if (found !== content.sha256) throw mismatch(content.sha256, content.sha256, found);
  return bytes;
}

function store(task: StagingTask, content: WantedContent, bytes: Uint8Array): void {
  const [place] = content.places;
  if (place === undefined) return;
  guarded(place, "writing", () => writeFileSync(place, bytes, { flag: "wx", mode: 0o600 }));
  task.partial.noteStaged(content.sha256, place);
}

function incomplete(task: StagingTask, left: ReadonlyMap<Sha256, WantedContent>): LockstepError {
  return new LockstepError(
    "HUB_UNREACHABLE",
    `the answer of ${task.client.url} ended before everything had come`,
    {
      expected: `${left.size} more contents`,
      found: "the end",
      hint: "Run it again: what has arrived is not fetched twice.",
    },
  );
}

/** The error for bytes that are not what the manifest promised. */
export function mismatch(
  sha256: Sha256,
  expectedValue: string,
  found: string,
  cause?: unknown,
): LockstepError {
  return new LockstepError(
    "CONTENT_MISMATCH",
    `the hub sent other bytes than content ${sha256.slice(0, 12)}… has`,
    {
      expected: expectedValue,
      found,
      hint: "Nothing was changed. Something alters what the hub sends, or the hub's copy is damaged: look at its log.",
      cause,
    },
  );
}
