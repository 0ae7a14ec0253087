import { LockstepError } from "@lockstep/protocol/wire";
import { type LoadedPlugins, loadPlugins } from "../components/plugins.ts";
import { runStep } from "../components/run-step.ts";
import { StopOrder } from "../components/stop-order.ts";
import { bootClock } from "../exchange/boot-clock.ts";
import { killMarked, WORKER_VARIABLE } from "./marked-processes.ts";
import type { FromWorker, ToWorker } from "./messages.ts";

/**
 * An external worker: runs one step after the other in a process of its own.
 *
 * It trusts nobody to end it. When the service dies, the channel closes; when the service freezes, the deadline of its
 * lease comes all the same; either way it ends itself with everything that it started, because the step may begin
 * elsewhere. A service that is well ends it before.
 */
const ABORT_GRACE_MS = 2000;

/** Serves the service that started this process. Throws USAGE where none did. */
export async function runWorker(): Promise<never> {
  if (process.send === undefined || process.env[WORKER_VARIABLE] === undefined)
    throw new LockstepError("USAGE", "a worker is started by the job service alone", {
      hint: "Start the service: lockstep service run --config FILE.",
    });
  let deadline = Number.POSITIVE_INFINITY;
  let timer: NodeJS.Timeout | undefined;
  let running: StopOrder | null = null;
  const watch = () => {
    clearTimeout(timer);
    const left = deadline - bootClock();
    if (left <= 0) endAll();
    // Timers stand still while the machine sleeps; the clock of leases does not.
    else if (Number.isFinite(left)) timer = setTimeout(watch, Math.min(left, 1000));
  };
  process.on("disconnect", endAll);
  // The service decides when a worker ends; a Ctrl-C reaches the whole group.
  process.on("SIGINT", () => {}).on("SIGTERM", () => {});
  process.on("message", (message: ToWorker) => {
    if (message.kind === "deadline") {
      deadline = message.deadline;
      watch();
    } else if (message.kind === "stop") {
      running?.give(new LockstepError("INTERRUPTED", message.message));
    } else {
      deadline = message.deadline;
      watch();
      running = new StopOrder();
      void work(message, running).then(() => {
        running = null;
        deadline = Number.POSITIVE_INFINITY;
        clearTimeout(timer);
      });
    }
  });
  return await new Promise<never>(() => {});
}

let loaded: Promise<LoadedPlugins> | null = null;

/** Once for the worker: what is loaded stays loaded. */
function pluginsOf(files: readonly string[]): Promise<LoadedPlugins> {
  loaded ??= loadPlugins(files, "external");
  return loaded;
}

async function work(message: Extract<ToWorker, { kind: "run" }>, stop: StopOrder): Promise<void> {
  const line = (level: "info" | "warn" | "error") => (text: string) => say({ kind: "log", level, text });
  const { components, problems } = await pluginsOf(message.plugins);
  for (const problem of problems) say({ kind: "log", level: "warn", text: problem.message });
  const { result, terminate } = await runStep(message.step, {
    service: message.service,
    hub: null,
    stop,
    log: { info: line("info"), warn: line("warn"), error: line("error") },
    directory: message.directory,
    plugins: components,
    debug: message.debug,
    environment: message.environment,
    abortGraceMs: ABORT_GRACE_MS,
    onHide: (value) => say({ kind: "hide", value }),
  });
  say({ kind: "end", result, terminate });
}

function say(message: FromWorker): void {
  process.send?.(message);
}

/** Ends this worker and all that came from it. */
function endAll(): never {
  const mark = process.env[WORKER_VARIABLE];
  if (mark !== undefined) killMarked(WORKER_VARIABLE, mark);
  try {
    process.kill(-process.pid, "SIGKILL");
  } catch {
    // Not the leader of a group.
  }
  process.kill(process.pid, "SIGKILL");
  throw new Error("not reached");
}
