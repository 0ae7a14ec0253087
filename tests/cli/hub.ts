import type { ChildProcess } from "node:child_process";
import { join } from "node:path";
import { ended, start } from "./lockstep.ts";

/** A hub of its own for a test file, in a process of its own, on a free port of the loopback interface. */
export interface TestHub {
  readonly url: string;
  readonly process: ChildProcess;
  /** What `LOCKSTEP_HUB` is for commands that talk to it. */
  readonly env: Readonly<Record<string, string>>;
  /** Ends it by SIGTERM; returns its exit status and what it said. */
  stop(): Promise<{ readonly status: number | null; readonly stdout: string; readonly stderr: string }>;
}

/** Starts `lockstep hub` below a directory (its data is in `hub`) and waits for its line `ready URL`. */
export async function startTestHub(
  directory: string,
  how: readonly string[] = ["--listen", "127.0.0.1:0", "--dev"],
): Promise<TestHub> {
  const child = start(["hub", "--data", join(directory, "hub"), ...how]);
  const end = ended(child);
  const url = await new Promise<string>((found, failed) => {
    let text = "";
    child.stdout?.on("data", (chunk: string) => {
      text += chunk;
      const ready = /^ready (\S+)\n/.exec(text);
      if (ready?.[1] !== undefined) found(ready[1]);
    });
    end.then(({ status, stderr }) => failed(new Error(`the hub ended with ${status}:\n${stderr}`)), failed);
  });
  return {
    url,
    process: child,
    env: { LOCKSTEP_HUB: url },
    stop: async () => {
      child.kill("SIGTERM");
      return await end;
    },
  };
}
