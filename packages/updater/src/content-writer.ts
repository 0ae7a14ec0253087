import { availableParallelism } from "node:os";
import { Worker } from "node:worker_threads";
import type { Sha256 } from "@lockstep/core";
import { ioFailure } from "./io-failure.ts";

/**
 * Decodes, verifies and writes small contents, many at a time, beside the thread that receives them.
 *
 * A decoder for each of ten thousand small files costs more than the decoding, and creating the files costs more than
 * both. So contents come in batches: all compressed frames of a batch go through one decoder, which takes several frames
 * one after the other, and the result is cut by the promised lengths. A frame that lies about its length moves all cuts
 * behind it; then the digests do not agree, and the batch is decoded again one by one, to name the one that lied.
 *
 * Batches travel in a handful of buffers that go back and forth between the threads, so memory stays the same however
 * much comes.
 */
export interface BatchContent {
  readonly sha256: Sha256;
  /** Decoded length in bytes. */
  readonly size: number;
  readonly zstd: boolean;
  /** Where its bytes lie in the batch. */
  readonly offset: number;
  readonly stored: number;
  /** Where it is to be written, as new files with this mode. */
  readonly places: readonly string[];
  readonly mode: number;
}

/** What became of a batch: how many contents were written, and what is wrong with the next one. */
export interface BatchOutcome {
  readonly written: number;
  readonly fault:
    | null
    | { readonly kind: "content"; readonly sha256: Sha256; readonly expected: string; readonly found: string }
    | { readonly kind: "disk"; readonly place: string; readonly code: string; readonly message: string };
}

/** Bytes of a batch as it travels. A content is never larger than that. */
export const BATCH_BYTES = 1152 * 1024;
/** Bytes of a batch when it is decoded. */
export const BATCH_DECODED_BYTES = 1024 * 1024;
const BUFFERS_MAX = 5;
const THREADS_MAX = 2;

type Unpack = (contents: readonly BatchContent[], bytes: Uint8Array) => BatchOutcome;

export class ContentWriter {
  readonly #workers: { readonly worker: Worker; readonly answers: ((answer: Answer) => void)[] }[] = [];
  readonly #direct: Unpack | null;
  readonly #free: ArrayBuffer[] = [];
  readonly #waiting: ((buffer: ArrayBuffer) => void)[] = [];
  #buffers = 0;
  #turn = 0;
  #broken: Error | null = null;

  /** `threads` 0: everything happens in this thread, which is cheaper for a few contents. */
  constructor(threads: number) {
    this.#direct = threads === 0 ? makeUnpack(process.getBuiltinModule.bind(process)) : null;
    const source = `(${serve.toString()})((${makeUnpack.toString()})(process.getBuiltinModule.bind(process)))`;
    for (let i = 0; i < threads; i++) {
      const worker = new Worker(source, { eval: true, resourceLimits: { maxYoungGenerationSizeMb: 4 } });
      const answers: ((answer: Answer) => void)[] = [];
      worker.on("message", (answer: Answer) => answers.shift()?.(answer));
      worker.on("error", (error) => {
        this.#broken = error instanceof Error ? error : new Error(String(error));
        for (const answer of answers.splice(0)) answer({ buffer: new ArrayBuffer(0), outcome: null });
      });
      this.#workers.push({ worker, answers });
    }
  }

  /** As many threads as are worth their start for this amount. */
  static threadsFor(contents: number, bytes: number): number {
    if (contents < 200 && bytes < 8 * 1024 * 1024) return 0;
    return Math.max(1, Math.min(THREADS_MAX, availableParallelism() - 1));
  }

