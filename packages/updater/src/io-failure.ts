import { systemErrorCode } from "@lockstep/platform";
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
const TOO_MANY_OPEN = {
  code: "INSTALLATION_IO_FAILED",
  problem: "too many files are open",
  hint: "Raise the limit of open files (ulimit -n), or look what else runs on this machine, then run it again.",
} as const;
KNOWN.EMFILE = TOO_MANY_OPEN;
KNOWN.ENFILE = TOO_MANY_OPEN;
KNOWN.EAGAIN = {
  code: "INSTALLATION_IO_FAILED",
  problem: "the system has no room for another process",
  hint: "Raise the limit of processes (ulimit -u), or look what else runs on this machine, then run it again.",
};

/** An error of ours for a failed call on `path`, while doing `action` ("writing"). */
export function ioFailure(error: unknown, path: string, action: string): unknown {
  if (isLockstepError(error)) return error;
  const errno = systemErrorCode(error);
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
    hint: "Look at the disk and at the system's log for errors, then run it again.",
    cause: error,
  });
}

/** The same for a failure of which only the system knows on which path; `otherwise` is named where it does not say. */
export function unnamedIoFailure(error: unknown, otherwise: string): unknown {
  const path =
    error instanceof Error && "path" in error && typeof error.path === "string" ? error.path : null;
  return ioFailure(error, path ?? otherwise, "working on");
}

/** Runs a piece of work on `path` and turns what the system says into an error of ours. */
export function guarded<T>(path: string, action: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw ioFailure(error, path, action);
  }
}
