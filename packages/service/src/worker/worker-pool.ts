import { type ChildProcess, spawn } from "node:child_process";
import { afterOwnTime } from "@lockstep/platform";
import type { StepResult } from "@lockstep/protocol/wire";
import { killMarked, SERVICE_VARIABLE, WORKER_VARIABLE } from "./marked-processes.ts";
import { readMessage, type ToWorker } from "./messages.ts";

/** How a step in a worker ended. `died`: nobody knows how far it came; `not-started`: it did not begin. */
export type WorkerEnd =
  | { readonly kind: "ended"; readonly result: StepResult; readonly terminate: boolean }
  | { readonly kind: "not-started"; readonly how: string }
  | { readonly kind: "died"; readonly how: string };

export interface WorkerListener {
  log(level: "info" | "warn" | "error", text: string): void;
  hide(value: string): void;
}

export interface WorkerPoolOptions {
  /** The program and its first arguments. */
  readonly program: readonly string[];
  /** What all workers of this service have in common in their environment. */
  readonly service: string;
  readonly environment: () => Readonly<Record<string, string>>;
  readonly reuseMax: () => number;
  readonly idleMs: () => number;
  readonly uuid: () => string;
  readonly now: () => number;
}

/**
 * External workers of one queue: made when a step needs one, reused up to a number of times, and ended when they had
 * nothing to do for a while. Each leads a process group of its own.
 */
export class WorkerPool {
  readonly #options: WorkerPoolOptions;
  readonly #all = new Set<Worker>();

  constructor(options: WorkerPoolOptions) {
    this.#options = options;
  }

  get workers(): readonly Worker[] {
    return [...this.#all];
  }

  /**
   * An idle worker, or a new one, which may turn out not to start. Throws the system's own error where there is not even
   * room to try.
   */
  take(): Worker {
    for (const worker of this.#all) if (worker.claim()) return worker;
    const worker = new Worker(this.#options, () => this.#all.delete(worker));
    worker.claim();
    this.#all.add(worker);
    return worker;
  }

  /** The step of this worker has ended well; it may get another one. */
  giveBack(worker: Worker): void {
    if (worker.uses >= this.#options.reuseMax()) worker.end();
    else worker.rest(this.#options.idleMs());
  }

  /** Ends all, with what they started. Resolves when none is left. */
  async close(): Promise<void> {
    const workers = this.workers;
    for (const worker of workers) worker.kill();
    await Promise.all(workers.map(({ exited }) => exited));
  }
}

/** How long the channel of a worker that has died is read at most, should something else hold it open. */
const LAST_WORDS_MS = 5000;

export class Worker {
  readonly startedAt: number;
  readonly exited: Promise<void>;
  uses = 0;
  /** The step that it works on. */
  step: number | null = null;
  readonly #child: ChildProcess;
  readonly #mark: string;
  #idle: NodeJS.Timeout | undefined;
  #busy = false;
  #over = false;
  #killed = false;

  constructor(options: WorkerPoolOptions, onExit: () => void) {
    const [program = process.execPath, ...args] = options.program;
    this.#mark = options.uuid();
    this.startedAt = options.now();
    this.#child = spawn(program, args, {
      env: {
        ...ownEnvironment(),
        ...options.environment(),
        [SERVICE_VARIABLE]: options.service,
        [WORKER_VARIABLE]: this.#mark,
      },
      cwd: "/",
      // What it writes outside of its channel is a fault of its own, which somebody should see.
      stdio: ["ignore", "ignore", "inherit", "ipc"],
      detached: process.platform !== "win32",
      windowsHide: true,
    });
    this.exited = new Promise((resolve) => {
      const over = () => {
        if (this.#over) return;
        this.#over = true;
        clearTimeout(this.#idle);
        onExit();
        resolve();
      };
      this.#child.once("exit", over);
      this.#child.once("error", () => {
        if (this.#child.pid === undefined) over();
      });
    });
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  get marker(): Readonly<Record<string, string>> {
    return { [WORKER_VARIABLE]: this.#mark };
  }

  /** Whether it is free and now ours. */
  claim(): boolean {
    if (this.#busy || this.#over || this.#killed) return false;
    this.#busy = true;
    clearTimeout(this.#idle);
    return true;
  }

  /** Runs one step. Resolves with how it ended, also when the worker dies. */
  run(message: Extract<ToWorker, { kind: "run" }>, listener: WorkerListener): Promise<WorkerEnd> {
    this.uses += 1;
    this.step = message.step.id;
    return new Promise((resolve) => {
      let callOff = () => {};
      const finish = (end: WorkerEnd) => {
        this.#child.off("message", onMessage).off("exit", onExit).off("close", onClose).off("error", onError);
        callOff();
        this.step = null;
        resolve(end);
      };
      const onMessage = (received: unknown) => {
        const said = readMessage(received, message.step);
        if (said === null) return;
        if (said.kind === "log") listener.log(said.level, said.text);
        else if (said.kind === "hide") listener.hide(said.value);
        else finish({ kind: "ended", result: said.result, terminate: said.terminate });
      };
      // What it said before it died may come after the news that it has died, and counts: its step would be done once more.
      const onExit = (status: number | null, signal: NodeJS.Signals | null) => {
        this.#sweep();
        callOff = afterOwnTime(LAST_WORDS_MS, () => onClose(status, signal));
      };
      const onClose = (status: number | null, signal: NodeJS.Signals | null) => {
        this.#sweep();
        finish({
          kind: "died",
          how: signal === null ? `ended with status ${status}` : `was ended by ${signal}`,
        });
      };
      const onError = (error: Error) => {
        if (this.#child.pid === undefined)
          finish({ kind: "not-started", how: `could not be started: ${error.message}` });
      };
      this.#child.on("message", onMessage).on("exit", onExit).on("close", onClose).on("error", onError);
      if (this.#over) onClose(this.#child.exitCode, this.#child.signalCode);
      else this.#send(message);
    });
  }

  extend(deadline: number): void {
    this.#send({ kind: "deadline", deadline });
  }

  stop(message: string): void {
    this.#send({ kind: "stop", message });
  }

  /** Waits for the next step, for so long. */
  rest(idleMs: number): void {
    this.#busy = false;
    this.#idle = setTimeout(() => this.end(), idleMs);
    this.#idle.unref();
  }

  /** Ends it when it has nothing to do; what a step left running on purpose stays. */
  end(): void {
    this.#busy = true;
    if (this.#over) return;
    this.#killed = true;
    const { pid } = this.#child;
    if (pid !== undefined) killGroup(pid);
  }

  /** Ends it at once, with every process that came from it. */
  kill(): void {
    this.end();
    this.#sweep();
  }

  #sweep(): void {
    killMarked(WORKER_VARIABLE, this.#mark);
  }

  #send(message: ToWorker): void {
    if (this.#over || !this.#child.connected) return;
    this.#child.send(message, () => {
      // It has died; its end tells.
    });
  }
}

function killGroup(pid: number): void {
  try {
    process.kill(process.platform === "win32" ? pid : -pid, "SIGKILL");
  } catch {
    // It has ended.
  }
}

/** A step may do what it likes with what it finds in its environment; the token of the hub is not for it. */
function ownEnvironment(): Record<string, string> {
  const kept: Record<string, string> = {};
  for (const [name, value] of Object.entries(process.env))
    if (
      value !== undefined &&
      !name.startsWith("LOCKSTEP_") &&
      name !== "NOTIFY_SOCKET" &&
      name !== "NODE_CHANNEL_FD"
    )
      kept[name] = value;
  return kept;
}
