import { type ChildProcess, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Screen } from "./screen.ts";

/** The real `lockstep` command, as a person would start it. */
export class Programs {
  readonly #bin: string;
  readonly #directory: string;
  readonly #env: NodeJS.ProcessEnv;
  readonly #screen: Screen;
  readonly #running = new Map<string, ChildProcess>();

  constructor(checkout: string, directory: string, screen: Screen) {
    this.#screen = screen;
    this.#bin = join(checkout, "packages", "cli", "bin", "lockstep.mjs");
    this.#directory = directory;
    // A hub or a token that the user's environment names has no part in this.
    const { LOCKSTEP_HUB: _hub, LOCKSTEP_TOKEN: _token, ...env } = process.env;
    this.#env = env;
  }

  /** From now on commands talk to this hub. */
  useHub(url: string): void {
    this.#env.LOCKSTEP_HUB = url;
  }

  /** Starts a program that goes on, and resolves when it writes a line that begins with `ready`. */
  async start(name: string, args: readonly string[], ready: string, signal: AbortSignal): Promise<string> {
    const child = this.#spawn(args, "pipe");
    this.#running.set(name, child);
    const errors: string[] = [];
    child.stderr?.on("data", (chunk) => errors.push(String(chunk)));
    return new Promise((resolve, reject) => {
      const give = (error: Error) => reject(error);
      signal.addEventListener("abort", () => give(asError(signal.reason)), { once: true });
      child.once("error", give);
      child.once("exit", (status) => {
        this.#running.delete(name);
        give(new Error(`lockstep ${args[0]} ended with status ${status}:\n${errors.join("").trimEnd()}`));
      });
      if (child.stdout !== null)
        createInterface(child.stdout).on("line", (line) => {
          if (line.startsWith(ready)) resolve(line.slice(ready.length).trim());
        });
    });
  }

  /** Starts a program that goes on; each line that it writes is handed on. */
  follow(
    name: string,
    args: readonly string[],
    onLine: (line: string) => void,
    onEnd: (why: string) => void,
  ): void {
    const child = this.#spawn(args, "pipe");
    this.#running.set(name, child);
    for (const stream of [child.stdout, child.stderr])
      if (stream !== null) createInterface(stream).on("line", onLine);
    child.once("error", (error) => onEnd(error.message));
    child.once("exit", (status, signal) => {
      this.#running.delete(name);
      onEnd(signal ?? `status ${status}`);
    });
  }

  /**
   * Runs a command to its end, and resolves to what it wrote on standard output. A terminal is handed to it for its
   * progress bar; what it writes into a log is put below its command line.
   */
  async run(args: readonly string[], signal: AbortSignal): Promise<string> {
    const child = this.#spawn(args, this.#screen.terminal.interactive ? "inherit" : "pipe");
    if (child.stderr !== null) createInterface(child.stderr).on("line", (line) => this.#screen.remark(line));
    const name = `${args[0]}-${child.pid}`;
    this.#running.set(name, child);
    const output: Buffer[] = [];
    child.stdout?.on("data", (chunk: Buffer) => output.push(chunk));
    const stop = () => child.kill("SIGTERM");
    signal.addEventListener("abort", stop, { once: true });
    try {
      const status = await new Promise<number | null>((resolve, reject) => {
        child.once("error", reject);
        child.once("close", resolve);
      });
      signal.throwIfAborted();
      if (status !== 0) throw new Error(`lockstep ${args.join(" ")} ended with status ${status}`);
      return Buffer.concat(output).toString("utf8");
    } finally {
      signal.removeEventListener("abort", stop);
      this.#running.delete(name);
    }
  }

  /** Ends a program that goes on and waits for it; one that does not listen is killed. */
  async stop(name: string): Promise<void> {
    const child = this.#running.get(name);
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()));
    child.kill("SIGTERM");
    const insist = setTimeout(() => child.kill("SIGKILL"), STOP_MS);
    await ended;
    clearTimeout(insist);
  }

  /** Ends everything, in the order opposite to the start. */
  async stopAll(): Promise<void> {
    for (const name of [...this.#running.keys()].reverse()) await this.stop(name);
    this.#killDatabase();
  }

  /** A hub that had to be killed leaves its database server behind; the demonstration must not. */
  #killDatabase(): void {
    try {
      const [line] = readFileSync(
        join(this.#directory, "hub", "postgres", "data", "postmaster.pid"),
        "utf8",
      ).split("\n");
      process.kill(Number(line), "SIGQUIT");
    } catch {
      // It has ended, as it should.
    }
  }

  #spawn(args: readonly string[], stderr: "pipe" | "inherit"): ChildProcess {
    return spawn(process.execPath, [this.#bin, ...args], {
      cwd: this.#directory,
      env: this.#env,
      stdio: ["ignore", "pipe", stderr],
    });
  }
}

/** A hub that is told to end while it makes its database ends when it has it, which takes minutes on a busy machine. */
const STOP_MS = 300_000;

function asError(reason: unknown): Error {
  return reason instanceof Error ? reason : new Error(String(reason));
}
