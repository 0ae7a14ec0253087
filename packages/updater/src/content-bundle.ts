import { writeFileSync } from "node:fs";
import type { Sha256 } from "@lockstep/core";
import {
  type ContentEvent,
  type ContentHeader,
  ContentStreamReader,
  LockstepError,
} from "@lockstep/protocol/wire";
import { fetchLarge } from "./content-large.ts";
import { Persistence } from "./content-retry.ts";
import { BATCH_BYTES, BATCH_DECODED_BYTES, type BatchContent, ContentWriter } from "./content-writer.ts";
import {
  copyToOthers,
  SMALL_BYTES_MAX,
  type StagingTask,
  type StagingTotals,
  type WantedContent,
} from "./contents.ts";
import { throwIfInterrupted } from "./interruption.ts";
import { guarded } from "./io-failure.ts";

/**
 * Many small contents in one answer: a request for each of 40,000 files would cost more than the files.
 *
 * A bundle that is cut gives what came whole before the cut, and the beginning of what was coming; the next request names only
 * the rest. Contents are decoded
 * with a cap on their length, verified and written beside this thread (content-writer.ts), a batch at a time.
 */
const BUNDLE_BYTES_MAX = 32 * 1024 * 1024;
const BUNDLE_CONTENTS_MAX = 4096;
/** Contents of one batch for the writer. */
const BATCH_CONTENTS_MAX = 256;
/** How long what came may wait to be written: whoever is killed loses it. */
const BATCH_MS_MAX = 100;
/** What is longer in coming than this comes slowly; */
const SLOW_MS = 20;
/** then a content this long does not keep those before it from being written while it comes. */
const SLOW_CONTENT_BYTES = 64 * 1024;
/** So much of a content on its way is written as it comes. */
const COMING_BYTES_MIN = 32 * 1024;
/** Less of a content that was cut is not kept. */
const BEGUN_BYTES_MIN = 1024;
/** After a cut as much is asked for as came before it, times this, since what is asked for travels compressed. */
const ASK_SHARE = 4;
const ASK_BYTES_MIN = 256 * 1024;
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
  const persistence = new Persistence(task.clock, task.signal, task.client);
  let askBytes = Number.POSITIVE_INFINITY;
  while (left.size > 0) {
    throwIfInterrupted(task.signal);
    const asked = beginningOf(left, askBytes);
    const wanted = [...asked.keys()];
    const received = totals.receivedBytes;
    const cut: { begun: WantedContent | null } = { begun: null };
    try {
      await receive(task, writer, asked, totals, done, cut);
      if (asked.size > 0) throw incomplete(task, asked);
      askBytes *= 2;
    } catch (error) {
      askBytes = Math.max(ASK_BYTES_MIN, ASK_SHARE * (totals.receivedBytes - received));
      if (asked.size < wanted.length || cut.begun !== null) persistence.progress();
      await persistence.after(error);
    }
    for (const sha256 of wanted) if (!asked.has(sha256)) left.delete(sha256);
    if (cut.begun === null) continue;
    await fetchLarge(task, [cut.begun], totals, copyToOthers, 1);
    left.delete(cut.begun.sha256);
    done(cut.begun);
  }
}

