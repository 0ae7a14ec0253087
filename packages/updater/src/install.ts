import { randomUUID } from "node:crypto";
import { existsSync, rmdirSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { DEFAULT_SETTINGS, type EditsPolicy, type InstallationHub } from "@lockstep/core";
import { systemClock } from "@lockstep/platform";
import { LockstepError } from "@lockstep/protocol/wire";
import { connectHub } from "./hub-access.ts";
import { begunAs, enrol, showIdentity } from "./identity.ts";
import { isInstallation, locate, readInstallState } from "./installation.ts";
import { installationPaths } from "./layout.ts";
import { demandPrivate } from "./private-directory.ts";
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
  /** The root of trust, from the owner of the release keys; else the first that the hub shows. */
  readonly root?: Uint8Array | null | undefined;
  /** A secret by which the hub notes the key of this installation; null: it goes without one. */
  readonly enrolment?: string | null | undefined;
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
  const target = installationPaths(resolve(directory));
  const client = await connectHub(null, access, target);
  const relay = access.relay ?? access.environment.LOCKSTEP_RELAY;
  const hub: InstallationHub = {
    url: client.url,
    caFile: absolute(access.caFile ?? access.environment.LOCKSTEP_CA),
    tokenFile: absolute(access.tokenFile ?? access.environment.LOCKSTEP_TOKEN_FILE),
    ...(relay === undefined || relay === "" || relay === "none" ? {} : { relay }),
  };
  try {
    if ((options.enrolment ?? null) !== null) await enrolFirst(directory, hub, options.enrolment ?? "");
    // Everything that can be refused is refused before the directory is made.
    const semaphore = await client.currentSemaphore({ signal: options.signal });
    if (semaphore.revision === 0)
      throw new LockstepError("REVISION_UNKNOWN", "the hub has no software revision yet", {
        expected: "a software revision of 1 or higher",
        found: 0,
        hint: "Load a release first, or wait until the DBQueue has worked it off. Nothing was made.",
      });
    const { demandAnnounced, lookAtSigned, trustStore } = await import("./trust.ts");
    const { clock = systemClock, signal, root = null } = options;
    // A first try that failed half-way has trusted something already; a root that is given counts more.
    const kept = root === null ? trustStore(target) : null;
    const allowed = await lookAtSigned(client, kept, { clock, signal, root });
    demandAnnounced(semaphore.revision, allowed);
    const { document } = allowed;
    const selection = resolveSelection(document, options.roles, options.packages ?? []);
    demandSelectable(document, selection);
    selectManifests(document, selection);
    makeDirectory(resolve(directory));
    const paths = locate(directory);
    return await withInstallation(paths, options, async (session) => {
      if (isInstallation(paths)) return await installAgain(session, hub, selection, options);
      await allowed.copy.keepIn(trustStore(paths));
      return await runToRevision(session, allowed, {
        initial: {
          id: begunAs(paths) ?? randomUUID(),
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

/**
 * Enrols before anything is asked of the hub, which may be all that lets this machine ask. The key has to be durable before the
 * secret is used up, so the directory is made for it; installing again goes on with it. Where the hub certainly did not note
 * the key, nothing that was made here stays.
 */
async function enrolFirst(directory: string, hub: InstallationHub, secret: string): Promise<void> {
  const root = resolve(directory);
  const topmost = makeDirectory(root);
  const paths = locate(directory);
  const made = [paths.privateDirectory, paths.identity].filter((path) => !existsSync(path));
  demandPrivate(paths);
  if (showIdentity(paths) !== null) return;
  const id = isInstallation(paths) ? readInstallState(paths).id : (begunAs(paths) ?? randomUUID());
  try {
    await enrol(paths, hub, secret, id);
  } catch (error) {
    // The key is still there where the hub may have noted it.
    removeEmpty([...upTo(topmost, root), ...made].reverse());
    throw error;
  }
}

/** The directories from the topmost one down to `directory`, both with it; none for null. */
function upTo(topmost: string | null, directory: string): string[] {
  if (topmost === null) return [];
  const above = directory === topmost ? [] : upTo(topmost, dirname(directory));
  return [...above, directory];
}

/** Removes directories one after the other, until one is not empty or cannot be removed: why it failed counts more. */
function removeEmpty(directories: readonly string[]): void {
  try {
    for (const directory of directories) rmdirSync(directory);
  } catch {
    // Somebody put something there meanwhile, or the key stays.
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
