import { APPLY_LAYOUT } from "@lockstep/core";
import { systemErrorCode } from "@lockstep/platform";
import { type ErrorCode, isLockstepError, LockstepError } from "@lockstep/protocol/wire";

/** What a system error means for an installation, and what its owner can do. */
const MEANINGS: Readonly<Record<string, { code: ErrorCode; hint: string }>> = {
  ENOSPC: { code: "INSTALLATION_DISK_FULL", hint: "Free space on this file system, then try again." },
  EDQUOT: { code: "INSTALLATION_DISK_FULL", hint: "The disk quota is used up: raise it or free space." },
  EACCES: {
    code: "INSTALLATION_NOT_WRITABLE",
    hint: "Run as the owner of the installation directory, or give this user write permission on it.",
  },
  EPERM: {
    code: "INSTALLATION_NOT_WRITABLE",
    hint: "Run as the owner of the installation directory; a file may also be marked immutable.",
  },
  EROFS: {
    code: "INSTALLATION_NOT_WRITABLE",
    hint: "The file system is mounted read-only, on purpose or because of a disk error.",
  },
  EBUSY: { code: "INSTALLATION_FILE_IN_USE", hint: "Close the programs that use the file, then try again." },
  ETXTBSY: { code: "INSTALLATION_FILE_IN_USE", hint: "Stop the program that runs from it, then try again." },
  EMFILE: {
    code: "INSTALLATION_IO_FAILED",
    hint: "Raise the limit of open files (ulimit -n), then try again.",
  },
  ENFILE: { code: "INSTALLATION_IO_FAILED", hint: "The machine has run out of open files; try again later." },
  EXDEV: {
    code: "INSTALLATION_IO_FAILED",
    hint: "A directory of the installation lies on another file system. Mount none inside the installation.",
  },
};

/**
 * A failed disk operation as an INSTALLATION_* error: full disk, missing permission, file in use, or any other. An
 * error that is ours already stays as it is.
 */
export function installationError(error: unknown, doing: string, path: string): LockstepError {
  if (isLockstepError(error)) return error;
  const found = systemErrorCode(error);
  const meaning = found === null ? undefined : MEANINGS[found];
  return new LockstepError(meaning?.code ?? "INSTALLATION_IO_FAILED", `cannot ${doing} ${path}`, {
    ...(found === null ? {} : { found }),
    hint: meaning?.hint ?? "Look at the machine's log for disk errors, then try again.",
    cause: error,
  });
}

/** Runs one act on a path; a failure becomes an INSTALLATION_* error that names the act and the path. */
export function attempt<T>(doing: string, path: string, act: () => T): T {
  try {
    return act();
  } catch (error) {
    throw installationError(error, doing, path);
  }
}

/** The same for an act that takes time. */
export async function attemptLong<T>(doing: string, path: string, act: () => Promise<T>): Promise<T> {
  try {
    return await act();
  } catch (error) {
    throw installationError(error, doing, path);
  }
}

/**
 * The error for files of an update under way that are neither where they were kept nor where they belong: somebody
 * cleared the private directory. Nothing that is on the disk can bring them back.
 */
export function lostError(
  root: string,
  lost: readonly { readonly path: string; readonly from: string }[],
): LockstepError {
  const [first] = lost;
  const many = lost.length === 1 ? "a file" : `${lost.length} files`;
  return new LockstepError(
    "INSTALLATION_DAMAGED",
    `${many} of the update under way in ${root} cannot be found any more`,
    {
      ...(first === undefined ? {} : { expected: first.from }),
      found: "nothing there, and something else in its place",
      faults: lost.map(({ path, from }) => ({ where: path, problem: `${from} is gone` })),
      hint: wayOut(root),
    },
  );
}

/** What to do when a record can be neither carried out nor taken back. */
export function wayOut(root: string): string {
  return `Move ${root}/${APPLY_LAYOUT.head} elsewhere, then run "lockstep repair" and "lockstep update": they read every file and fetch what differs. Start no program from there until then.`;
}

/** An error whose message goes on with what became of the installation. What is lost has its own way out. */
export function withOutcome(error: unknown, outcome: string, next: string): LockstepError {
  const inner = installationError(error, "use", "the installation directory");
  const hint = inner.code === "INSTALLATION_DAMAGED" ? (inner.hint ?? next) : next;
  return new LockstepError(inner.code, `${inner.message}; ${outcome}`, {
    ...(inner.expected === undefined ? {} : { expected: inner.expected }),
    ...(inner.found === undefined ? {} : { found: inner.found }),
    faults: inner.faults,
    hint,
    cause: inner.cause ?? inner,
  });
}
