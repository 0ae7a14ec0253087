import { type ChildProcess, spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { type FromGuard, type GuardConfig, lineReader, type ToGuard } from "./messages.ts";
import { endService } from "./service-group.ts";

const MAIN = fileURLToPath(new URL("./main.ts", import.meta.url));

/** The daemon's end of the pipe to its guard. */
export interface Guard {
  tell(message: ToGuard): void;
  /** Ends the service from here, without the guard; resolves when nothing of it is left. */
  endService(): Promise<void>;
  /** Closes the pipe: the guard ends what runs, gives the lease back and exits. Resolves when it has. */
  close(): Promise<void>;
  readonly pid: number | undefined;
}

export interface GuardListener {
  heard(message: FromGuard): void;
  /** The guard is gone although nobody closed it. */
  lost(): void;
}

/** Starts a guard in a session of its own, so that no signal to the daemon's group reaches it. */
export function startGuardProcess(config: GuardConfig, listener: GuardListener): Guard {
  const child: ChildProcess = spawn(process.execPath, [MAIN], {
    cwd: "/",
    stdio: ["pipe", "pipe", "inherit"],
    detached: true,
  });
  let service: { readonly group: number; readonly mark: string } | null = null;
  let isClosed = false;
  const exited = new Promise<void>((resolve) => {
    const onEnd = () => {
      resolve();
      if (!isClosed) listener.lost();
      isClosed = true;
    };
    child.once("exit", onEnd).once("error", onEnd);
  });
  const take = lineReader<FromGuard>((message) => {
    if (message.kind === "spawned") service = message;
    if (message.kind === "stopped") service = null;
    listener.heard(message);
  });
  child.stdout?.on("data", take);
  child.stdin?.on("error", () => {});
  const tell = (message: ToGuard) => void child.stdin?.write(`${JSON.stringify(message)}\n`);
  tell({ kind: "hold", config });
  return {
    tell,
    endService: async () => {
      if (service !== null) await endService(service.group, service.mark);
    },
    close: async () => {
      isClosed = true;
      child.stdin?.end();
      await exited;
    },
    pid: child.pid,
  };
}
