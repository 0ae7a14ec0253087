import { checkPath, isSha256, type Sha256 } from "@lockstep/core";
import { LockstepError } from "./errors.ts";

/**
 * What lies in Update.zip (S22, S23): the updater as one program, the update plug-ins of the installation data under
 * their own paths, and this description of them. The archive's entries are stored uncompressed, because compression
 * differs between processors and the archive must be the same, byte for byte, whoever builds it; it travels compressed
 * like every other content.
 */
export const UPDATER_PART = "updater.mjs";
export const UPDATE_DESCRIPTION_PART = "update.json";
/** The name filter of update plug-ins, matched against the last part of a path. */
export const UPDATE_PLUGIN_SUFFIX = ".update.mjs";
const FORMAT = "lockstep-update-archive/1";

export interface UpdateArchivePart {
  readonly path: string;
  /** Bytes. */
  readonly size: number;
  readonly sha256: Sha256;
}

export interface UpdateArchiveDescription {
  /** Version of the updater in it. */
  readonly version: string;
  /** Everything but the description itself, ordered by path. */
  readonly parts: readonly UpdateArchivePart[];
}

/** Whether a file revision is an update plug-in. */
export function isUpdatePlugin(path: string): boolean {
  return path.endsWith(UPDATE_PLUGIN_SUFFIX);
}

/** Writes `update.json`. */
export function formatUpdateArchive(description: UpdateArchiveDescription): string {
  const { version, parts } = description;
  return `${JSON.stringify({ format: FORMAT, version, parts }, null, 2)}\n`;
}

/** Reads `update.json`. Throws UPDATE_ARCHIVE_INVALID; the paths obey the portable grammar afterwards. */
export function parseUpdateArchive(text: string): UpdateArchiveDescription {
  let value: { format?: unknown; version?: unknown; parts?: unknown };
  try {
    value = JSON.parse(text) as typeof value;
  } catch (cause) {
    throw invalid("its description is not JSON", "JSON", cause);
  }
  if (value?.format !== FORMAT) throw invalid(`its format is ${JSON.stringify(value?.format)}`, FORMAT);
  if (typeof value.version !== "string" || !Array.isArray(value.parts))
    throw invalid("its description is incomplete", "version and parts");
  const parts = value.parts.map(toPart);
  if (!parts.some((part) => part.path === UPDATER_PART)) throw invalid("it holds no updater", UPDATER_PART);
  return { version: value.version, parts };
}

function toPart(value: unknown): UpdateArchivePart {
  const { path, size, sha256 } = (value ?? {}) as Partial<Record<keyof UpdateArchivePart, unknown>>;
  if (typeof path !== "string" || checkPath(path) !== null)
    throw invalid(`the part ${JSON.stringify(path)}`, "a path");
  if (typeof size !== "number" || !Number.isSafeInteger(size) || size < 0)
    throw invalid(`the size ${JSON.stringify(size)} of ${path}`, "bytes");
  if (!isSha256(sha256)) throw invalid(`the digest of ${path}`, "SHA-256");
  return { path, size, sha256 };
}

function invalid(problem: string, expected: string, cause?: unknown): LockstepError {
  return new LockstepError("UPDATE_ARCHIVE_INVALID", `Update.zip cannot be used: ${problem}`, {
    expected,
    hint: "The running updater is used instead. Let `lockstep setup` rebuild Update.zip.",
    cause,
  });
}
