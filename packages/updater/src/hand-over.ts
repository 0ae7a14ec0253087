import { spawn } from "node:child_process";
import {
  type ErrorBody,
  fromErrorBody,
  isLockstepError,
  LockstepError,
  toErrorBody,
} from "@lockstep/protocol/wire";
import { guarded, ioFailure } from "./io-failure.ts";
import type { ProgressEvent } from "./progress.ts";
import { run } from "./run.ts";
import type { RunHost, RunRequest, RunResult } from "./run-types.ts";
import type { TransferOrder } from "./transfer-throttle.ts";
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
        readonly relay?: string | undefined;
        readonly transfer?: TransferOrder | undefined;
        /** Over the channel and not by the environment, which others of this user can read as long as the process runs. */
        readonly token?: string | undefined;
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

const COMPLAINT_CHARACTERS_MAX = 4000;
export const TOKEN = "LOCKSTEP_TOKEN";

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
  const child = guarded(copy.program, "starting", () =>
    spawn(process.execPath, [...NODE_OPTIONS, copy.program, "apply"], {
      // What it has to say comes as messages; what Node says of a program that cannot even be loaded is a reason, no text
      // for a screen.
      stdio: ["inherit", "inherit", "pipe", "ipc"],
      env: { ...ALLOCATOR, ...withoutToken(process.env) },
    }),
  );
  let complaint = "";
  child.stderr?.setEncoding("utf8").on("data", (text: string) => {
    complaint = (complaint + text).slice(-COMPLAINT_CHARACTERS_MAX);
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
      child.once("error", (cause) => reject(ioFailure(cause, copy.program, "starting")));
      child.once("close", (status, ended) => {
        if (said?.kind === "result") resolve(said.result);
        else if (said?.kind === "error") reject(errorOf(said.body));
        else
          reject(
            broken(`it ended with ${ended ?? `status ${status}`} before it was done`, firstError(complaint)),
          );
      });
      const { url, caFile, tokenFile, relay, transfer } = access;
      const token = access.environment[TOKEN];
      const carried = { url, caFile, tokenFile, relay, transfer, token };
      tell({ kind: "run", request, access: carried, lockToken: host.lock.token });
      if (signal?.aborted) interrupt();
    });
  } finally {
    signal?.removeEventListener("abort", interrupt);
  }
}

function withoutToken(environment: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(environment).filter(([name]) => name !== TOKEN));
}

function errorOf(body: ErrorBody): LockstepError {
  return fromErrorBody(body) ?? broken("it failed without a reason that can be read");
}

function broken(problem: string, found: string | null = null): LockstepError {
  return new LockstepError("INTERRUPTED", `the updater did not finish: ${problem}`, {
    ...(found === null ? {} : { expected: "a result", found }),
    hint: "Run it again: it finishes or takes back what was begun.",
  });
}

/** The line that names an error, out of what Node prints around it. */
function firstError(complaint: string): string | null {
  const lines = complaint.split("\n").map((line) => line.trim());
  return (
    lines.find((line) => /^(\w*Error\b|FATAL ERROR)/.test(line)) ??
    lines.findLast((line) => line !== "") ??
    null
  );
}

/** An error in its travelling form. What is none of ours is a fault of the program and says where. */
export function toBody(error: unknown): ErrorBody {
  if (isLockstepError(error)) return toErrorBody(error);
  return toErrorBody(
    new LockstepError("INTERNAL", error instanceof Error ? (error.stack ?? error.message) : String(error)),
  );
}
