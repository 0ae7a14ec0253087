import { type ErrorCode, LockstepError } from "@lockstep/protocol";

/**
 * What PostgreSQL's programs say when they fail, by the words that they keep using (LC_ALL=C), and what each means for
 * the reader. The first that matches counts.
 */
const MEANINGS: readonly { readonly pattern: RegExp; readonly code: ErrorCode; readonly hint: string }[] = [
  {
    pattern:
      /No space left on device|Disk quota exceeded|Check free disk space|wrote only \d+ of \d+ bytes|ENOSPC/,
    code: "DATABASE_DISK_FULL",
    hint: "free space on the file system of the data directory, then start the hub again",
  },
  {
    pattern: /database files are incompatible with server|was initialized by PostgreSQL version/,
    code: "DATABASE_VERSION_UNSUPPORTED",
    hint: "name the directory of the older PostgreSQL's programs in LOCKSTEP_POSTGRES_BIN",
  },
  {
    pattern:
      /Permission denied|Operation not permitted|has wrong ownership|Read-only file system|unable to open database file|readonly database|EACCES|EPERM|EROFS/,
    code: "DATABASE_NOT_PERMITTED",
    hint: "give the user of the hub write permission on the data directory",
  },
  {
    pattern: /could not look up effective user ID/,
    code: "DATABASE_START_FAILED",
    hint: "run the hub as a user that the system knows by name (PostgreSQL asks for it)",
  },
  {
    pattern:
      /could not create shared memory segment|could not create semaphores|could not map anonymous shared memory/,
    code: "DATABASE_START_FAILED",
    hint: "the machine has too little shared memory left; see its limits (kernel.shmall, memory of the container)",
  },
];

const LINES_SHOWN = 4;

/** An error that says what went wrong from what a program printed last. */
export function startFailure(message: string, output: string, cause?: unknown): LockstepError {
  const lines = output
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => line !== "");
  const telling = lines.filter((line) => /error|fatal|panic|detail|denied|could not|no space/i.test(line));
  const said = (telling.length > 0 ? telling : lines).slice(-LINES_SHOWN).join(" | ");
  const meaning = MEANINGS.find(({ pattern }) => pattern.test(output));
  return new LockstepError(
    meaning?.code ?? "DATABASE_START_FAILED",
    said === "" ? message : `${message}: ${said}`,
    {
      hint: meaning?.hint ?? "read the hub's log above for what PostgreSQL said",
      ...(cause === undefined ? {} : { cause }),
    },
  );
}

/** Gives a file-system error of preparing the data directory its name; others pass. */
export function fileFailure(message: string, error: unknown): unknown {
  if (!(error instanceof Error) || error instanceof LockstepError || !("code" in error)) return error;
  return startFailure(message, `${String(error.code)} ${error.message}`, error);
}
