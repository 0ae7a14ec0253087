/**
 * Every error that a person or a script can meet, by its stable code.
 *
 * The exit status follows the kind: 1 operating error, 2 wrong usage, 3 refused (trust, policy), 4 postponed.
 * `http` is what the hub answers when it is the one who says so. docs/reference/errors.md has one section for each
 * code; a test holds the two against each other.
 */
export type ErrorKind = "operating" | "usage" | "refused" | "postponed";

export interface ErrorDefinition {
  readonly kind: ErrorKind;
  readonly http: number;
  /** Whether trying the same again later can help without anyone doing anything. */
  readonly retry: "never" | "later";
}

const operating = (http: number, retry: "never" | "later" = "never"): ErrorDefinition => ({
  kind: "operating",
  http,
  retry,
});
const usage = (http = 400): ErrorDefinition => ({ kind: "usage", http, retry: "never" });
const refused = (http = 409): ErrorDefinition => ({ kind: "refused", http, retry: "never" });

export const ERRORS = {
  // Usage and configuration.
  USAGE: usage(),
  REQUEST_INVALID: usage(400),
  MODULE_FILE_INVALID: usage(400),
  CONFIG_INVALID: usage(400),
  // Hub and database.
  HUB_UNREACHABLE: operating(502, "later"),
  HUB_BUSY: operating(503, "later"),
  HUB_ANSWER_INVALID: operating(502),
  HUB_CERTIFICATE_REFUSED: refused(502),
  HUB_INTERNAL: operating(500, "later"),
  HUB_ALREADY_RUNNING: operating(500),
  HUB_LISTEN_REFUSED: refused(400),
  HUB_LISTEN_FAILED: operating(500),
  DATABASE_UNREACHABLE: operating(503, "later"),
  DATABASE_START_FAILED: operating(500),
  DATABASE_PROGRAMS_MISSING: operating(500),
  DATABASE_NOT_PERMITTED: operating(500),
  DATABASE_DISK_FULL: operating(507, "later"),
  DATABASE_VERSION_UNSUPPORTED: operating(500),
  DATABASE_SCHEMA_NEWER: refused(500),
  DATABASE_SCHEMA_OLDER: operating(503),
  DATABASE_SCHEMA_DIFFERS: refused(500),
  DBQUEUE_DEFINITION_INVALID: operating(500),
  AUTHENTICATION_REQUIRED: refused(401),
  AUTHENTICATION_FAILED: refused(403),
  NOT_FOUND: operating(404),
  CONTENT_TOO_LARGE: refused(413),
  // Relays.
  RELAY_LISTEN_REFUSED: refused(400),
  RELAY_LISTEN_FAILED: operating(500),
  RELAY_CACHE_FAILED: operating(502, "later"),
  REPORT_BASE_UNKNOWN: operating(409),
  // Loading.
  BUNDLE_INVALID: refused(409),
  LOAD_SOURCE_UNREADABLE: operating(400),
  LOAD_SOURCE_CHANGED: operating(409),
  LOAD_EMPTY: usage(400),
  LOAD_REFUSED: refused(409),
  LOAD_CONFLICT: operating(409, "later"),
  LOAD_CONTENT_MISMATCH: refused(409),
  LOAD_INTERRUPTED: operating(400, "later"),
  CONFIRMATION_REQUIRED: refused(409),
  CANCELLED: { kind: "postponed", http: 400, retry: "never" } as ErrorDefinition,
  SETUP_INCOMPLETE: operating(500),
  EXPORT_TARGET_REFUSED: refused(409),
  FILE_ACCESS_FAILED: operating(500),
  MODULE_REQUIREMENT_UNMET: refused(409),
  PATH_REFUSED: refused(409),
  // Revisions and files.
  REVISION_UNKNOWN: operating(404),
  REVISION_AWAITS_SIGNATURE: { kind: "postponed", http: 409, retry: "never" } as ErrorDefinition,
  REVISION_TIMEOUT: operating(504, "later"),
  FILE_UNKNOWN: operating(404),
  ROLE_UNKNOWN: refused(404),
  PACKAGE_UNKNOWN: refused(404),
  ROLE_NOT_SELECTABLE: refused(409),
  PACKAGE_NOT_SELECTABLE: refused(409),
  // Job service.
  JOB_INSTANCE_REPLACED: refused(409),
  JOB_QUEUE_TAKEN: operating(409, "later"),
  JOB_REQUEST_STALE: operating(409),
  JOB_TERM_STALE: refused(409),
  JOB_LEASE_LOST: operating(409, "later"),
  JOB_JOURNAL_FAILED: operating(507, "later"),
  // Installations.
  INSTALLATION_NOT_FOUND: operating(404),
  INSTALLATION_EXISTS: refused(409),
  INSTALLATION_STATE_INVALID: operating(500),
  INSTALLATION_LOCKED: { kind: "postponed", http: 409, retry: "later" } as ErrorDefinition,
  INSTALLATION_NOT_WRITABLE: operating(500),
  INSTALLATION_NOT_PRIVATE: refused(409),
  INSTALLATION_DISK_FULL: operating(507, "later"),
  INSTALLATION_FILE_IN_USE: { kind: "postponed", http: 409, retry: "later" } as ErrorDefinition,
  INSTALLATION_IO_FAILED: operating(500),
  INSTALLATION_DAMAGED: operating(500),
  INSTALLATION_CONFLICT: refused(409),
  CONTENT_MISMATCH: refused(502),
  DELTA_INVALID: refused(502),
  STEP_NONE: operating(404),
  MANIFEST_INVALID: refused(502),
  MANIFEST_TOO_LARGE: refused(502),
  DOWNGRADE_REFUSED: refused(409),
  UPDATE_DISABLED: { kind: "postponed", http: 409, retry: "never" } as ErrorDefinition,
  UPDATE_POSTPONED: { kind: "postponed", http: 409, retry: "later" } as ErrorDefinition,
  UPDATE_ARCHIVE_INVALID: refused(502),
  UPDATE_LOG_ALTERED: refused(409),
  UPDATER_UNAVAILABLE: operating(500, "later"),
  PLUGIN_FAILED: operating(500),
  PROBE_FAILED: operating(500),
  ROLLBACK_UNAVAILABLE: operating(409),
  PROGRAM_NOT_STARTED: operating(500),
  // Components of the job service.
  JOB_COMPONENT_UNKNOWN: usage(400),
  JOB_EXECUTION_INVALID: usage(400),
  JOB_PARAMETERS_INVALID: usage(400),
  JOB_TIME_LIMIT: operating(504, "later"),
  JOB_PLUGIN_INVALID: operating(500),
  JOB_TEMPLATE_INVALID: usage(400),
  JOB_TEMPLATE_UNKNOWN: operating(404),
  JOB_TEMPLATE_IN_USE: refused(409),
  JOB_START_INVALID: usage(400),
  JOB_PROCESS_UNKNOWN: operating(404),
  JOB_PROCESS_FAILED: operating(500),
  JOB_PROCESS_STUCK: { kind: "postponed", http: 409, retry: "never" } as ErrorDefinition,
  JOB_PROCESS_CANCELLED: refused(409),
  JOB_PROCESS_ENDED: refused(409),
  JOB_SCHEDULE_INVALID: usage(400),
  JOB_SCHEDULE_UNKNOWN: operating(404),
  JOB_SERVER_UNKNOWN: operating(404),
  // The job service.
  SERVICE_CONFIG_UNREADABLE: operating(500),
  SERVICE_CONFIG_INVALID: usage(400),
  SERVICE_IMPORT_REFUSED: usage(400),
  SERVICE_UNREACHABLE: operating(502, "later"),
  SERVICE_STATUS_LISTEN_FAILED: operating(500),
  SERVICE_ALREADY_RUNNING: refused(409),
  SERVICE_INSTALL_FAILED: operating(500),
  // The cluster.
  COORDINATION_UNREACHABLE: operating(503, "later"),
  COORDINATION_ANSWER_INVALID: operating(502),
  COORDINATION_REFUSED: refused(403),
  DOCUMENT_TOO_LARGE: refused(413),
  CLUSTER_UNKNOWN: operating(404),
  CLUSTER_CHANGED: operating(409, "later"),
  CLUSTER_DOCUMENT_INVALID: operating(500),
  NODE_CONFIG: usage(400),
  NODE_LISTEN_FAILED: operating(500),
  PEER_UNREACHABLE: operating(502, "later"),
  VIRTUAL_SERVER_UNKNOWN: operating(404),
  VIRTUAL_SERVER_INVALID: refused(400),
  LEASE_TIMES_UNSAFE: refused(400),
  CHECKPOINT_INVALID: operating(500),
  CHECKPOINT_LAY_DOWN_FAILED: operating(500),
  CHECKPOINT_TOO_LARGE: refused(413),
  CONFIG_QUEUE_REFUSED: refused(409),
  RESOURCE_SETTINGS: usage(400),
  RESOURCE_FAILED: operating(500, "later"),
  NODE_UNKNOWN: operating(404),
  NODE_EXISTS: refused(409),
  NODE_IN_USE: refused(409),
  CLUSTER_EXISTS: refused(409),
  CLUSTER_KEY_DIFFERS: refused(403),
  CLUSTER_CHECK_FAILED: refused(409),
  VIRTUAL_SERVER_EXISTS: refused(409),
  VIRTUAL_SERVER_DISABLED: operating(409),
  VIRTUAL_SERVER_IN_MAINTENANCE: operating(409, "later"),
  VIRTUAL_SERVER_OFFLINE: operating(409),
  NO_CANDIDATE: operating(409, "later"),
  ALREADY_OWNER: operating(409),
  NODE_DOWN: operating(409, "later"),
  NODE_PAUSED: operating(409, "later"),
  NODE_QUARANTINED: operating(409, "later"),
  NODE_NOT_POSSIBLE: operating(409),
  CONFIG_UNREPORTED: operating(409, "later"),
  NODE_NOT_READY: operating(409, "later"),
  NODE_ANSWER_LATE: operating(504, "later"),
  OWNER_LOST: operating(409, "later"),
  ORDER_SUPERSEDED: operating(409),
  MOVE_CAME_BACK: operating(500, "later"),
  CONFIG_DIFFERS: refused(409),
  CLUSTER_NOT_REACHED: operating(504, "later"),
  DRILL_REFUSED: refused(409),
  DRILL_FAILED: operating(500),
  CLUSTER_UPDATE_STOPPED: operating(500),
  // Trust.
  TRUST_ROOT_MISSING: refused(409),
  TRUST_DAMAGED: refused(409),
  TRUST_REFUSED: refused(502),
  TRUST_EXPIRED: refused(502),
  TRUST_ROLLED_BACK: refused(502),
  TRUST_UNAVAILABLE: refused(502),
  TRUST_HISTORY_DIFFERS: refused(502),
  TRUST_REVISION_DIFFERS: refused(502),
  ORDER_REFUSED: refused(409),
  ORDER_REPLAYED: refused(409),
  ORDER_EXPIRED: refused(409),
  ENROLMENT_REFUSED: refused(403),
  INSTALLATION_NOT_ENROLLED: refused(403),
  INSTALLATION_DIVERGED: refused(403),
  SESSION_REPEATED: operating(409, "later"),
  SIGNER_FAILED: operating(500),
  SIGNATURE_REFUSED: refused(409),
  KEY_MISSING: refused(409),
  KEY_FILE_INVALID: refused(400),
  KEY_PASSPHRASE_WRONG: refused(403),
  INTERRUPTED: operating(499, "later"),
  INTERNAL: operating(500),
} as const satisfies Record<string, ErrorDefinition>;

