/**
 * The server process. Between the hub and PostgreSQL stands a small shell that holds a pipe to the hub: when the hub
 * is gone, however it went, the pipe ends, and the shell asks PostgreSQL to shut down. So no server stays behind. The
 * shell is PostgreSQL's parent, so the process id that it signals cannot have been given to another process.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { open, readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Writable } from "node:stream";
import type { Logger } from "@lockstep/platform";
import type { Account } from "./account.ts";
import { type ClusterPaths, descriptorPath } from "./cluster.ts";
import { startFailure } from "./failure.ts";
import { CLEAN_ENVIRONMENT, type Programs } from "./programs.ts";

export interface ServerProcess {
  /** Resolves when the server has ended, with what it printed last. */
  readonly ended: Promise<string>;
  readonly hasEnded: () => boolean;
  /** The last lines that it printed. */
  readonly output: () => string;
  /** Asks it to end: open transactions are rolled back, everything is written. */
  requestStop(): void;
}

/**
 * It ignores what a service manager sends to the whole group: PostgreSQL gets that as well, and the hub decides. (What a
 * shell ignores its children ignore, but PostgreSQL sets its own handlers.)
 */
const WATCHDOG = `
trap "" HUP INT TERM
"$@" 3<&- &
server=$!
{ read -r _ <&3; kill -INT "$server"; } &
watch=$!
wait "$server"
status=$?
kill -KILL "$watch" 2>/dev/null
wait "$watch" 2>/dev/null
exit "$status"
`;

const LINES_KEPT = 50;

/** What must hold whatever the cluster's own configuration file says. */
function fixedSettings(paths: ClusterPaths): Readonly<Record<string, string>> {
  return {
    listen_addresses: "",
    unix_socket_directories: descriptorPath(5, paths.socket),
    unix_socket_permissions: "0700",
    port: "5432",
    logging_collector: "off",
    log_destination: "stderr",
    log_line_prefix: "",
  };
}

/**
 * Starts PostgreSQL on the cluster; returns at once. `settings` go on its command line and so win over its
 * configuration file.
 */
export async function startServer(
  paths: ClusterPaths,
  programs: Programs,
  account: Account | null,
  settings: Readonly<Record<string, string>>,
  log: Logger,
): Promise<ServerProcess> {
  const data = await open(paths.data, "r");
  const socket = await open(paths.socket, "r");
  try {
    const all = Object.entries({ ...settings, ...fixedSettings(paths) });
    const command = [
      join(programs.bin, "postgres"),
      "-D",
      descriptorPath(4, paths.data),
      ...all.flatMap(([name, value]) => ["-c", `${name}=${value}`]),
    ];
    const child = spawn("/bin/sh", ["-c", WATCHDOG, "lockstep-postgres", ...command], {
      ...account,
      cwd: "/",
      env: CLEAN_ENVIRONMENT,
      // Apart from the hub's process group: an interrupt from the terminal is the hub's to handle, in its order.
      detached: true,
      stdio: ["ignore", "pipe", "pipe", "pipe", data.fd, socket.fd],
    });
    return follow(child, log);
  } finally {
    await data.close();
    await socket.close();
  }
}

function follow(child: ChildProcess, log: Logger): ServerProcess {
  const lines: string[] = [];
  const output = () => lines.join("\n");
  let hasEnded = false;
  const remember = (line: string) => {
    lines.push(line);
    if (lines.length > LINES_KEPT) lines.shift();
    report(line, log);
  };
  for (const stream of [child.stdout, child.stderr]) readLines(stream, remember);
  // Its end is the message: the hub writes nothing into it. It breaks when the server ends first.
  const pipe = child.stdio[3] as Writable;
  pipe.on("error", () => {});
  const ended = new Promise<string>((resolve) => {
    child.once("error", (error) => {
      remember(`could not start: ${error.message}`);
      hasEnded = true;
      resolve(output());
    });
    child.once("close", () => {
      hasEnded = true;
      resolve(output());
    });
  });
  return { ended, output, hasEnded: () => hasEnded, requestStop: () => pipe.end() };
}

function readLines(stream: NodeJS.ReadableStream | null, each: (line: string) => void): void {
  let rest = "";
  stream?.setEncoding("utf8");
  stream?.on("data", (text: string) => {
    const parts = (rest + text).split("\n");
    rest = parts.pop() ?? "";
    for (const line of parts) if (line !== "") each(line);
  });
}

/** FATAL is the end of one connection, and whoever had it is told: no more than a detail here. */
function report(line: string, log: Logger): void {
  if (/^PANIC:/.test(line)) log.error("database", { line });
  else if (/^WARNING:/.test(line)) log.info("database", { line });
  else log.debug("database", { line });
}

/** The process id in the cluster's postmaster.pid, or null. */
export async function postmasterPid(paths: ClusterPaths): Promise<number | null> {
  const text = await readFile(join(paths.data, "postmaster.pid"), "utf8").catch(() => "");
  const pid = Number.parseInt(text, 10);
  return Number.isSafeInteger(pid) && pid > 0 ? pid : null;
}

/** An error for a server that ended although nobody asked it to. */
export function endedEarly(output: string): Error {
  return startFailure("PostgreSQL ended while starting", output);
}
