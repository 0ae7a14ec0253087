import { type ErrorCode, isLockstepError, LockstepError } from "@lockstep/protocol/wire";

/**
 * What the system said about a file, as an error that names the file and the next step. Anything that is not a system
 * error passes through unchanged: a bug must not be dressed as a full disk.
 */
const KNOWN: Record<string, { code: ErrorCode; problem: string; hint: string }> = {
  EACCES: {
    code: "INSTALLATION_NOT_WRITABLE",
    problem: "this user has no permission",
    hint: "Run it as the user who owns the installation, or give this one write permission for the directory and all that is in it.",
  },
  EROFS: {
    code: "INSTALLATION_NOT_WRITABLE",
    problem: "the file system is mounted read-only",
    hint: "Mount it writable, or update the image that it comes from.",
  },
  ENOSPC: {
    code: "INSTALLATION_DISK_FULL",
    problem: "the disk is full",
    hint: "Free space, then run it again: what was fetched is kept.",
  },
  EDQUOT: {
    code: "INSTALLATION_DISK_FULL",
    problem: "this user's quota is used up",
    hint: "Free space or raise the quota, then run it again: what was fetched is kept.",
  },
  EBUSY: {
    code: "INSTALLATION_FILE_IN_USE",
    problem: "a program holds it",
    hint: "Stop the programs that run from the installation, then run it again.",
  },
  ETXTBSY: {
    code: "INSTALLATION_FILE_IN_USE",
    problem: "it is running",
    hint: "Stop the programs that run from the installation, then run it again.",
  },
};
const NOT_WRITABLE = KNOWN.EACCES;

/** The code of a system error, or null. */
export function errnoOf(error: unknown): string | null {
  if (!(error instanceof Error) || !("code" in error) || !("syscall" in error)) return null;
  return typeof error.code === "string" ? error.code : null;
}

/** An error of ours for a failed call on `path`, while doing `action` ("writing"). */
export function ioFailure(error: unknown, path: string, action: string): unknown {
  if (isLockstepError(error)) return error;
  const errno = errnoOf(error);
  if (errno === null) return error;
  const known = errno === "EPERM" ? NOT_WRITABLE : KNOWN[errno];
  if (known !== undefined)
    return new LockstepError(known.code, `${action} ${path} failed: ${known.problem}`, {
      found: errno,
      hint: known.hint,
      cause: error,
    });
  return new LockstepError("INSTALLATION_IO_FAILED", `${action} ${path} failed: ${errno}`, {
    found: errno,
    hint: "Look at the disk and at the system's log; nothing was changed that is not written in update.log.",
    cause: error,
  });
}

/** Runs a piece of work on `path` and turns what the system says into an error of ours. */
export function guarded<T>(path: string, action: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw ioFailure(error, path, action);
  }
}
