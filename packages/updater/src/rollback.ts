import { formatInstallState } from "@lockstep/core";
import { previousRevision, rollbackPrevious } from "./apply/index.ts";
import { connectHub } from "./hub-access.ts";
import { locate, readInstallState } from "./installation.ts";
import { throwIfInterrupted } from "./interruption.ts";
import { applyContext } from "./recovery.ts";
import { describeProblem, report } from "./report.ts";
import { RolledBackError } from "./run.ts";
import { newRunId, type SessionOptions, withInstallation } from "./session.ts";
import { UpdateLog } from "./update-log.ts";

export interface RollbackOutcome {
  readonly from: number;
  readonly to: number;
  readonly restored: number;
  readonly removed: number;
  readonly switchMs: number;
}

/**
 * Puts an installation back to what it was before its last update, with the files that were kept; needs no hub.
 *
 * Automatic updates would take it forward again at once, so they are switched off in this installation, and the reader
 * is told. Throws ROLLBACK_UNAVAILABLE, INSTALLATION_*.
 */
export async function rollback(directory: string, options: SessionOptions): Promise<RollbackOutcome> {
  const paths = locate(directory);
  return await withInstallation(paths, options, async ({ host }) => {
    const startedAt = host.clock.now();
    const log = new UpdateLog(paths, host.clock, newRunId(startedAt));
    const context = applyContext(paths, host.clock);
    log.note("begin", null, "ok", "rollback", { to: previousRevision(context) });
    try {
      const result = await rollbackPrevious(context, {
        startedAt,
        hooks: { stop: () => throwIfInterrupted(host.signal) },
      });
      if (result.kind === "rolled-back") throw new RolledBackError(result.reason, result.error);
      const { from, to, put, removed, switchMs } = result;
      log.note("end", null, "ok", "rollback", { from, to, put, removed });
      log.flush();
      await holdBack(directory, options);
      await tellHub(directory, options, to);
      return { from, to, restored: put, removed, switchMs };
    } catch (error) {
      log.note("end", null, "failed", describeProblem(error));
      log.flush();
      throw error;
    }
  });
}

/** Whoever goes back does not want to be taken forward by the next poll. */
async function holdBack(directory: string, options: SessionOptions): Promise<void> {
  const paths = locate(directory);
  const state = readInstallState(paths);
  if (!state.settings.autoUpdate) return;
  const { writeState } = await import("./configure.ts");
  writeState(paths, formatInstallState({ ...state, settings: { ...state.settings, autoUpdate: false } }));
  options.progress?.({
    kind: "notice",
    message:
      "automatic updates are switched off here now; switch them on again with: lockstep configure DIR --auto-update on",
  });
}

async function tellHub(directory: string, options: SessionOptions, revision: number): Promise<void> {
  const paths = locate(directory);
  try {
    const state = readInstallState(paths);
    const client = await connectHub(state.hub, options.access);
    await report(client, paths.root, state, { outcome: "rolled-back", revision, problem: null });
    await client.close();
  } catch {
    // The next run reports.
  }
}
