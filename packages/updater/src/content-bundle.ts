import type { Sha256 } from "@lockstep/core";
import {
  type ContentEvent,
  type ContentHeader,
  ContentStreamReader,
  LockstepError,
} from "@lockstep/protocol/wire";
import { Persistence } from "./content-retry.ts";
import { BATCH_BYTES, BATCH_DECODED_BYTES, type BatchContent, ContentWriter } from "./content-writer.ts";
import { SMALL_BYTES_MAX, type StagingTask, type StagingTotals, type WantedContent } from "./contents.ts";
import { throwIfInterrupted } from "./interruption.ts";

/**
 * Many small contents in one answer: a request for each of 40,000 files would cost more than the files.
 *
 * A bundle that is cut gives what came whole before the cut; the next request names only the rest. Contents are decoded
 * with a cap on their length, verified and written beside this thread (content-writer.ts), a batch at a time.
 */
const BUNDLE_BYTES_MAX = 32 * 1024 * 1024;
const BUNDLE_CONTENTS_MAX = 4096;
/** Contents of one batch for the writer. */
const BATCH_CONTENTS_MAX = 256;
/** A frame of zstd can be a little longer than what it holds. */
const STORED_SLACK_BYTES = 1024;

/** Fetches the contents, bundle by bundle. `done` is called for each that stands in all its places. */
export async function fetchBundles(
  task: StagingTask,
  contents: readonly WantedContent[],
  totals: StagingTotals,
  done: (content: WantedContent) => void,
): Promise<void> {
  if (contents.length === 0) return;
  const bytes = contents.reduce((sum, content) => sum + content.size, 0);
  const writer = new ContentWriter(ContentWriter.threadsFor(contents.length, bytes));
  try {
    for (const bundle of split(contents)) await fetchBundle(task, writer, bundle, totals, done);
  } finally {
    await writer.close();
  }
}

