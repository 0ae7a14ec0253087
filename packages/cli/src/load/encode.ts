import type { UploadContent, UploadPart } from "@lockstep/client";
import { batches } from "./digest.ts";
import { largeContent } from "./large-content.ts";
import { sourceChanged, sourceFailure } from "./source-changed.ts";
import {
  type DigestedFile,
  ENCODE_BYTES_MAX,
  ENCODE_FILES_MAX,
  SMALL_FILE_BYTES_MAX,
  SourceChanged,
  type WorkAnswer,
} from "./work.ts";
import type { WorkerPool } from "./worker-pool.ts";

/** What travels at once, and how many bytes of files it stands for. */
export interface EncodedPart {
  readonly part: UploadPart;
  readonly decodedBytes: number;
}

/**
 * Makes the contents of files ready to travel, in memory that does not depend on their number or size: a few batches
 * of small files are under way in the threads, and one large file at a time is prepared in the background, which
 * travels as soon as it is ready. The order means nothing.
 *
 * Throws LOAD_SOURCE_CHANGED when a file is not what it was when it was digested.
 */
export async function* encodeContents(
  base: string,
  files: readonly DigestedFile[],
  pool: WorkerPool,
  signal: AbortSignal,
): AsyncGenerator<EncodedPart, void> {
  const large = new LargeFiles(
    base,
    files.filter((file) => file.size > SMALL_FILE_BYTES_MAX),
    signal,
  );
  try {
    const small = files.filter((file) => file.size <= SMALL_FILE_BYTES_MAX);
    for await (const part of encodeSmall(base, small, pool)) {
      signal.throwIfAborted();
      yield part;
      if (large.ready) yield* large.next();
    }
    while (large.left) yield* large.next();
  } finally {
    large.dispose();
  }
}

async function* encodeSmall(
  base: string,
  files: readonly DigestedFile[],
  pool: WorkerPool,
): AsyncGenerator<EncodedPart, void> {
  const ahead: Promise<WorkAnswer>[] = [];
  const rooms: ArrayBuffer[] = [];
  const orders = batches(files, ENCODE_FILES_MAX, ENCODE_BYTES_MAX);
  const order = () => {
    const next = orders.next();
    if (next.done === true) return;
    const work = pool.run({ kind: "encode", base, files: next.value.batch, room: rooms.pop() });
    // Looked at in its turn; until then nobody may call it unhandled.
    work.catch(() => {});
    ahead.push(work);
  };
  for (let i = 0; i < pool.ordersWanted; i++) order();
  for (let work = ahead.shift(); work !== undefined; work = ahead.shift()) {
    const answer = await work;
    order();
    if (answer.kind !== "encode") throw new TypeError("an answer to another order");
    if (answer.faults.length > 0) throw sourceFailure(answer.faults);
    const { frames, contents, decodedBytes } = answer;
    yield { part: { frames, contents }, decodedBytes };
    // Whoever comes for the next part has sent this one.
    rooms.push(frames.buffer);
  }
}

/** The large files of a load, of which one is being prepared while others travel. */
class LargeFiles {
  readonly #base: string;
  readonly #files: readonly DigestedFile[];
  readonly #signal: AbortSignal;
  #at = 0;
  #prepared: ReturnType<typeof largeContent> | null = null;
  /** Whether the next one can travel at once. */
  ready = false;

  constructor(base: string, files: readonly DigestedFile[], signal: AbortSignal) {
    this.#base = base;
    this.#files = files;
    this.#signal = signal;
    this.#prepare();
  }

  get left(): boolean {
    return this.#prepared !== null;
  }

  async *next(): AsyncGenerator<EncodedPart, void> {
    const file = this.#files[this.#at++];
    const prepared = this.#prepared;
    if (file === undefined || prepared === null) return;
    let dispose = () => {};
    try {
      const made = await prepared;
      dispose = made.dispose;
      this.#prepare();
      const part = { header: made.content.header, bytes: named(file, made.content.bytes) };
      yield { part, decodedBytes: file.size };
    } catch (error) {
      throw nameSource(file, error);
    } finally {
      dispose();
    }
  }

  /** Gives back what was prepared and will not travel. */
  dispose(): void {
    this.#prepared?.then(({ dispose }) => dispose()).catch(() => {});
    this.#prepared = null;
  }

  #prepare(): void {
    this.ready = false;
    const file = this.#files[this.#at];
    this.#prepared = file === undefined ? null : largeContent(this.#base, file, this.#signal);
    this.#prepared
      ?.then(() => {
        this.ready = true;
      })
      // Thrown to whoever takes it.
      .catch(() => {
        this.ready = true;
      });
  }
}

async function* named(file: DigestedFile, bytes: UploadContent["bytes"]): AsyncGenerator<Uint8Array, void> {
  try {
    yield* bytes instanceof Uint8Array ? [bytes] : bytes;
  } catch (error) {
    throw nameSource(file, error);
  }
}

function nameSource(file: DigestedFile, error: unknown): unknown {
  return error instanceof SourceChanged
    ? sourceChanged([{ path: file.path, problem: error.message }])
    : error;
}
