import type { HubClient } from "@lockstep/client";
import type { InstallState } from "@lockstep/core";
import { systemClock } from "@lockstep/platform";
import { LockstepError } from "@lockstep/protocol/wire";
import { connectHub } from "./hub-access.ts";
import {
  isUnfinished,
  locate,
  readInstalledRevision,
  readInstallHead,
  readInstallState,
} from "./installation.ts";
import type { InstallationPaths } from "./layout.ts";
import { planFor } from "./plan.ts";
import { recoverFirst } from "./recovery.ts";
import type { Choice, PlanDocument, RunResult } from "./run-types.ts";
import { demandSelectable, resolveSelection, selectManifests } from "./selection.ts";
import { runToRevision, type SessionOptions, withInstallation } from "./session.ts";
import type { Allowed } from "./trust.ts";

/**
 * Another choice of machine roles and packages for an installation that is there (domain 1.2): a machine takes over a
 * role, or gives one up. That is an update like any other, to the software revision that is installed already: the same
 * plan, the same staging, the same commit; the files of dropped roles go, those of new ones come, and both choices are
 * never mixed, whatever crashes.
 */
export interface ReselectOptions extends SessionOptions {
  /** All machine roles from now on. Absent: as they are. */
  readonly roles?: readonly string[] | undefined;
  /** All packages from now on. Absent: as they are. */
  readonly packages?: readonly string[] | undefined;
  /** Only says what would change. */
  readonly dryRun?: boolean | undefined;
}

export interface ReselectResult {
  readonly before: Choice;
  readonly after: Choice;
  /** What had to change, before it was changed. */
  readonly plan: PlanDocument;
  /** Null: nothing was to be done, or only the plan was wanted. */
  readonly run: RunResult | null;
}

/**
 * Changes the choice. Throws USAGE when nothing would be chosen any more, ROLE_UNKNOWN, PACKAGE_UNKNOWN,
 * ROLE_NOT_SELECTABLE, PACKAGE_NOT_SELECTABLE for what is new in it, REVISION_UNKNOWN when the hub no longer has the
 * revision that is installed, and what an update throws; the installation then is as it was.
 */
export async function reselect(directory: string, options: ReselectOptions): Promise<ReselectResult> {
  const paths = locate(directory);
  if (options.dryRun === true) {
    if (isUnfinished(paths)) await recoverFirst(paths, { environment: options.access.environment });
    return { ...(await decide(paths, options)).result, run: null };
  }
  return await withInstallation(paths, options, async (session) => {
    const { state, allowed, result } = await decide(paths, options);
    const { before, after, plan } = result;
    const isSame = sameNames(before.roles, after.roles) && sameNames(before.packages, after.packages);
    if (isSame && plan.from === plan.to && plan.operations.length === 0) return { ...result, run: null };
    const run = await runToRevision(session, allowed, {
      initial: null,
      selection: after,
      hubUrl: state.hub,
      edits: null,
      trigger: "manual",
      selfUpdate: options.selfUpdate ?? true,
    });
    return { ...result, run };
  });
}

async function decide(
  paths: InstallationPaths,
  options: ReselectOptions,
): Promise<{
  state: InstallState;
  allowed: Allowed;
  result: Omit<ReselectResult, "run">;
}> {
  const state = readInstallState(paths);
  const installed = readInstalledRevision(paths)?.revision ?? null;
  const before = { roles: state.rolesChosen, packages: state.packagesChosen };
  const wanted = { roles: options.roles ?? before.roles, packages: options.packages ?? before.packages };
  if (wanted.roles.length + wanted.packages.length === 0)
    throw new LockstepError("USAGE", "no machine role and no package would be left", {
      expected: "at least one --role or --package",
      found: "none",
      hint: "To remove an installation, stop its agent and delete the directory.",
    });
  const client = await connectHub(state.hub, options.access, paths);
  try {
    const allowed = await installedRevision(client, paths, installed, options);
    const { document } = allowed;
    const selection = resolveSelection(document, wanted.roles, wanted.packages);
    // What was chosen before may stay, also where only programs may choose it.
    demandSelectable(document, {
      ...selection,
      rolesChosen: selection.rolesChosen.filter((name) => !before.roles.includes(name)),
      packagesChosen: selection.packagesChosen.filter((name) => !before.packages.includes(name)),
    });
    selectManifests(document, selection);
    const after = { roles: selection.rolesChosen, packages: selection.packagesChosen };
    const plan = await planFor(client, paths, document, { ...options, ...after });
    return { state, allowed, result: { before, after, plan } };
  } finally {
    await client.close();
  }
}

/** The revision that is installed, as it was signed; without a revision file the current one. */
async function installedRevision(
  client: HubClient,
  paths: InstallationPaths,
  installed: number | null,
  options: ReselectOptions,
): Promise<Allowed> {
  const { lookAtSigned, readAllowed, trustStore } = await import("./trust.ts");
  const clock = options.clock ?? systemClock;
  const kept = installed === null ? null : await readAllowed(paths, clock, installed);
  if (kept !== null) return kept;
  const allowed = await lookAtSigned(client, trustStore(paths), {
    clock,
    signal: options.signal,
    subject: { installation: readInstallHead(paths).id, installed },
  });
  if (installed === null || allowed.document.number === installed) {
    await allowed.copy.keepIn(trustStore(paths));
    return allowed;
  }
  throw new LockstepError(
    "REVISION_UNKNOWN",
    `what was signed for software revision ${installed} is not kept here`,
    {
      expected: installed,
      found: allowed.document.number,
      hint: "Run `lockstep update` on this installation first, then change its roles.",
    },
  );
}

function sameNames(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((name, index) => name === b[index]);
}
