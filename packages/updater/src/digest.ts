import { availableParallelism } from "node:os";
import { Worker } from "node:worker_threads";
import type { Sha256 } from "@lockstep/core";
import { interruptedError } from "./interruption.ts";

/**
 * Digests of many files at the speed of the disk and all cores.
 *
 * Promises of file calls cost three times a synchronous read (docs/benchmarks.md), so worker threads read
 * synchronously, and this thread only hands out names. What a worker runs is made from the text of the functions below,
 * because the updater ships as one file and has no second one to start a worker from.
 *
 * A look never follows a link and never waits for a pipe. It says what the system said of the very descriptor that was
 * read, and reads again when that changed meanwhile, so that digest and metadata belong together.
 */
export type Look =
  | {
      readonly kind: "file";
      readonly size: number;
      readonly mode: number;
      readonly mtimeMs: number;
      readonly ctimeMs: number;
      readonly ino: number;
      /** Null when the file kept changing while it was read. */
      readonly sha256: Sha256 | null;
    }
  | { readonly kind: "missing" | "link" | "folder" | "other" }
  /** The disk does not give its content any more (EIO); what the directory says of it. */
  | { readonly kind: "lost"; readonly size: number; readonly mode: number }
  | { readonly kind: "failed"; readonly code: string };

export interface DigestOptions {
  readonly signal?: AbortSignal | undefined;
  /** Called after each batch. */
  readonly onProgress?: (files: number, bytes: number) => void;
  /** Bytes that are to be expected, as far as known: few are read without starting a thread. */
  readonly bytesExpected: number;
  readonly threads?: number;
}

/** Below this, starting a worker takes longer than reading. */
const DIRECT_BYTES_MAX = 16 * 1024 * 1024;
const DIRECT_FILES_MAX = 200;
const BATCH_FILES = 256;
const BUFFER_BYTES = 1024 * 1024;

/** Looks at each file and reads it. The results are in the order of the paths. Throws INTERRUPTED. */
export async function lookAtFiles(paths: readonly string[], options: DigestOptions): Promise<Look[]> {
  const { signal } = options;
  if (paths.length <= DIRECT_FILES_MAX && options.bytesExpected <= DIRECT_BYTES_MAX) {
    const look = makeLook(process.getBuiltinModule.bind(process), BUFFER_BYTES);
    return paths.map((path) => {
      if (signal?.aborted) throw interruptedError(signal);
      const found = look(path);
      options.onProgress?.(1, found.kind === "file" ? found.size : 0);
      return found;
    });
  }
  return await lookInThreads(paths, options);
}

/** What a worker answers: the number of its batch, and a look for each of its paths. */
interface BatchAnswer {
  readonly start: number;
  readonly looks: readonly Look[];
}

async function lookInThreads(paths: readonly string[], options: DigestOptions): Promise<Look[]> {
  const looks = new Array<Look>(paths.length);
  const threads = Math.min(
    options.threads ?? Math.min(availableParallelism(), 8),
    Math.ceil(paths.length / 8),
  );
  let next = 0;
  // Smaller batches at the end, so that no thread waits for the last one of another.
  const take = () => {
    const left = paths.length - next;
    const count = Math.max(1, Math.min(BATCH_FILES, Math.ceil(left / (threads * 4))));
    const batch = { start: next, paths: paths.slice(next, next + count) };
    next += count;
    return batch;
  };
  const run = (worker: Worker) =>
    new Promise<void>((resolve, reject) => {
      const give = () => {
        if (options.signal?.aborted) reject(interruptedError(options.signal));
        else if (next >= paths.length) resolve();
        else worker.postMessage(take());
      };
      worker.on("error", reject);
      worker.on("message", ({ start, looks: found }: BatchAnswer) => {
        let bytes = 0;
        for (const [index, look] of found.entries()) {
          looks[start + index] = look;
          if (look.kind === "file") bytes += look.size;
        }
        options.onProgress?.(found.length, bytes);
        give();
      });
      give();
    });
  const source = `(${serve.toString()})((${makeLook.toString()})(process.getBuiltinModule.bind(process), ${BUFFER_BYTES}))`;
  const workers = Array.from({ length: Math.max(1, threads) }, () => new Worker(source, { eval: true }));
  try {
    await Promise.all(workers.map(run));
  } finally {
    await Promise.all(workers.map((worker) => worker.terminate()));
  }
  return looks;
}

/** Runs in a worker, from its text alone: nothing of this module can be used in it. */
function serve(look: (path: string) => Look): void {
  const { parentPort } = process.getBuiltinModule("node:worker_threads");
  parentPort?.on("message", ({ start, paths }: { start: number; paths: string[] }) => {
    parentPort.postMessage({ start, looks: paths.map((path) => look(path)) });
  });
}

/** Makes the function that looks at one file. Also used from its text alone. */
function makeLook(load: typeof process.getBuiltinModule, bufferBytes: number): (path: string) => Look {
  const fs = load("node:fs");
  const crypto = load("node:crypto");
  const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = fs.constants;
  // Windows has neither flag; there the caller has looked for links before.
  const flags = O_RDONLY | (O_NOFOLLOW ?? 0) | (O_NONBLOCK ?? 0);
  const buffer = Buffer.allocUnsafeSlow(bufferBytes);

  const readAll = (descriptor: number): string => {
    let length = fs.readSync(descriptor, buffer, 0, bufferBytes, 0);
    if (length < bufferBytes) {
      // One call more tells a short read from the end; a file that fits is hashed in one go.
      const more = length === 0 ? 0 : fs.readSync(descriptor, buffer, length, bufferBytes - length, length);
      if (more === 0) return crypto.hash("sha256", buffer.subarray(0, length), "hex");
      length += more;
    }
    const hash = crypto.createHash("sha256");
    let position = length;
    for (; length > 0; position += length) {
      hash.update(buffer.subarray(0, length));
      length = fs.readSync(descriptor, buffer, 0, bufferBytes, position);
    }
    return hash.digest("hex");
  };

  return (path) => {
    let descriptor: number | null = null;
    let before: ReturnType<typeof fs.fstatSync> | null = null;
    try {
      descriptor = fs.openSync(path, flags);
      for (let attempt = 0; ; attempt++) {
        before = fs.fstatSync(descriptor);
        if (before.isDirectory()) return { kind: "folder" };
        if (!before.isFile()) return { kind: "other" };
        const sha256 = readAll(descriptor);
        const after = fs.fstatSync(descriptor);
        const steady =
          before.size === after.size && before.mtimeMs === after.mtimeMs && before.ctimeMs === after.ctimeMs;
        if (!steady && attempt < 2) continue;
        const { size, mode, mtimeMs, ctimeMs, ino } = after;
        return {
          kind: "file",
          size,
          mode: mode & 0o777,
          mtimeMs,
          ctimeMs,
          ino,
          sha256: steady ? sha256 : null,
        };
      }
    } catch (error) {
      const code = String((error as NodeJS.ErrnoException).code);
      if (code === "ENOENT" || code === "ENOTDIR") return { kind: "missing" };
      if (code === "ELOOP" || code === "EMLINK") return { kind: "link" };
      if (code === "ENXIO" || code === "ENODEV") return { kind: "other" };
      if (code === "EIO" && before?.isFile())
        return { kind: "lost", size: before.size, mode: before.mode & 0o777 };
      return { kind: "failed", code };
    } finally {
      if (descriptor !== null) fs.closeSync(descriptor);
    }
  };
}
