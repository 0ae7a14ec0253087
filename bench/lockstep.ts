import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";

/** The shipped command, run by the pinned Node. */
const COMMAND = resolve(import.meta.dirname, "../dist/bin/lockstep.mjs");

/** Program and arguments that run a `lockstep` command. */
export function lockstep(...args: string[]): [string, string[]] {
  return [process.execPath, [COMMAND, ...args]];
}

export interface RunningHub {
  readonly url: string;
  readonly pid: number;
  stop(): Promise<void>;
}

/** Starts a hub with its embedded database in a directory, on a free port of the loopback interface. */
export async function startHub(dataDirectory: string, options: readonly string[] = []): Promise<RunningHub> {
  const [program, args] = lockstep(
    "hub",
    "--data",
    dataDirectory,
    "--dev",
    "--listen",
    "127.0.0.1:0",
    ...options,
  );
  const child = spawn(program, args, { stdio: ["ignore", "pipe", "ignore"] });
  const ended = new Promise<void>((done) => child.once("close", () => done()));
  const url = await new Promise<string>((found, failed) => {
    let text = "";
    child.stdout.on("data", (chunk: Buffer) => {
      text += chunk.toString();
      const ready = /^ready (\S+)$/m.exec(text);
      if (ready?.[1] !== undefined) found(ready[1]);
    });
    child.once("error", failed);
    child.once("close", (status) => failed(new Error(`the hub ended with ${status}`)));
  });
  return {
    url,
    pid: child.pid ?? 0,
    async stop() {
      child.kill("SIGTERM");
      await ended;
    },
  };
}

/** Runs an action with a directory of its own, which is gone afterwards. */
export async function inTemporaryDirectory<T>(action: (directory: string) => Promise<T>): Promise<T> {
  const directory = mkdtempSync(join(tmpdir(), "lockstep-bench-"));
  try {
    return await action(directory);
  } finally {
    rmSync(directory, { recursive: true, force: true, maxRetries: 3 });
  }
}
