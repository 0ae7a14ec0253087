import { type ChildProcess, spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { identify, isRunning, type ProcessIdentity } from "@lockstep/platform";
import { startOrRefusal } from "../refused-start.ts";
import { type FromGuard, type GuardConfig, lineReader, type ToGuard } from "./messages.ts";
import { endServices, type ServiceMark } from "./service-group.ts";

/** A checkout runs the source; what ships has the guard as a bundle of its own beside the daemon's. */
const MAIN = fileURLToPath(
  new URL(import.meta.url.endsWith(".ts") ? "./main.ts" : "./guard.mjs", import.meta.url),
);
/** What there is to do for a last resort takes three seconds at most. */
export const LAST_RESORT_MS = 5_000;
const LOOK_MS = 10;
/** No helper threads: in the real-time class the guard must not wait for threads that are in another one. */
const NODE_OPTIONS = ["--v8-pool-size=0"];

/** The daemon's end of the pipe to its guard. */
export interface Guard {
  tell(message: ToGuard): void;
  /**
   * Ends every service from here, without the guard; resolves when nothing of them is left. Where the guard is gone, also
   * waits until whoever covers for it has done what it does.
   */
  endServices(): Promise<void>;
  /** Closes the pipe: the guard ends what runs, gives the lease back and exits. Resolves when it has. */
  close(): Promise<void>;
  /** A guard that does not answer is worse than none: its last resort does what it does not. `lost` follows. */
  kill(): void;
  readonly pid: number | undefined;
}

export interface GuardListener {
  heard(message: FromGuard): void;
  /** The guard is gone although nobody closed it. */
  lost(): void;
}

/** Starts a guard in a session of its own, so that no signal to the daemon's group reaches it. */
export function startGuardProcess(config: GuardConfig, listener: GuardListener, main = MAIN): Guard {
  const child = startOrRefusal(
    (): ChildProcess =>
      spawn(process.execPath, [...NODE_OPTIONS, main], {
        cwd: "/",
        stdio: ["pipe", "pipe", "inherit"],
        detached: true,
      }),
  );
  if (child instanceof Error) return refusedGuard(listener);
  const services = new Map<string, ServiceMark>();
  let lastResort: ProcessIdentity | null = null;
  let isClosed = false;
  let isGone = false;
  const exited = new Promise<void>((resolve) => {
    const onEnd = () => {
      if (isGone) return;
      isGone = true;
      resolve();
      if (!isClosed) listener.lost();
    };
    // Not at its exit: what it said last must have been read.
    child.once("close", onEnd).once("error", onEnd);
  });
  const take = lineReader<FromGuard>((message) => {
    if (message.kind === "ready" && message.lastResort !== null) lastResort = identify(message.lastResort);
    if (message.kind === "spawned") services.set(message.service, message);
    if (message.kind === "exited") services.delete(message.service);
    if (message.kind === "stopped") services.clear();
    listener.heard(message);
  });
  child.stdout?.on("data", take);
  child.stdin?.on("error", () => {});
  const tell = (message: ToGuard) => void child.stdin?.write(`${JSON.stringify(message)}\n`);
  tell({ kind: "hold", config });
  return {
    tell,
    endServices: async () => {
      await endServices([...services.values()]);
      if (isGone && lastResort !== null) await untilEnded(lastResort, LAST_RESORT_MS);
    },
    close: async () => {
      isClosed = true;
      child.stdin?.end();
      await exited;
    },
    kill: () => void child.kill("SIGKILL"),
    pid: child.pid,
  };
}

/** One that the system refused to start: lost from the beginning. */
function refusedGuard(listener: GuardListener): Guard {
  let isClosed = false;
  setImmediate(() => {
    if (!isClosed) listener.lost();
  });
  return {
    tell: () => {},
    endServices: async () => {},
    close: async () => {
      isClosed = true;
    },
    kill: () => {},
    pid: undefined,
  };
}

/**
 * Resolves when this process has ended; one that takes longer is killed. Counted by our own turns: when the whole machine
 * stood still, it had no time either.
 */
export async function untilEnded(identity: ProcessIdentity, limitMs: number): Promise<void> {
  for (let turn = 0; isRunning(identity); turn++) {
    if (turn * LOOK_MS > limitMs) {
      try {
        process.kill(identity.pid, "SIGKILL");
      } catch {
        // It was faster.
      }
    }
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
  }
}