export type ErrorCode = keyof typeof ERRORS;

const EXIT_STATUS: Record<ErrorKind, number> = { operating: 1, usage: 2, refused: 3, postponed: 4 };

/** The exit status of a command that ends with this error. */
export function exitStatus(code: ErrorCode): number {
  return EXIT_STATUS[ERRORS[code].kind];
}

export interface ErrorDetails {
  /** What was wanted and what was found, where the error is a difference of two values. */
  readonly expected?: string | number;
  readonly found?: string | number;
  /** What the reader can do next: one sentence. */
  readonly hint?: string;
  readonly cause?: unknown;
  /** Every single fault, where several were found at once. */
  readonly faults?: readonly Fault[];
  /** Seconds after which a retry makes sense, where somebody said so. */
  readonly retryAfterSeconds?: number;
}

/** One of several faults that are reported together. */
export interface Fault {
  /** Where: a file, a path or `module.toml:12`. */
  readonly where: string;
  readonly problem: string;
}

/** The one error class of expected failures; told apart by `code`, never by its text. */
export class LockstepError extends Error {
  readonly code: ErrorCode;
  readonly expected: string | number | undefined;
  readonly found: string | number | undefined;
  readonly hint: string | undefined;
  readonly faults: readonly Fault[];
  readonly retryAfterSeconds: number | undefined;

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.code = code;
    this.expected = details.expected;
    this.found = details.found;
    this.hint = details.hint;
    this.faults = details.faults ?? [];
    this.retryAfterSeconds = details.retryAfterSeconds;
  }
}
Object.defineProperty(LockstepError.prototype, "name", { value: "LockstepError" });

