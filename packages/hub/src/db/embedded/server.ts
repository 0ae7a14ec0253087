/** The server process of the cluster. */
import { open, readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Logger } from "@lockstep/platform";
import type { Account } from "./account.ts";
import { type ClusterPaths, descriptorPath } from "./cluster.ts";
import { startFailure } from "./failure.ts";
import type { Programs } from "./programs.ts";
import { FIRST_DESCRIPTOR, startWatched, type WatchedProcess } from "./watched-process.ts";

export interface ServerProcess {
  /** Resolves when the server has ended, with what it printed last. */
  readonly ended: Promise<string>;
  readonly hasEnded: () => boolean;
  /** The last lines that it printed. */
  readonly output: () => string;
  /** Asks it to end: open transactions are rolled back, everything is written. */
  requestStop(): void;
}

const LINES_KEPT = 50;

/** What must hold whatever the cluster's own configuration file says. */
function fixedSettings(paths: ClusterPaths): Readonly<Record<string, string>> {
  return {
    listen_addresses: "",
    unix_socket_directories: descriptorPath(FIRST_DESCRIPTOR + 1, paths.socket),
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
  await using data = await open(paths.data, "r");
  await using socket = await open(paths.socket, "r");
  const all = Object.entries({ ...settings, ...fixedSettings(paths) });
  const args = [
    "-D",
    descriptorPath(FIRST_DESCRIPTOR, paths.data),
    ...all.flatMap(([name, value]) => ["-c", `${name}=${value}`]),
  ];
  const watched = startWatched(join(programs.bin, "postgres"), args, account, [data.fd, socket.fd]);
  return follow(watched, log);
}

function follow({ child, interrupt }: WatchedProcess, log: Logger): ServerProcess {
  const lines: string[] = [];
  const output = () => lines.join("\n");
  let hasEnded = false;
  const remember = (line: string) => {
    lines.push(line);
    if (lines.length > LINES_KEPT) lines.shift();
    report(line, log);
  };
  for (const stream of [child.stdout, child.stderr]) readLines(stream, remember);
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
  return { ended, output, hasEnded: () => hasEnded, requestStop: interrupt };
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
