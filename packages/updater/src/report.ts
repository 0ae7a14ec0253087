import { existsSync } from "node:fs";
import type { HubClient } from "@lockstep/client";
import type { InstallState } from "@lockstep/core";
import { hostName } from "@lockstep/platform";
import { type InstallationReport, isLockstepError } from "@lockstep/protocol/wire";
import { installationPaths } from "./layout.ts";
import type { RunRequest } from "./run-types.ts";
import { UPDATER_VERSION } from "./version.ts";

/** How a run ended, for the hub: what it last saw of this installation. */
export interface Outcome {
  readonly outcome: InstallationReport["outcome"];
  readonly revision: number | null;
  readonly problem: string | null;
}

/** Long enough for a hub that is busy with all the others: what it does not hear now it hears after the next run alone. */
const PATIENT_MS = 30_000;
/** Where a program is to start, or somebody wants it ended. */
const HURRIED_MS = 5_000;
const PROBLEM_CHARACTERS_MAX = 4000;

/** For how long a run tells the hub how it went, in milliseconds; `error`: what it ended with. */
export function reportMs(trigger: RunRequest["trigger"], error?: unknown): number {
  return trigger === "launch" || isLockstepError(error, "INTERRUPTED") ? HURRIED_MS : PATIENT_MS;
}

/** An error in one line, its code first. */
export function describeProblem(error: unknown): string {
  if (isLockstepError(error)) return `${error.code}: ${error.message}`;
  return error instanceof Error ? error.message : String(error);
}

/** The head of the log of releases that this installation was shown (A23). */
async function shownHistory(root: string): Promise<Pick<InstallationReport, "releaseLog">> {
  const { readHistory, trustStore } = await import("./trust.ts");
  const seen = readHistory(trustStore(installationPaths(root)));
  if (seen === null) return {};
  const { epoch, size, head } = seen;
  return { releaseLog: { epoch, size, head } };
}

/** Where update.log was altered, if it was: whoever owns this machine can hide it here, and not what the hub was told before. */
async function shownBreak(root: string): Promise<Pick<InstallationReport, "logAltered">> {
  const { findLogBreak } = await import("./log-break.ts");
  try {
    const found = findLogBreak(installationPaths(root));
    if (found === null) return {};
    const { file, line, expected, found: link } = found;
    return { logAltered: { file, line, expected, found: link } };
  } catch {
    // A log that cannot be read keeps nobody from reporting.
    return {};
  }
}

/** Tells the hub how it went, for `limitMs` at most. Best effort: an update does not fail because nobody listens. */
export async function report(
  client: HubClient,
  root: string,
  state: Pick<InstallState, "id" | "roles" | "packages" | "settings">,
  { outcome, revision, problem }: Outcome,
  limitMs = PATIENT_MS,
): Promise<void> {
  try {
    const altered = await shownBreak(root);
    const isGood = (outcome === "in-step" || outcome === "updated") && problem === null;
    await client.report(
      state.id,
      {
        host: hostName(),
        directory: root.slice(0, 4096),
        roles: [...state.roles],
        packages: [...state.packages],
        revision,
        outcome,
        problem: problem?.slice(0, PROBLEM_CHARACTERS_MAX) ?? null,
        autoUpdate: state.settings.autoUpdate,
        updaterVersion: UPDATER_VERSION,
        ...(await shownHistory(root)),
        ...altered,
      },
      {
        signal: AbortSignal.timeout(limitMs),
        // What is wrong is told at once. One that enrolled has to hear that the hub wants its own session, which no relay gets to see.
        deferrable:
          isGood && altered.logAltered === undefined && !existsSync(installationPaths(root).identity),
      },
    );
  } catch {
    // The next run reports again.
  }
}
