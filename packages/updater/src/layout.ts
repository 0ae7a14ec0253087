import { join } from "node:path";
import { revisionFileName } from "@lockstep/core";

/**
 * The places in an installation directory. Four names at its root are the source documents'; everything else of ours
 * stands in one private directory, so that a foreign file is never met by accident.
 */
export const PRIVATE_DIRECTORY = ".lockstep";
export const PRIVATE_MODE = 0o700;
export const STATE_FILE = "InstallState.config";
export const LOG_FILE = "update.log";
export const LOCK_FILE = "update.lock";
/** On Windows the attribute hides it, elsewhere the dot (S20). */
export const REVISION_FILE = revisionFileName(process.platform === "win32");

/** Absolute paths of one installation. */
export interface InstallationPaths {
  readonly root: string;
  readonly state: string;
  readonly revision: string;
  readonly log: string;
  readonly lock: string;
  readonly privateDirectory: string;
  /** The redo log: there is one only while an update is between its commit and its end. */
  readonly commit: string;
  readonly staging: string;
  readonly previous: string;
  readonly index: string;
  readonly partial: string;
  readonly manifests: string;
  readonly updater: string;
  /** Where a new updater shows that it works; nothing stands there but while it does, or after it was killed. */
  readonly selfTest: string;
  readonly backup: string;
  /** What a recovery must know of the run that it finishes. */
  readonly run: string;
  readonly attempts: string;
  /** The pinned root, and what was trusted since. */
  readonly trust: string;
  /** The key pair of this installation, where the chain of its sessions stands, and the present session. */
  readonly identity: string;
}

/** `root` must be absolute and without a slash at its end. */
export function installationPaths(root: string): InstallationPaths {
  const own = join(root, PRIVATE_DIRECTORY);
  return {
    root,
    state: join(root, STATE_FILE),
    revision: join(root, REVISION_FILE),
    log: join(root, LOG_FILE),
    lock: join(root, LOCK_FILE),
    privateDirectory: own,
    commit: join(own, "commit.json"),
    staging: join(own, "staging"),
    previous: join(own, "previous"),
    index: join(own, "index"),
    partial: join(own, "partial"),
    manifests: join(own, "manifests"),
    updater: join(own, "updater"),
    selfTest: join(own, "self-test"),
    backup: join(own, "backup"),
    run: join(own, "run.json"),
    attempts: join(own, "attempts.json"),
    trust: join(own, "trust"),
    identity: join(own, "identity"),
  };
}
