import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import type { TestContext } from "node:test";

/** The command as it stands in the checkout. */
export const PROGRAM = resolve(import.meta.dirname, "../../packages/cli/bin/lockstep.mjs");

export interface Ended {
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  readonly input?: string;
}

/** Runs the command in a process of its own, without a terminal, and returns what a script would see of it. */
export async function lockstep(args: readonly string[], options: RunOptions = {}): Promise<Ended> {
  const child = start(args, options);
  return await ended(child);
}

/** Starts the command and leaves it running. The environment is a clean one: nothing of this machine's settings. */
export function start(args: readonly string[], options: RunOptions = {}): ChildProcess {
  const { PATH = "", HOME = "" } = process.env;
  const child = spawn(process.execPath, [PROGRAM, ...args], {
    cwd: options.cwd ?? tmpdir(),
    env: { PATH, HOME, ...options.env },
    stdio: ["pipe", "pipe", "pipe"],
  });
  child.stdin?.end(options.input ?? "");
  return child;
}

/** Waits for the end of a process and collects what it says from now on. */
export function ended(child: ChildProcess): Promise<Ended> {
  let stdout = "";
  let stderr = "";
  child.stdout?.setEncoding("utf8").on("data", (text: string) => {
    stdout += text;
  });
  child.stderr?.setEncoding("utf8").on("data", (text: string) => {
    stderr += text;
  });
  return new Promise((resolveEnd, reject) => {
    child.once("error", reject);
    child.once("close", (status, signal) => resolveEnd({ status, signal, stdout, stderr }));
  });
}

/** A directory that is gone when the test ends. */
export function temporaryDirectory(context: Pick<TestContext, "after">): string {
  const directory = mkdtempSync(join(tmpdir(), "lockstep-test-"));
  context.after(() => rmSync(directory, { recursive: true, force: true, maxRetries: 3 }));
  return directory;
}

export interface ErrorDocument {
  readonly error: {
    readonly code: string;
    readonly message: string;
    readonly found?: unknown;
    readonly hint?: string;
    readonly faults?: readonly { readonly where: string; readonly problem: string }[];
  };
}

/** The one document on standard output of a run with `--json`. */
export function documentOf<T>(run: Ended): T {
  const lines = run.stdout.split("\n").filter((line) => line !== "");
  if (lines.length !== 1)
    throw new Error(`one document expected, found ${lines.length} lines:\n${run.stdout}\n${run.stderr}`);
  return JSON.parse(lines[0] ?? "") as T;
}
