import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { printable } from "@lockstep/platform";

/**
 * The log of last resort: where the service says that it cannot write its own.
 *
 * Below systemd, standard error is the journal, and a priority in angle brackets is understood (sd-daemon(3)). Elsewhere
 * on POSIX logger(1) speaks to /dev/log, which Node cannot (its sockets know no datagrams). Where neither is there,
 * standard error has to do; on Windows it is what the service manager's wrapper keeps.
 */
export interface SystemLog {
  warning(message: string): void;
  notice(message: string): void;
}

export interface SystemLogOptions {
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly stderr: { write(text: string): unknown };
  /** The socket of the system's log. */
  readonly socket?: string;
  /** The program that speaks to it. */
  readonly logger?: string;
}

const TAG = "lockstep-service";
/** Numbers of syslog(3). */
const PRIORITY = {
  warning: { number: 4, name: "daemon.warning" },
  notice: { number: 5, name: "daemon.notice" },
};

/** The system log of this machine. */
export function createSystemLog(options: SystemLogOptions): SystemLog {
  const { environment, stderr, socket = "/dev/log", logger = "logger" } = options;
  const say = (text: string) => void stderr.write(`${TAG}: ${text}\n`);
  const write = (priority: keyof typeof PRIORITY) => (message: string) => {
    const text = printable(message);
    if (environment.JOURNAL_STREAM !== undefined) stderr.write(`<${PRIORITY[priority].number}>${text}\n`);
    else if (process.platform === "win32" || !existsSync(socket)) say(text);
    else runLogger(logger, PRIORITY[priority].name, text, () => say(text));
  };
  return { warning: write("warning"), notice: write("notice") };
}

function runLogger(program: string, priority: string, text: string, otherwise: () => void): void {
  const child = spawn(program, ["-t", TAG, "-p", priority, "--", text], { stdio: "ignore" });
  let told = false;
  const fail = () => {
    if (!told) otherwise();
    told = true;
  };
  child.once("error", fail);
  child.once("exit", (status) => {
    if (status !== 0) fail();
  });
  child.unref();
}