async function fetchBundle(
  task: StagingTask,
  writer: ContentWriter,
  bundle: readonly WantedContent[],
  totals: StagingTotals,
  done: (content: WantedContent) => void,
): Promise<void> {
  const left = new Map(bundle.map((content) => [content.sha256, content]));
  const persistence = new Persistence(task.clock, task.signal);
  while (left.size > 0) {
    throwIfInterrupted(task.signal);
    const before = left.size;
    try {
      await receive(task, writer, left, totals, done);
      if (left.size > 0) throw incomplete(task, left);
    } catch (error) {
      if (left.size < before) persistence.progress();
      await persistence.after(error);
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
  writer: ContentWriter,
  left: Map<Sha256, WantedContent>,
  totals: StagingTotals,
  done: (content: WantedContent) => void,
): Promise<void> {
  totals.requests++;
  const reader = new ContentStreamReader({
    documentBytesMax: 64 * 1024,
    contentBytesMax: SMALL_BYTES_MAX + STORED_SLACK_BYTES,
  });
  const batches = new BatchAssembly(task, writer, left, done);
  try {
    const chunks = await task.client.bundle([...left.keys()], { signal: task.signal });
    for await (const chunk of chunks) {
      totals.receivedBytes += chunk.length;
      for (const event of events(reader, chunk)) await batches.take(event);
      throwIfInterrupted(task.signal);
    }
  } finally {
    // What came whole before a cut counts.
    await batches.end();
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

/** A batch that is being filled. */
interface Lane {
  buffer: ArrayBuffer | null;
  batch: BatchContent[];
  wanted: WantedContent[];
  /** Bytes of whole contents in the buffer. */
  filled: number;
  /** The same, decoded. */
  decoded: number;
}

const emptyLane = (): Lane => ({ buffer: null, batch: [], wanted: [], filled: 0, decoded: 0 });

/**
 * Gathers contents into batches, and hands each one over when it is full. Compressed contents and others go apart, so
 * that the compressed ones of a batch lie one behind the other and are decoded where they lie.
 */
class BatchAssembly {
  readonly #task: StagingTask;
  readonly #writer: ContentWriter;
  readonly #left: Map<Sha256, WantedContent>;
  readonly #done: (content: WantedContent) => void;
  readonly #written: Promise<void>[] = [];
  readonly #lanes = { zstd: emptyLane(), identity: emptyLane() };
  #coming: Lane | null = null;
  /** Where the next bytes of the coming content go. */
  #position = 0;
  #failure: { readonly error: unknown } | null = null;

  constructor(
    task: StagingTask,
    writer: ContentWriter,
    left: Map<Sha256, WantedContent>,
    done: (content: WantedContent) => void,
  ) {
    this.#task = task;
    this.#writer = writer;
    this.#left = left;
    this.#done = done;
  }

  /** Waits only where the next batch needs a buffer. Throws what went wrong with an earlier one. */
  async take(event: ContentEvent): Promise<void> {
    if (this.#failure !== null) throw this.#failure.error;
    if (event.kind === "content") await this.#begin(event.header);
    else if (event.kind === "bytes" && this.#coming?.buffer != null) {
      new Uint8Array(this.#coming.buffer, this.#position, event.bytes.length).set(event.bytes);
      this.#position += event.bytes.length;
    } else if (event.kind === "content-end" && this.#coming !== null) this.#add(this.#coming, event.header);
  }

  async #begin(header: ContentHeader): Promise<void> {
    expected(header, this.#left);
    const lane = this.#lanes[header.encoding];
    const full =
      lane.filled + header.stored > BATCH_BYTES ||
      lane.decoded + header.size > BATCH_DECODED_BYTES ||
      lane.batch.length >= BATCH_CONTENTS_MAX;
    if (full) this.#handOver(lane);
    lane.buffer ??= await this.#writer.buffer();
    this.#coming = lane;
    this.#position = lane.filled;
  }

  #add(lane: Lane, header: ContentHeader): void {
    const content = this.#left.get(header.sha256);
    if (content === undefined) return;
    const { sha256, size, stored } = header;
    const zstd = header.encoding === "zstd";
    lane.batch.push({
      sha256,
      size,
      zstd,
      offset: lane.filled,
      stored,
      places: content.places,
      mode: content.mode,
    });
    lane.wanted.push(content);
    lane.filled = this.#position;
    lane.decoded += size;
    this.#left.delete(sha256);
    this.#coming = null;
  }

  #handOver(lane: Lane): void {
    const { buffer, batch, wanted } = lane;
    Object.assign(lane, emptyLane());
    if (buffer !== null) this.#written.push(this.#write(batch, wanted, buffer));
  }

  async #write(
    batch: readonly BatchContent[],
    wanted: readonly WantedContent[],
    buffer: ArrayBuffer,
  ): Promise<void> {
    try {
      const { written, fault } = await this.#writer.write(batch, buffer);
      for (const content of wanted.slice(0, written)) {
        this.#task.partial.noteStaged(content.sha256, content.places[0] ?? "");
        this.#task.meter.add(1, content.size);
        this.#done(content);
      }
      this.#task.partial.flush();
      if (fault?.kind === "content") throw mismatch(fault.sha256, fault.expected, fault.found);
    } catch (error) {
      this.#failure ??= { error };
    }
  }

  /** Writes the rest and waits for everything. */
  async end(): Promise<void> {
    for (const lane of Object.values(this.#lanes)) this.#handOver(lane);
    await Promise.all(this.#written);
    if (this.#failure !== null) throw this.#failure.error;
  }
}

function expected(header: ContentHeader, left: ReadonlyMap<Sha256, WantedContent>): void {
  const content = left.get(header.sha256);
  if (content === undefined)
    throw new LockstepError(
      "HUB_ANSWER_INVALID",
      "the hub sent a content that nobody asked for, or sent one twice",
      {
        expected: "the contents of the request, each once",
        found: header.sha256,
        hint: "Check that no proxy between alters answers; nothing was changed.",
      },
    );
  if (content.size !== header.size)
    throw mismatch(content.sha256, `${content.size} bytes`, `${header.size} bytes`);
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
