import { formatInstallState } from "@lockstep/core";
import { type ApplyContext, previousRevision, rollbackPrevious } from "./apply/index.ts";
import type { RollbackResult } from "./apply/rollback.ts";
import { connectHub } from "./hub-access.ts";
import { locate, readInstallState } from "./installation.ts";
import { throwIfInterrupted } from "./interruption.ts";
import { applyContext } from "./recovery.ts";
import { describeProblem, report } from "./report.ts";
import { RolledBackError } from "./run-failure.ts";
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
    const result = await goBack(context, log, startedAt, host.signal);
    // The installation is at its former revision now; what fails from here on is told beside that, not instead of it.
    const { from, to, put, removed, switchMs } = result;
    log.note("end", null, "ok", "rollback", { from, to, put, removed });
    const unwritten = log.flush();
    if (unwritten !== null)
      host.progress({ kind: "notice", message: `update.log is not complete: ${unwritten}` });
    const heldBack = await holdBack(directory);
    if (heldBack !== null) host.progress({ kind: "notice", message: heldBack });
    await tellHub(directory, options, to);
    return { from, to, restored: put, removed, switchMs };
  });
}

async function goBack(
  context: ApplyContext,
  log: UpdateLog,
  startedAt: number,
  signal: AbortSignal | undefined,
): Promise<RollbackResult & { kind: "applied" }> {
  try {
    const result = await rollbackPrevious(context, {
      startedAt,
      hooks: { stop: () => throwIfInterrupted(signal) },
    });
    if (result.kind === "applied") return result;
    throw new RolledBackError(result.reason, result.error);
  } catch (error) {
    log.note("end", null, "failed", describeProblem(error));
    log.flush();
    throw error;
  }
}

/** Whoever goes back does not want to be taken forward by the next poll. Returns what to tell about it, null for nothing. */
async function holdBack(directory: string): Promise<string | null> {
  try {
    const paths = locate(directory);
    const state = readInstallState(paths);
    if (!state.settings.autoUpdate) return null;
    const { writeState } = await import("./configure.ts");
    writeState(paths, formatInstallState({ ...state, settings: { ...state.settings, autoUpdate: false } }));
    return "automatic updates are switched off here now; switch them on again with: lockstep configure DIR --auto-update on";
  } catch (error) {
    return `automatic updates could not be switched off here, so the next one goes forward again; do it with: lockstep configure DIR --auto-update off (${describeProblem(error)})`;
  }
}

async function tellHub(directory: string, options: SessionOptions, revision: number): Promise<void> {
  const paths = locate(directory);
  try {
    const state = readInstallState(paths);
    const client = await connectHub(state.hub, options.access, paths);
    await report(client, paths.root, state, { outcome: "rolled-back", revision, problem: null });
    await client.close();
  } catch {
    // The next run reports.
  }
}
