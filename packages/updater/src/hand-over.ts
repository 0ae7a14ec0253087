import { spawn } from "node:child_process";
import {
  type ErrorBody,
  fromErrorBody,
  isLockstepError,
  LockstepError,
  toErrorBody,
} from "@lockstep/protocol/wire";
import type { ProgressEvent } from "./progress.ts";
import { run } from "./run.ts";
import type { RunHost, RunRequest, RunResult } from "./run-types.ts";
import type { UpdaterCopy } from "./update-archive.ts";

/**
 * Handing a run to the unpacked updater: another process, another version of this code.
 *
 * The two speak in messages: the request goes over, progress and the result come back. The one that started waits, shows
 * what comes, and passes an interruption on; it decides nothing any more. When it dies, the other one notices that its
 * channel is closed and stops like after an interruption: before the commit with nothing changed, after it at its end.
 */
export type ToUpdater =
  | {
      readonly kind: "run";
      readonly request: RunRequest;
      readonly access: {
        readonly url?: string | undefined;
        readonly caFile?: string | undefined;
        readonly tokenFile?: string | undefined;
      };
      readonly lockToken: string;
    }
  | { readonly kind: "interrupt" };

export type FromUpdater =
  | { readonly kind: "progress"; readonly event: ProgressEvent }
  | { readonly kind: "result"; readonly result: RunResult }
  | { readonly kind: "error"; readonly body: ErrorBody };

/** Short-lived objects in little memory: an update makes many of them and keeps few. In MiB. */
const NODE_OPTIONS = ["--max-semi-space-size=2"];
/** One arena of glibc's allocator: with one for each thread, freed buffers of 1 MiB stay with the thread that had them. */
const ALLOCATOR = { MALLOC_ARENA_MAX: "1" };

/** Runs in the given copy, or in this process where there is none. Throws what the run throws. */
export async function runIn(
  copy: UpdaterCopy | null,
  request: RunRequest,
  host: RunHost,
): Promise<RunResult> {
  return copy === null ? await run(request, host) : await runInCopy(copy, request, host);
}

async function runInCopy(copy: UpdaterCopy, request: RunRequest, host: RunHost): Promise<RunResult> {
  const { access, signal } = host;
  const child = spawn(process.execPath, [...NODE_OPTIONS, copy.program, "apply"], {
    stdio: ["inherit", "inherit", "inherit", "ipc"],
    env: { ...ALLOCATOR, ...process.env },
  });
  const tell = (message: ToUpdater) => {
    if (child.connected) child.send(message, () => {});
  };
  const interrupt = () => tell({ kind: "interrupt" });
  signal?.addEventListener("abort", interrupt, { once: true });
  try {
    return await new Promise<RunResult>((resolve, reject) => {
      let said: FromUpdater | null = null;
      child.on("message", (message: FromUpdater) => {
        if (message.kind === "progress") host.progress(message.event);
        else said = message;
      });
      child.once("error", (cause) => reject(broken(`it could not be started: ${cause.message}`, cause)));
      child.once("close", (status, ended) => {
        if (said?.kind === "result") resolve(said.result);
        else if (said?.kind === "error") reject(errorOf(said.body));
        else reject(broken(`it ended with ${ended ?? `status ${status}`} before it was done`));
      });
      const { url, caFile, tokenFile } = access;
      tell({ kind: "run", request, access: { url, caFile, tokenFile }, lockToken: host.lock.token });
      if (signal?.aborted) interrupt();
    });
  } finally {
    signal?.removeEventListener("abort", interrupt);
  }
}

function errorOf(body: ErrorBody): LockstepError {
  return fromErrorBody(body) ?? broken("it failed without a reason that can be read");
}

function broken(problem: string, cause?: unknown): LockstepError {
  return new LockstepError("INTERRUPTED", `the updater did not finish: ${problem}`, {
    hint: "Run it again: it finishes or takes back what was begun.",
    ...(cause === undefined ? {} : { cause }),
  });
}

/** An error in its travelling form. What is none of ours is a fault of the program and says where. */
export function toBody(error: unknown): ErrorBody {
  if (isLockstepError(error)) return toErrorBody(error);
  return toErrorBody(
    new LockstepError("INTERNAL", error instanceof Error ? (error.stack ?? error.message) : String(error)),
  );
}
