import { execFile } from "node:child_process";
import { refusalText, startOrRefusal } from "../refused-start.ts";
import { findUnshare } from "./guarded-service.ts";

/** What the guard asks of the system beyond running. Each returns what it cannot have, in words, or null. */

/**
 * Real-time scheduling, so that a busy machine does not make the deadline late. Not inherited by services: they have an
 * ordinary class of their own.
 */
export async function takePriority(priority: number): Promise<string | null> {
  const problem = await attempt("chrt", [
    "--reset-on-fork",
    "--rr",
    "--pid",
    String(priority),
    `${process.pid}`,
  ]);
  return problem === null ? null : `no real-time scheduling: ${problem}`;
}

/** Whether services can have a host name of their own. */
export async function tryHostName(): Promise<string | null> {
  const unshare = findUnshare();
  if (unshare === null)
    return "no host name of its own for services: there is no unshare; they see the variables";
  const problem = await attempt(unshare, ["--uts", "/bin/sh", "-c", "echo probe >/proc/sys/kernel/hostname"]);
  return problem === null ? null : `no host name of its own for services, only the variables: ${problem}`;
}

const LIMIT_MS = 5_000;

function attempt(program: string, args: readonly string[]): Promise<string | null> {
  return new Promise((resolve) => {
    const child = startOrRefusal(() =>
      execFile(program, args, { timeout: LIMIT_MS, killSignal: "SIGKILL" }, (error, _output, errors) =>
        resolve(error === null ? null : errors.trim() || error.message),
      ),
    );
    if (child instanceof Error) resolve(refusalText(child));
  });
}
