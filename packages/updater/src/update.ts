import type { EditsPolicy } from "@lockstep/core";
import { systemClock } from "@lockstep/platform";
import { LockstepError } from "@lockstep/protocol/wire";
import { connectHub } from "./hub-access.ts";
import { isUnfinished, locate, readInstalledRevision, readInstallHead } from "./installation.ts";
import { isLeftBehind } from "./lock-file.ts";
import { report } from "./report.ts";
import type { RunRequest, RunResult } from "./run-types.ts";
import { runToRevision, type Session, type SessionOptions, withInstallation } from "./session.ts";

export interface UpdateOptions extends SessionOptions {
  /** Another policy for local edits, for this run alone. */
  readonly edits?: EditsPolicy | undefined;
  readonly trigger?: RunRequest["trigger"];
}

/** An update that an off switch stopped (domain 1.7), as told to automatic runs alone. */
export interface DisabledUpdate {
  readonly kind: "disabled";
  readonly by: "hub" | "installation";
  readonly from: number | null;
  readonly to: number;
}

export type UpdateResult =
  | RunResult
  | DisabledUpdate
  /** Equal revisions: one request, nothing read, nothing written. */
  | { readonly kind: "already-in-step"; readonly revision: number };

/**
 * Brings an installation to the current software revision (S25, S26). Returns when it is there, or was before.
 *
 * A manual run goes on although automatic updates are switched off, and says so; automatic ones obey. Throws the errors
 * of `run`, INSTALLATION_LOCKED, and what a hub call throws; the installation then is as it was.
 */
export async function update(directory: string, options: UpdateOptions): Promise<UpdateResult> {
  const paths = locate(directory);
  // What was interrupted is finished first, by whoever has the lock: before that there may not even be a state to read. A
  // lock that a killed process left keeps users who may not look into our private directory from starting anything.
  if (!isUnfinished(paths) && !isLeftBehind(paths, options.clock ?? systemClock)) {
    // Most runs find nothing to do; these take no lock and leave no trace.
    const head = readInstallHead(paths);
    const installed = readInstalledRevision(paths)?.revision ?? null;
    const client = await connectHub(head.hub, options.access);
    try {
      const answer = await client.semaphore(installed, { signal: options.signal });
      if (answer.kind === "equal") return { kind: "already-in-step", revision: answer.revision };
    } finally {
      await client.close();
    }
  }
  return await withInstallation(paths, options, async (session) => await updateLocked(session, options));
}

/** The same for a caller that holds the lock. */
export async function updateLocked(session: Session, options: UpdateOptions): Promise<UpdateResult> {
  const { paths, host } = session;
  const head = readInstallHead(paths);
  const installed = readInstalledRevision(paths)?.revision ?? null;
  const client = await connectHub(head.hub, options.access);
  try {
    host.progress({ kind: "phase", phase: "check", detail: "asking the hub" });
    const answer = await client.semaphore(installed, { signal: options.signal });
    if (answer.kind === "equal") return { kind: "already-in-step", revision: answer.revision };
    const { semaphore } = answer;
    const trigger = options.trigger ?? "manual";
    const off = !semaphore.autoUpdate ? "hub" : !head.settings.autoUpdate ? "installation" : null;
    if (off !== null) {
      if (trigger !== "manual") return { kind: "disabled", by: off, from: installed, to: semaphore.revision };
      host.progress({
        kind: "notice",
        message: `automatic updates are switched off ${OFF[off]}; this one was asked for`,
      });
    }
    if (semaphore.revision === 0)
      throw new LockstepError("REVISION_UNKNOWN", "the hub has no software revision yet", {
        expected: "a software revision of 1 or higher",
        found: 0,
        hint: "Load a release first, or wait until the DBQueue has worked it off. Nothing was changed.",
      });
    const document = await client.revision(semaphore.revision, { signal: options.signal });
    return await runToRevision(session, document, {
      initial: null,
      hubUrl: head.hub,
      edits: options.edits ?? null,
      trigger,
      selfUpdate: options.selfUpdate ?? true,
    });
  } finally {
    await client.close();
  }
}

const OFF = { hub: "at the hub (Common/AutoUpdate)", installation: "in this installation" };

/** Tells the hub that an installation was left as it is, and why. Best effort. */
export async function reportPostponed(
  directory: string,
  options: SessionOptions,
  why: string,
): Promise<void> {
  const paths = locate(directory);
  const head = readInstallHead(paths);
  const client = await connectHub(head.hub, options.access);
  const revision = readInstalledRevision(paths)?.revision ?? null;
  await report(client, paths.root, head, { outcome: "postponed", revision, problem: why });
  await client.close();
}
