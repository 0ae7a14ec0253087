/**
 * A server that an earlier hub left: it should have ended by itself (see watched-process.ts), but its watchdog may have been
 * killed as well, or it may still be on its way out. The caller holds the data directory's lock, so whatever server
 * works on this cluster belongs to no living hub.
 *
 * PostgreSQL keeps a lock file with a process id. Ids are given out again, above all in containers, so a lock file can
 * name an innocent process and keep the database from starting for ever; here a process counts only when it is a
 * `postgres` whose working directory is this very data directory.
 */
import { readdir, readlink, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import type { Clock, Logger } from "@lockstep/platform";
import { LockstepError } from "@lockstep/protocol";
import type { ClusterPaths } from "./cluster.ts";
import { postmasterPid } from "./server.ts";

const FAST_SHUTDOWN_MS = 60_000;
const IMMEDIATE_SHUTDOWN_MS = 15_000;
const POLL_MS = 50;

/** Ends what is left of an earlier server. Throws DATABASE_START_FAILED when it does not go. */
export async function endLeftoverServer(paths: ClusterPaths, clock: Clock, log: Logger): Promise<void> {
  if (process.platform !== "linux") return;
  const found = await serverProcesses(paths.data);
  if (found.length > 0) {
    log.warn("a database server was left by an earlier hub; ending it", { processes: found.join(" ") });
    await end(paths, found, clock);
  }
  // Whoever has that id now, it is not this cluster's server.
  await rm(join(paths.data, "postmaster.pid"), { force: true });
}

async function end(paths: ClusterPaths, found: readonly number[], clock: Clock): Promise<void> {
  const postmaster = await postmasterPid(paths);
  if (postmaster !== null && found.includes(postmaster)) {
    signal(postmaster, "SIGINT");
    if (await allGone(paths, FAST_SHUTDOWN_MS, clock)) return;
  }
  // Servers of single connections whose parent is dead end by themselves as a rule; these do not.
  for (const pid of await serverProcesses(paths.data)) signal(pid, "SIGQUIT");
  if (await allGone(paths, IMMEDIATE_SHUTDOWN_MS, clock)) return;
  for (const pid of await serverProcesses(paths.data)) signal(pid, "SIGKILL");
  if (await allGone(paths, IMMEDIATE_SHUTDOWN_MS, clock)) return;
  throw new LockstepError("DATABASE_START_FAILED", "a database server of an earlier hub cannot be ended", {
    found: `processes ${(await serverProcesses(paths.data)).join(", ")}`,
    hint: "end these processes, then start the hub again",
  });
}

async function allGone(paths: ClusterPaths, withinMs: number, clock: Clock): Promise<boolean> {
  const until = clock.monotonic() + withinMs;
  while ((await serverProcesses(paths.data)).length > 0) {
    if (clock.monotonic() > until) return false;
    await clock.sleep(POLL_MS);
  }
  return true;
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch {
    // Gone already, or not ours to signal: `allGone` tells.
  }
}

/** Every `postgres` process that works in this directory. */
export async function serverProcesses(dataDirectory: string): Promise<readonly number[]> {
  const data = await stat(dataDirectory);
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name));
  const matches = await Promise.all(
    pids.map(async (pid) => {
      try {
        const cwd = await stat(`/proc/${pid}/cwd`);
        if (cwd.dev !== data.dev || cwd.ino !== data.ino) return false;
        return /\/postgres( \(deleted\))?$/.test(await readlink(`/proc/${pid}/exe`));
      } catch {
        return false;
      }
    }),
  );
  return pids.filter((_, index) => matches[index] === true).map(Number);
}
