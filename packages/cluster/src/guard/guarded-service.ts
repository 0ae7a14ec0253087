import { type ChildProcess, spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { accessSync, constants } from "node:fs";
import { join } from "node:path";
import { CLUSTER_ENVIRONMENT } from "@lockstep/protocol/wire";
import type { ServiceEnd, ServiceRun } from "../host/service-launcher.ts";
import { refusalText, startOrRefusal } from "../refused-start.ts";
import { GUARD_MARK, type ServiceMark } from "./service-group.ts";

/**
 * Holds the service back until the last resort knows its group: were we killed in between, the pipe would end and the
 * service never begin. Then it enters a UTS namespace of its own with the virtual server's name, so that `hostname` and
 * every library tell that; where that is refused it goes on without. No text of the configuration is read by these
 * shells; they replace themselves by the program.
 */
const HOLD = [
  "IFS= read -r _ <&3 || exit 1",
  'if [ -n "$1" ] && "$1" --uts true 2>/dev/null; then exec "$1" --uts /bin/sh -c "$3" sh "$@" 3<&-; fi',
  'shift 3; exec "$@" 3<&-',
].join("; ");
const NAME =
  '{ printf %s "$2" >/proc/sys/kernel/hostname || hostname "$2"; } 2>/dev/null; shift 3; exec "$@"';

/** A service as its parent sees it. */
export interface GuardedService extends ServiceMark {
  /** Lets it begin. */
  release(): void;
}

/**
 * Starts one, held back. Returns null when the system refuses, after telling the problem. `ended` is told when the
 * program itself has ended; what it had started may still run.
 */
export function startService(
  run: ServiceRun,
  token: number,
  ended: (end: ServiceEnd) => void,
  refused: (problem: string) => void,
): GuardedService | null {
  const mark = randomUUID();
  const unshare = run.hostName === null ? null : findUnshare();
  const child = startOrRefusal(
    (): ChildProcess =>
      spawn(
        "/bin/sh",
        ["-c", HOLD, "sh", unshare ?? "", run.hostName ?? "", NAME, run.program, ...run.arguments],
        {
          cwd: run.directory,
          env: { ...run.environment, [CLUSTER_ENVIRONMENT.term]: String(token), [GUARD_MARK]: mark },
          // Our own output is for the daemon; the service's goes where the daemon's errors go.
          stdio: ["ignore", 2, 2, "pipe"],
          detached: true,
        },
      ),
  );
  if (child instanceof Error) {
    // Told when the order to launch has been carried out, as the other refusals are.
    setImmediate(() => refused(refusalText(child)));
    return null;
  }
  const { pid } = child;
  if (pid === undefined) {
    child.once("error", (error) => refused(refusalText(error)));
    return null;
  }
  child.once("exit", (code, signal) => ended({ code, signal }));
  const gate = child.stdio[3];
  return {
    group: pid,
    mark,
    release: () => {
      if (gate !== null && gate !== undefined && "end" in gate) gate.on("error", () => {}).end("go\n");
    },
  };
}

let unshareFound: string | null | undefined;

/** The program that makes namespaces, or null. */
export function findUnshare(): string | null {
  unshareFound ??= ["/usr/bin", "/bin", "/usr/sbin", "/sbin"]
    .map((directory) => join(directory, "unshare"))
    .find((path) => {
      try {
        accessSync(path, constants.X_OK);
        return true;
      } catch {
        return false;
      }
    });
  return unshareFound ?? null;
}