/** Narrows an unknown error to ours, by one of the codes where some are given. */
export function isLockstepError(error: unknown, ...codes: ErrorCode[]): error is LockstepError {
  return error instanceof LockstepError && (codes.length === 0 || codes.includes(error.code));
}

/** The form in which an error travels: in an HTTP body and behind `--json`. */
export interface ErrorBody {
  readonly error: {
    readonly code: ErrorCode;
    readonly message: string;
    readonly expected?: string | number;
    readonly found?: string | number;
    readonly hint?: string;
    readonly faults?: readonly Fault[];
  };
}

/** Writes an error in its travelling form. */
export function toErrorBody(error: LockstepError): ErrorBody {
  return {
    error: {
      code: error.code,
      message: error.message,
      ...(error.expected === undefined ? {} : { expected: error.expected }),
      ...(error.found === undefined ? {} : { found: error.found }),
      ...(error.hint === undefined ? {} : { hint: error.hint }),
      ...(error.faults.length === 0 ? {} : { faults: error.faults }),
    },
  };
}

/** Reads an error from its travelling form. Returns null when it is none of ours. */
export function fromErrorBody(body: unknown, retryAfterSeconds?: number): LockstepError | null {
  if (typeof body !== "object" || body === null || !("error" in body)) return null;
  const { error } = body as ErrorBody;
  if (typeof error !== "object" || error === null || typeof error.code !== "string") return null;
  if (!Object.hasOwn(ERRORS, error.code)) return null;
  return new LockstepError(error.code, String(error.message), {
    ...(error.expected === undefined ? {} : { expected: error.expected }),
    ...(error.found === undefined ? {} : { found: error.found }),
    ...(error.hint === undefined ? {} : { hint: error.hint }),
    ...(Array.isArray(error.faults) ? { faults: error.faults } : {}),
    ...(retryAfterSeconds === undefined ? {} : { retryAfterSeconds }),
  });
}
