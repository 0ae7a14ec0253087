import { lstatSync, mkdirSync, type Stats } from "node:fs";
import { systemErrorCode } from "@lockstep/platform";
import { LockstepError } from "@lockstep/protocol/wire";
import { guarded } from "./io-failure.ts";
import { type InstallationPaths, PRIVATE_MODE } from "./layout.ts";

/**
 * Whoever can write into `.lockstep` decides what code the updater runs: the unpacked updater, its plug-ins and the redo
 * log stand there. So it is believed only if nobody but us could have put it there: a real directory, owned by the user
 * who runs, writable for nobody else. It is looked at before anything is read from it or written into it, in every
 * process. The two files of ours that stand beside it must be files, not links that lead a write elsewhere or pipes
 * that never answer.
 *
 * Not promised: safety in an installation directory that others may write to. They can rename what we have looked at.
 */
const FOREIGN_WRITE = 0o022;

/**
 * Makes `.lockstep` where it is missing, and makes sure that it and our files beside it are ours.
 * Throws INSTALLATION_NOT_PRIVATE, INSTALLATION_NOT_WRITABLE and its kin.
 */
export function demandPrivate(paths: InstallationPaths): void {
  const { privateDirectory } = paths;
  guarded(privateDirectory, "making", () => {
    try {
      mkdirSync(privateDirectory, { mode: PRIVATE_MODE });
    } catch (error) {
      if (systemErrorCode(error) !== "EEXIST") throw error;
    }
  });
  const found = look(privateDirectory);
  const user = process.geteuid?.();
  if (found === null || !found.isDirectory())
    throw refuse(
      privateDirectory,
      "a directory",
      found?.isSymbolicLink() ? "a symbolic link" : "something else",
    );
  if (user !== undefined) {
    if (found.uid !== user)
      throw refuse(privateDirectory, `owned by user ${user}`, `owned by user ${found.uid}`);
    if ((found.mode & FOREIGN_WRITE) !== 0)
      throw refuse(
        privateDirectory,
        "writable for its owner alone",
        `mode ${(found.mode & 0o777).toString(8)}`,
      );
  }
  for (const file of [paths.log, paths.lock]) {
    const beside = look(file);
    if (beside !== null && !beside.isFile())
      throw refuse(file, "a file", beside.isSymbolicLink() ? "a symbolic link" : "something else");
  }
}

function look(path: string): Stats | null {
  return guarded(path, "looking at", () => lstatSync(path, { throwIfNoEntry: false }) ?? null);
}

function refuse(path: string, expected: string, found: string): LockstepError {
  return new LockstepError("INSTALLATION_NOT_PRIVATE", `${path} cannot be trusted`, {
    expected,
    found,
    hint: "Run lockstep as the user who owns the installation. If nobody should have changed this, look who did, then remove it: everything in it can be made again, except an update that was interrupted.",
  });
}
