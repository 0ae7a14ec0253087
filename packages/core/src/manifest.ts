import type { DeployTarget } from "./deploy-target.ts";
import type { FileEntry, Sha256 } from "./file.ts";

/**
 * The files of one deploy target in one software revision, ordered by path (byPath).
 *
 * A role's manifest holds the files assigned to the role itself and those of the packages related to it (with the
 * packages that those need, and below their subdirectory), but not those of its parents: an installation joins the
 * manifests of all its roles. A manifest does not name the revision, so an unchanged one keeps its digest.
 */
export interface Manifest {
  readonly target: DeployTarget;
  readonly entries: readonly FileEntry[];
}

/** What a software revision says of one manifest: enough to know whether it must be fetched, and to verify it. */
export interface ManifestRef {
  readonly target: DeployTarget;
  readonly sha256: Sha256;
  /** Length of the canonical text in bytes. */
  readonly size: number;
  readonly files: number;
  /** Sum of the sizes of its files in bytes. */
  readonly bytes: number;
}

/** One immutable software revision: the value of the semaphore and everything that it stands for (S19). */
export interface SoftwareRevision {
  readonly number: number;
  /** Digest over the whole set of (path, size, hash, mode, deploy targets). */
  readonly digest: Sha256;
  /** Milliseconds since 1970, UTC. */
  readonly createdAt: number;
  readonly manifests: readonly ManifestRef[];
  /** The Update.zip of this revision (S22), or null before the first one was built. */
  readonly updateArchive: { readonly sha256: Sha256; readonly size: number } | null;
}
