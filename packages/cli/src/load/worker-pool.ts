import { realpathSync } from "node:fs";
import { availableParallelism } from "node:os";
import { pathToFileURL } from "node:url";
import { Worker } from "node:worker_threads";
import { carryOut, type WorkAnswer, type WorkOrder } from "./work.ts";

/** The first argument of a thread: our program runs again in it, and turns into a worker at once. */
export const WORKER_ARGUMENT = "--lockstep-load-worker";

const THREADS_MAX = 4;
/** A thread keeps next to nothing: with much room for what is new it would only fill that room. */
const YOUNG_MEBIBYTES = 2;

/**
 * A few threads that read, digest and compress. Each gets its next order while it still works on the one before, so
 * that it never waits; the caller limits how many orders are under way, and with them the memory.
 */
export class WorkerPool {
  readonly #workers: Worker[] = [];
  readonly #waiting: ((answer: WorkAnswer | Error) => void)[][] = [];

  /** With no threads at all the orders are carried out at once, which is quicker for a handful of files. */
  constructor(threads: number = Math.min(THREADS_MAX, availableParallelism())) {
    for (let index = 0; index < threads; index++) {
      const worker = new Worker(programFile(), {
        argv: [WORKER_ARGUMENT],
        stdout: false,
        stderr: false,
        resourceLimits: { maxYoungGenerationSizeMb: YOUNG_MEBIBYTES },
      });
      const waiting: ((answer: WorkAnswer | Error) => void)[] = [];
      worker.on("message", (answer: WorkAnswer) => waiting.shift()?.(answer));
      const fail = (error: Error) => {
        for (const settle of waiting.splice(0)) settle(error);
      };
      worker.on("error", fail);
      worker.on("exit", (code) => fail(new Error(`a worker thread ended with ${code}`)));
      // The pool must never keep a process alive that has nothing else to do.
      worker.unref();
      this.#workers.push(worker);
      this.#waiting.push(waiting);
    }
  }

  /** Orders that keep all threads busy without piling up. */
  get ordersWanted(): number {
    return Math.max(1, this.#workers.length * 2);
  }

  /** Gives an order to the thread with the least to do. Rejects when that thread dies. */
  run(order: WorkOrder): Promise<WorkAnswer> {
    let least = 0;
    this.#waiting.forEach((waiting, index) => {
      if (waiting.length < (this.#waiting[least]?.length ?? 0)) least = index;
    });
    const worker = this.#workers[least];
    const waiting = this.#waiting[least];
    if (worker === undefined || waiting === undefined)
      return new Promise((resolve) => resolve(carryOut(order)));
    return new Promise((resolve, reject) => {
      waiting.push((answer) => (answer instanceof Error ? reject(answer) : resolve(answer)));
      worker.ref();
      worker.postMessage(order, order.kind === "encode" && order.room !== undefined ? [order.room] : []);
    });
  }

  /** Ends all threads, whatever they are doing. */
  async close(): Promise<void> {
    await Promise.all(this.#workers.map((worker) => worker.terminate()));
  }
}

/** The file of our program: this checkout's main.ts, or whatever of a bundle was started. */
function programFile(): URL {
  const here = new URL(import.meta.url);
  if (here.pathname.endsWith("/load/worker-pool.ts")) return new URL("../main.ts", here);
  return pathToFileURL(realpathSync(process.argv[1] ?? ""));
}
