import { spawn } from "node:child_process";
import { afterOwnTime } from "@lockstep/platform";
import { refusalText, startOrRefusal } from "../refused-start.ts";

/**
 * A program of the machine, run so that it cannot hang whoever asked.
 *
 * Whatever touches a share whose server is gone may never come back, not even when it is killed. So such things are done
 * by a child in a process group of its own, with the root as its working directory (to enter a directory can hang too).
 * After its time the whole group is killed; if even that does not end it, it is left alone and we go on.
 */
export interface BoundedOptions {
  readonly limitMs: number;
  /** Replaces the environment; else a bare one with the machine's usual directories for programs. */
  readonly environment?: Readonly<Record<string, string>>;
  readonly input?: string;
  /** Called about every second while it runs. */
  readonly busy?: () => void;
  /** Ends it before its time. */
  readonly calledOff?: AbortSignal;
}

export interface CommandEnd {
  /** Null: it was killed, has run out of time, or could not be started. */
  readonly status: number | null;
  readonly hasTimedOut: boolean;
  /** What it said on both of its outputs, at most OUTPUT_LENGTH_MAX of each; the end is kept. */
  readonly output: string;
  readonly errorOutput: string;
}

export const BARE_ENVIRONMENT: Readonly<Record<string, string>> = {
  PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
  LC_ALL: "C",
  LANG: "C",
};

const OUTPUT_LENGTH_MAX = 256 * 1024;
/** A killed process that is still there after this waits within the kernel for something that may never come. */
const ABANDON_MS = 1_000;
const BUSY_MS = 1_000;

/** Runs it to its end, or to the end of its time. Never rejects. `program`: absolute. */
export function runBounded(
  program: string,
  args: readonly string[],
  { limitMs, environment = BARE_ENVIRONMENT, input, busy, calledOff }: BoundedOptions,
): Promise<CommandEnd> {
  return new Promise((resolve) => {
    const child = startOrRefusal(() =>
      spawn(program, args, {
        cwd: "/",
        env: environment,
        stdio: [input === undefined ? "ignore" : "pipe", "pipe", "pipe"],
        detached: true,
      }),
    );
    if (child instanceof Error) {
      resolve({ status: null, hasTimedOut: false, output: "", errorOutput: refusalText(child) });
      return;
    }
    const texts = { output: "", errorOutput: "" };
    let hasTimedOut = false;
    let abandon: NodeJS.Timeout | undefined;
    const report = busy === undefined ? undefined : setInterval(busy, BUSY_MS);
    const kill = () => {
      killGroup(child.pid);
      abandon ??= setTimeout(() => end(null), ABANDON_MS);
    };
    const callLimitOff = afterOwnTime(limitMs, () => {
      hasTimedOut = true;
      kill();
    });
    let isOver = false;
    const end = (status: number | null) => {
      if (isOver) return;
      isOver = true;
      clearInterval(report);
      callLimitOff();
      clearTimeout(abandon);
      calledOff?.removeEventListener("abort", kill);
      // What it leaves behind may hold these open, and may be meant to stay: an agent that starts a service.
      for (const stream of child.stdio) stream?.destroy();
      child.unref();
      resolve({ status: hasTimedOut ? null : status, hasTimedOut, ...texts });
    };
    const collect = (name: keyof typeof texts) => (chunk: string) => {
      texts[name] = (texts[name] + chunk).slice(-OUTPUT_LENGTH_MAX);
    };
    child.stdout?.setEncoding("utf8").on("data", collect("output"));
    child.stderr?.setEncoding("utf8").on("data", collect("errorOutput"));
    child.once("error", (error) => {
      texts.errorOutput += refusalText(error);
      end(null);
    });
    // Of one that was killed nobody waits for outputs that a descendant may hold.
    child.once("exit", (status) => {
      if (hasTimedOut) end(null);
      else setTimeout(() => end(status), OUTPUT_GRACE_MS).unref();
    });
    child.once("close", (status) => end(status));
    child.stdin?.on("error", () => {}).end(input);
    if (calledOff?.aborted) kill();
    else calledOff?.addEventListener("abort", kill, { once: true });
  });
}

/** After the end of the program, for what is still in the pipe. */
const OUTPUT_GRACE_MS = 500;

function killGroup(pid: number | undefined): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, "SIGKILL");
  } catch {
    // Nobody is left.
  }
}

/** What went wrong, in one line; null: nothing. `what`: the act, as in `the mount`. */
export function commandProblem(what: string, end: CommandEnd, limitMs: number): string | null {
  if (end.status === 0) return null;
  if (end.hasTimedOut) return `${what} did not come back within ${limitMs} ms`;
  const said = (end.errorOutput.trim() || end.output.trim()).replace(/\s*\n\s*/g, "; ").slice(-1_000);
  const how = end.status === null ? "was ended" : `ended with status ${end.status}`;
  return `${what} ${how}${said === "" ? "" : `: ${said}`}`;
}
