import { closeSync, existsSync, lstatSync, openSync, readFileSync, readSync, realpathSync } from "node:fs";
import { resolve } from "node:path";
import { FILES_LINE, type InstallState, parseInstallState } from "@lockstep/core";
import { systemErrorCode } from "@lockstep/platform";
import { LockstepError } from "@lockstep/protocol/wire";
import { guarded, ioFailure } from "./io-failure.ts";
import { type InstallationPaths, installationPaths } from "./layout.ts";

/**
 * One installation directory, as far as looking at it goes. Reading here is lazy and small on purpose: a check that
 * finds equal revisions reads the revision file and the head of InstallState.config, and nothing else.
 */

/** What stands before the list of files in InstallState.config: little, however many files there are. */
export interface InstallHead {
  readonly id: string;
  readonly hub: InstallState["hub"];
  readonly settings: InstallState["settings"];
  readonly roles: readonly string[];
  readonly packages: readonly string[];
}

/** The revision file (S20, S21). `startedAt` is null where the file says no usable time. */
export interface InstalledRevision {
  readonly revision: number;
  readonly startedAt: number | null;
}

/** The paths of a directory, links in the way to it resolved. Throws INSTALLATION_NOT_FOUND. */
export function locate(directory: string): InstallationPaths {
  const path = resolve(directory);
  try {
    return installationPaths(realpathSync(path));
  } catch (cause) {
    // A disk that fails is no missing directory.
    if (systemErrorCode(cause) === "EIO") throw ioFailure(cause, path, "entering");
    throw new LockstepError("INSTALLATION_NOT_FOUND", `${path} cannot be entered`, {
      found: systemErrorCode(cause) ?? "no such directory",
      hint: "Name the directory of an installation, or make one: lockstep install DIR --role ROLE.",
      cause,
    });
  }
}

/** Whether a directory is an installation of ours, or was one before its state was lost. */
export function isInstallation(paths: InstallationPaths): boolean {
  return existsSync(paths.state) || existsSync(paths.commit);
}

/**
 * Whether an update stopped between its commit and its end. Whoever comes next finishes it first. A user who may not
 * look into our private directory goes by update.lock, which stands until an update has ended, however it ended.
 */
export function isUnfinished(paths: InstallationPaths): boolean {
  return lookForCommit(paths) === "there" || (mayNotLook(paths) && existsSync(paths.lock));
}

/** Whether this user is kept out of the private directory, so that the redo log is out of sight. */
export function mayNotLook(paths: InstallationPaths): boolean {
  return lookForCommit(paths) === "hidden";
}

function lookForCommit(paths: InstallationPaths): "there" | "absent" | "hidden" {
  try {
    return lstatSync(paths.commit, { throwIfNoEntry: false }) === undefined ? "absent" : "there";
  } catch {
    return "hidden";
  }
}

/** The installed revision; null when the file is missing or names none: out of date (behaviour 10). */
export function readInstalledRevision(paths: InstallationPaths): InstalledRevision | null {
  let text: string;
  try {
    text = readFileSync(paths.revision, "utf8");
  } catch {
    return null;
  }
  const [first, second] = text.split("\n");
  if (first === undefined || !/^\d{1,15}$/.test(first.trim())) return null;
  const startedAt = Date.parse(second?.trim() ?? "");
  return { revision: Number(first), startedAt: Number.isNaN(startedAt) ? null : startedAt };
}

const HEAD_BYTES = 64 * 1024;

/** Reads the head of InstallState.config. Throws INSTALLATION_NOT_FOUND, INSTALLATION_STATE_INVALID. */
export function readInstallHead(paths: InstallationPaths): InstallHead {
  const text = readBeginning(paths);
  const end = text.indexOf(FILES_LINE);
  // A head that is longer than what was read belongs to hundreds of roles; then the whole file is read.
  const parsed =
    end === -1 ? readInstallState(paths) : stateOf(paths, `${text.slice(0, end)}${FILES_LINE}]}`);
  return {
    id: parsed.id,
    hub: parsed.hub,
    settings: parsed.settings,
    roles: parsed.roles,
    packages: parsed.packages,
  };
}

/** Reads InstallState.config. Throws INSTALLATION_NOT_FOUND, INSTALLATION_STATE_INVALID. */
export function readInstallState(paths: InstallationPaths): InstallState {
  return readStateFile(paths).state;
}

/** The same, with the text as it stands in the file. */
export function readStateFile(paths: InstallationPaths): {
  readonly state: InstallState;
  readonly text: string;
} {
  const text = reading(paths, () => readFileSync(paths.state, "utf8"));
  return { state: stateOf(paths, text), text };
}

function readBeginning(paths: InstallationPaths): string {
  return reading(paths, () => {
    const descriptor = openSync(paths.state, "r");
    try {
      const buffer = Buffer.allocUnsafe(HEAD_BYTES);
      const length = readSync(descriptor, buffer, 0, HEAD_BYTES, 0);
      return buffer.toString("utf8", 0, length);
    } finally {
      closeSync(descriptor);
    }
  });
}

function reading(paths: InstallationPaths, read: () => string): string {
  try {
    return guarded(paths.state, "reading", read);
  } catch (error) {
    const cause = error instanceof Error ? error.cause : undefined;
    if (systemErrorCode(cause) !== "ENOENT") throw error;
    throw notAnInstallation(paths);
  }
}

/** The error for a directory that holds no installation. */
export function notAnInstallation(paths: InstallationPaths): LockstepError {
  return new LockstepError("INSTALLATION_NOT_FOUND", `${paths.root} is not an installation`, {
    expected: paths.state,
    found: existsSync(paths.revision)
      ? "a revision file without InstallState.config"
      : "no InstallState.config",
    hint: "Make one with: lockstep install DIR --role ROLE. Files that are there already are taken over, not fetched.",
  });
}

function stateOf(paths: InstallationPaths, text: string): InstallState {
  const parsed = parseInstallState(text);
  if (parsed.kind === "state") return parsed.state;
  throw new LockstepError("INSTALLATION_STATE_INVALID", `${paths.state} is damaged`, {
    expected: "the file as the updater wrote it",
    found: `${parsed.where}: ${parsed.problem}`,
    hint: "Move it away and run lockstep install with the same roles: files that are there already are taken over, not fetched.",
    faults: [{ where: paths.state, problem: `${parsed.where}: ${parsed.problem}` }],
  });
}
