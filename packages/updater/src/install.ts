import { randomUUID } from "node:crypto";
import { resolve } from "node:path";
import { DEFAULT_SETTINGS, type EditsPolicy, type InstallationHub } from "@lockstep/core";
import { LockstepError } from "@lockstep/protocol/wire";
import { connectHub } from "./hub-access.ts";
import { isInstallation, locate, readInstallState } from "./installation.ts";
import { demandSelectable, resolveSelection, type Selection, selectManifests } from "./selection.ts";
import {
  makeDirectory,
  runToRevision,
  type Session,
  type SessionOptions,
  withInstallation,
} from "./session.ts";
import { type UpdateResult, updateLocked } from "./update.ts";

export interface InstallOptions extends SessionOptions {
  readonly roles: readonly string[];
  readonly packages?: readonly string[];
  readonly edits?: EditsPolicy | undefined;
  readonly autoUpdate?: boolean | undefined;
}

/**
 * Makes a directory an installation: resolves machine roles and packages, and builds it from the hub alone.
 *
 * Files that are there already are taken over where they are as wanted; foreign ones stay. A directory that is an
 * installation already is brought up to date if hub, roles and packages are the same, and refused else
 * (INSTALLATION_EXISTS). Throws ROLE_UNKNOWN, PACKAGE_UNKNOWN, ROLE_NOT_SELECTABLE, PACKAGE_NOT_SELECTABLE and what an
 * update throws. An installation that failed half-way is none: the next try goes on with what was fetched.
 */
export async function install(directory: string, options: InstallOptions): Promise<UpdateResult> {
  const { access } = options;
  if (options.roles.length === 0 && (options.packages ?? []).length === 0)
    throw new LockstepError("USAGE", "no machine role and no package was chosen", {
      expected: "at least one --role or --package",
      found: "none",
    });
  const client = await connectHub(null, access);
  const hub: InstallationHub = {
    url: client.url,
    caFile: absolute(access.caFile ?? access.environment.LOCKSTEP_CA),
    tokenFile: absolute(access.tokenFile ?? access.environment.LOCKSTEP_TOKEN_FILE),
  };
  try {
    // Everything that can be refused is refused before the directory is made.
    const semaphore = await client.currentSemaphore({ signal: options.signal });
    if (semaphore.revision === 0)
      throw new LockstepError("REVISION_UNKNOWN", "the hub has no software revision yet", {
        expected: "a software revision of 1 or higher",
        found: 0,
        hint: "Load a release first, or wait until the DBQueue has worked it off. Nothing was made.",
      });
    const document = await client.revision(semaphore.revision, { signal: options.signal });
    const selection = resolveSelection(document, options.roles, options.packages ?? []);
    demandSelectable(document, selection);
    selectManifests(document, selection);
    makeDirectory(resolve(directory));
    const paths = locate(directory);
    return await withInstallation(paths, options, async (session) => {
      if (isInstallation(paths)) return await installAgain(session, hub, selection, options);
      return await runToRevision(session, document, {
        initial: {
          id: randomUUID(),
          hub,
          roles: selection.rolesChosen,
          packages: selection.packagesChosen,
          settings: {
            autoUpdate: options.autoUpdate ?? DEFAULT_SETTINGS.autoUpdate,
            edits: options.edits ?? DEFAULT_SETTINGS.edits,
          },
        },
        hubUrl: hub,
        edits: null,
        trigger: "manual",
        selfUpdate: options.selfUpdate ?? true,
      });
    });
  } finally {
    await client.close();
  }
}

type Choices = Pick<Selection, "rolesChosen" | "packagesChosen">;

/** Installing what is installed is an update; installing something else over it is a mistake. */
async function installAgain(
  session: Session,
  hub: InstallationHub,
  selection: Choices,
  options: InstallOptions,
): Promise<UpdateResult> {
  const state = readInstallState(session.paths);
  const describe = (url: string, roles: readonly string[], packages: readonly string[]) =>
    [`hub ${url}`, `roles ${roles.join(", ") || "none"}`, `packages ${packages.join(", ") || "none"}`].join(
      "; ",
    );
  const wanted = describe(hub.url, selection.rolesChosen, selection.packagesChosen);
  const found = describe(state.hub.url, state.rolesChosen, state.packagesChosen);
  if (wanted !== found)
    throw new LockstepError(
      "INSTALLATION_EXISTS",
      `${session.paths.root} is an installation of something else`,
      {
        expected: wanted,
        found,
        hint: `${howToChange(state.hub.url, hub.url, selection)}; or choose another directory.`,
      },
    );
  return await updateLocked(session, options);
}

function howToChange(present: string, wanted: string, selection: Choices): string {
  const choice = [
    ...selection.rolesChosen.map((role) => `--role ${role}`),
    ...selection.packagesChosen.map((name) => `--package ${name}`),
  ].join(" ");
  const change = `lockstep configure DIR ${choice}`;
  return present === wanted
    ? `To change what it has: ${change}`
    : `To change what it has: lockstep configure DIR --set-hub ${wanted}, then ${change}`;
}

function absolute(path: string | undefined): string | null {
  return path === undefined || path === "" ? null : resolve(path);
}