  /** A buffer for the next batch; waits while all are on their way. */
  async buffer(): Promise<ArrayBuffer> {
    const free = this.#free.pop();
    if (free !== undefined) return free;
    if (this.#buffers < BUFFERS_MAX) {
      this.#buffers++;
      return new ArrayBuffer(BATCH_BYTES);
    }
    return await new Promise((resolve) => this.#waiting.push(resolve));
  }

  /** Hands a batch over. Resolves when it is written; the buffer must not be used any more. Throws INSTALLATION_*. */
  async write(contents: readonly BatchContent[], buffer: ArrayBuffer): Promise<BatchOutcome> {
    const { buffer: back, outcome } = await this.#run(contents, buffer);
    if (outcome === null) throw this.#broken ?? new Error("a worker ended");
    const next = this.#waiting.shift();
    if (next === undefined) this.#free.push(back);
    else next(back);
    if (outcome.fault?.kind === "disk") {
      const { code, message, place } = outcome.fault;
      throw ioFailure(Object.assign(new Error(message), { code, syscall: "write" }), place, "writing");
    }
    return outcome;
  }

  async close(): Promise<void> {
    await Promise.all(this.#workers.map(({ worker }) => worker.terminate()));
  }

  async #run(contents: readonly BatchContent[], buffer: ArrayBuffer): Promise<Answer> {
    if (this.#direct !== null) return { buffer, outcome: this.#direct(contents, new Uint8Array(buffer)) };
    if (this.#broken !== null) throw this.#broken;
    const chosen = this.#workers[this.#turn++ % this.#workers.length];
    if (chosen === undefined) throw new RangeError("no worker");
    return await new Promise<Answer>((resolve) => {
      chosen.answers.push(resolve);
      chosen.worker.postMessage({ contents, buffer }, [buffer]);
    });
  }
}

interface Answer {
  readonly buffer: ArrayBuffer;
  /** Null: the worker broke down. */
  readonly outcome: BatchOutcome | null;
}

/** Runs in a worker, from its text alone: nothing of this module can be used in it. */
function serve(unpack: Unpack): void {
  const { parentPort } = process.getBuiltinModule("node:worker_threads");
  parentPort?.on("message", ({ contents, buffer }: { contents: BatchContent[]; buffer: ArrayBuffer }) => {
    const outcome = unpack(contents, new Uint8Array(buffer));
    parentPort.postMessage({ buffer, outcome }, [buffer]);
  });
}

/** Makes the function that unpacks a batch. Also used from its text alone. */
function makeUnpack(load: typeof process.getBuiltinModule): Unpack {
  const fs = load("node:fs");
  const { hash } = load("node:crypto");
  const { zstdDecompressSync, constants } = load("node:zlib");
  /** Memory that a frame may ask of its reader: 2^23 bytes. */
  const params = { [constants.ZSTD_d_windowLogMax]: 23 };

  const decode = (frames: Uint8Array, size: number): Buffer | null => {
    try {
      // The cap holds whatever the frames claim. One byte more tells a frame that is too long.
      const chunkSize = Math.max(size + 1, 64);
      const bytes = zstdDecompressSync(frames, { maxOutputLength: size + 1, chunkSize, params });
      return bytes.length === size ? bytes : null;
    } catch {
      return null;
    }
  };

  /** All compressed contents of a batch in one go; null when that does not give the promised length. */
  const decodeTogether = (contents: readonly BatchContent[], bytes: Uint8Array): Buffer | null => {
    const last = contents.at(-1);
    if (contents.length < 2 || last === undefined || !contents.every((content) => content.zstd)) return null;
    const size = contents.reduce((sum, content) => sum + content.size, 0);
    return decode(bytes.subarray(0, last.offset + last.stored), size);
  };

  const write = (content: BatchContent, bytes: Uint8Array): BatchOutcome["fault"] => {
    for (const place of content.places) {
      try {
        const file = fs.openSync(place, "wx", content.mode);
        try {
          for (let done = 0; done < bytes.length; ) done += fs.writeSync(file, bytes, done);
        } finally {
          fs.closeSync(file);
        }
      } catch (error) {
        const { code, message } = error as NodeJS.ErrnoException;
        return { kind: "disk", place, code: String(code), message };
      }
    }
    return null;
  };

  const writeOne = (
    content: BatchContent,
    stored: Uint8Array,
    guess: Uint8Array | null,
  ): BatchOutcome["fault"] => {
    const { sha256, size } = content;
    let plain = content.zstd ? guess : stored;
    let found = plain === null ? "" : hash("sha256", plain, "hex");
    if (content.zstd && found !== sha256) {
      plain = decode(stored, size);
      found = plain === null ? "" : hash("sha256", plain, "hex");
    }
    if (plain === null || plain.length !== size)
      return {
        kind: "content",
        sha256,
        expected: `${size} bytes`,
        found: "a broken frame or another length",
      };
    return found === sha256 ? write(content, plain) : { kind: "content", sha256, expected: sha256, found };
  };

  return (contents, bytes) => {
    const together = decodeTogether(contents, bytes);
    let at = 0;
    let outcome: BatchOutcome = { written: contents.length, fault: null };
    for (const [written, content] of contents.entries()) {
      const stored = bytes.subarray(content.offset, content.offset + content.stored);
      const fault = writeOne(content, stored, together?.subarray(at, at + content.size) ?? null);
      at += content.size;
      if (fault === null) continue;
      outcome = { written, fault };
      break;
    }
    // Gives the memory back now: left to the collector, some 60 MiB of it pile up before it looks at them. Only where it
    // is the decoder's own chunk, one byte longer than what it decoded: small ones lie in Node's pool, which others use.
    const memory = together?.buffer;
    if (memory instanceof ArrayBuffer && memory.byteLength === (together?.length ?? 0) + 1)
      memory.transfer(0);
    return outcome;
  };
}
