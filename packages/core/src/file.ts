/** A SHA-256 digest as 64 lower-case hexadecimal digits. */
export type Sha256 = string;

const SHA256_PATTERN = /^[0-9a-f]{64}$/;

/** Whether a value is a SHA-256 digest in the only spelling that we write and accept. */
export function isSha256(value: unknown): value is Sha256 {
  return typeof value === "string" && SHA256_PATTERN.test(value);
}

/**
 * One file of a software revision as an installation sees it: where it goes and what it must be (S17).
 *
 * `path` is relative to the installation directory, written with `/`, and obeys the portable grammar of path.ts.
 * `mode` holds the nine permission bits alone (0o000 to 0o777); set-user-id and its kin never travel.
 * `backup` asks the updater to keep a copy of every version that it replaces.
 */
export interface FileEntry {
  readonly path: string;
  readonly size: number;
  readonly sha256: Sha256;
  readonly mode: number;
  readonly backup: boolean;
}

/** The largest mode that a file entry may carry. */
export const FILE_MODE_MAX = 0o777;

/** Orders file entries by the UTF-16 code units of their paths: the one order of all manifests. */
export function byPath(a: { readonly path: string }, b: { readonly path: string }): number {
  return a.path < b.path ? -1 : a.path > b.path ? 1 : 0;
}

/** Whether two entries would put the same file in the same place. */
export function sameEntry(a: FileEntry, b: FileEntry): boolean {
  return (
    a.path === b.path &&
    a.size === b.size &&
    a.sha256 === b.sha256 &&
    a.mode === b.mode &&
    a.backup === b.backup
  );
}