/** The first contents, up to so many bytes: where a line is cut all the time, naming all of them each time costs more than what comes. */
function beginningOf(left: ReadonlyMap<Sha256, WantedContent>, bytesMax: number): Map<Sha256, WantedContent> {
  const first = new Map<Sha256, WantedContent>();
  let bytes = 0;
  for (const [sha256, content] of left) {
    if (bytes >= bytesMax) break;
    first.set(sha256, content);
    bytes += content.size;
  }
  return first;
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

/**
 * Receives one answer and takes what came whole out of `left`. The content in whose middle the answer was cut goes to where
 * large ones are on their way, so that only its rest is fetched.
 */
async function receive(
  task: StagingTask,
  writer: ContentWriter,
  left: Map<Sha256, WantedContent>,
  totals: StagingTotals,
  done: (content: WantedContent) => void,
  cut: { begun: WantedContent | null },
): Promise<void> {
  totals.requests++;
  const reader = new ContentStreamReader({
    documentBytesMax: 64 * 1024,
    contentBytesMax: SMALL_BYTES_MAX + STORED_SLACK_BYTES,
  });
  const batches = new BatchAssembly(task, writer, left, done);
  const keeping = setInterval(() => batches.keepComing(), BATCH_MS_MAX);
  try {
    const chunks = await task.client.bundle([...left.keys()], { signal: task.signal });
    for await (const chunk of chunks) {
      totals.receivedBytes += chunk.length;
      for (const event of events(reader, chunk)) await batches.take(event);
      throwIfInterrupted(task.signal);
    }
  } finally {
    clearInterval(keeping);
    cut.begun = batches.keepBegun();
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
  /** When the first of them began to come, by the monotonic clock. */
  sinceMs: number;
}

const emptyLane = (): Lane => ({ buffer: null, batch: [], wanted: [], filled: 0, decoded: 0, sinceMs: 0 });

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
  #header: ContentHeader | null = null;
  /** Bytes of the coming content that are on the disk. */
  #kept = 0;
  /** When the coming content began, by the monotonic clock. */
  #beganMs = 0;
  /** Contents whose beginning is on the disk until they stand whole in their places. */
  readonly #begun = new Set<Sha256>();
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
      if (this.#task.clock.monotonic() - this.#beganMs > SLOW_MS) this.#keepOn();
    } else if (event.kind === "content-end" && this.#coming !== null) this.#add(this.#coming, event.header);
  }

  async #begin(header: ContentHeader): Promise<void> {
    expected(header, this.#left);
    const lane = this.#lanes[header.encoding];
    const full =
      lane.filled + header.stored > BATCH_BYTES ||
      lane.decoded + header.size > BATCH_DECODED_BYTES ||
      lane.batch.length >= BATCH_CONTENTS_MAX ||
      (header.stored >= SLOW_CONTENT_BYTES && this.#isOlder(lane, SLOW_MS));
    if (full) this.#handOver(lane);
    if (lane.batch.length === 0) lane.sinceMs = this.#task.clock.monotonic();
    lane.buffer ??= await this.#writer.buffer();
    this.#coming = lane;
    this.#header = header;
    this.#kept = 0;
    this.#beganMs = this.#task.clock.monotonic();
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
    // On a slow line a batch is long in coming.
    if (this.#isOlder(lane, BATCH_MS_MAX)) this.#handOver(lane);
  }

  #isOlder(lane: Lane, ms: number): boolean {
    return lane.batch.length > 0 && this.#task.clock.monotonic() - lane.sinceMs > ms;
  }

  /** Keeps the beginning of the content that was coming, where that saves more than the request for its rest costs. */
  keepBegun(): WantedContent | null {
    const lane = this.#coming;
    const header = this.#header;
    const content = header === null ? undefined : this.#left.get(header.sha256);
    if (lane?.buffer == null || header === null || content === undefined) return null;
    if (this.#position - lane.filled < BEGUN_BYTES_MIN) return null;
    this.#keep(lane, header);
    return content;
  }

  /** Writes what has waited, from time to time: a lane can stand still while another one fills. */
  keepComing(): void {
    for (const other of Object.values(this.#lanes))
      if (other !== this.#coming && this.#isOlder(other, BATCH_MS_MAX)) this.#handOver(other);
    this.#keepOn();
  }

  /** Writes more of the coming content: on a slow line it can be long in coming. A failure is told when it counts. */
  #keepOn(): void {
    const lane = this.#coming;
    if (lane === null || this.#header === null) return;
    if (this.#position - lane.filled - this.#kept < COMING_BYTES_MIN) return;
    try {
      this.#keep(lane, this.#header);
    } catch (error) {
      this.#failure ??= { error };
    }
  }

  #keep({ buffer, filled }: Lane, { sha256, encoding }: ContentHeader): void {
    if (buffer === null) return;
    const path = this.#task.partial.travellingPath(sha256, encoding);
    const from = filled + this.#kept;
    const bytes = new Uint8Array(buffer, from, this.#position - from);
    const flag = this.#kept === 0 ? "w" : "a";
    guarded(path, "writing", () => writeFileSync(path, bytes, { flag, mode: 0o600 }));
    this.#kept = this.#position - filled;
    this.#begun.add(sha256);
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
      // With one that is wrong, since its beginning may be to blame the next time.
      for (const { sha256 } of wanted.slice(0, written + 1))
        if (this.#begun.delete(sha256)) this.#task.partial.drop(sha256);
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
