import type { HubClient } from "@lockstep/client";
import type { InstallState } from "@lockstep/core";
import { hostName } from "@lockstep/platform";
import { type InstallationReport, isLockstepError } from "@lockstep/protocol/wire";
import { UPDATER_VERSION } from "./version.ts";

/** How a run ended, for the hub: what it last saw of this installation. */
export interface Outcome {
  readonly outcome: InstallationReport["outcome"];
  readonly revision: number | null;
  readonly problem: string | null;
}

const REPORT_TIMEOUT_MS = 5000;
const PROBLEM_CHARACTERS_MAX = 4000;

/** An error in one line, its code first. */
export function describeProblem(error: unknown): string {
  if (isLockstepError(error)) return `${error.code}: ${error.message}`;
  return error instanceof Error ? error.message : String(error);
}

/** Tells the hub how it went. Best effort: an update does not fail because nobody listens. */
export async function report(
  client: HubClient,
  root: string,
  state: Pick<InstallState, "id" | "roles" | "packages" | "settings">,
  { outcome, revision, problem }: Outcome,
): Promise<void> {
  try {
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
      },
      { signal: AbortSignal.timeout(REPORT_TIMEOUT_MS) },
    );
  } catch {
    // The next run reports again.
  }
}
