import { parseTarget } from "./deploy-target.ts";
import {
  type FilePut,
  type LoadOffer,
  type LoadRefusal,
  type LoadStatus,
  type OfferedFile,
  type RepositoryState,
  type StoredFile,
  UPDATE_ARCHIVE_PATH,
} from "./load-offer.ts";
import { checkPath, foldPath } from "./path.ts";
import { sameTargets } from "./revision.ts";

const ARCHIVE_KEY = foldPath(UPDATE_ARCHIVE_PATH);

/** What a load does to the files of the repository, refusals aside. */
export interface FilesPlan {
  readonly statuses: readonly LoadStatus[];
  readonly puts: readonly FilePut[];
  readonly removals: readonly string[];
  readonly attributeChanges: number;
  readonly undistributed: number;
  /** All files of the repository afterwards. */
  readonly after: ReadonlyMap<string, StoredFile>;
}

/** How one offered file stands to the repository. */
export function statusOf(file: OfferedFile, stored: StoredFile | undefined): LoadStatus {
  if (stored === undefined) return "unknown";
  if (stored.sha256 === null) return "never-loaded";
  return stored.size === file.size && stored.sha256 === file.sha256 ? "equal" : "changed";
}

/** Computes statuses and consequences for every file of the offer and, for a `version`, for those that it lacks. */
export function planFiles(offer: LoadOffer, module: string, state: RepositoryState): FilesPlan {
  const after = new Map(state.files);
  const removals: string[] = [];
  if (offer.kind === "version") {
    const offered = new Set(offer.files.map((file) => file.path));
    // The archive is made by the DBQueue and no part of what a module ships.
    for (const { path, module: owner } of state.files.values())
      if (owner === module && !offered.has(path) && path !== UPDATE_ARCHIVE_PATH) {
        removals.push(path);
        after.delete(path);
      }
    removals.sort();
  }
  const puts: FilePut[] = [];
  const statuses: LoadStatus[] = [];
  let attributeChanges = 0;
  let undistributed = 0;
  for (const offered of offer.files) {
    const stored = state.files.get(offered.path);
    const file = completed(offered, stored);
    const status = statusOf(file, stored);
    statuses.push(status);
    const targets = [...new Set(file.targets ?? stored?.targets ?? [])];
    if (targets.length === 0) undistributed++;
    const retarget = !sameTargets(stored?.targets ?? [], targets);
    const attributes = retarget || (stored !== undefined && attributesDiffer(file, stored));
    if (status === "equal" && !attributes) continue;
    if (status === "equal") attributeChanges++;
    puts.push({
      file,
      isNew: stored === undefined,
      content: status !== "equal",
      targets: retarget ? targets : null,
    });
    after.set(file.path, { ...file, targets, module });
  }
  return { statuses, puts, removals, attributeChanges, undistributed, after };
}

/** A file as it will be: what the load does not say of it stays, so that a hotfix without rules changes nothing else. */
function completed(file: OfferedFile, stored: StoredFile | undefined): Required<OfferedFile> {
  const { version = stored?.version ?? null, backup = stored?.backup ?? false } = file;
  return { ...file, version, backup };
}

function attributesDiffer(file: Required<OfferedFile>, stored: StoredFile): boolean {
  return file.mode !== stored.mode || file.version !== stored.version || file.backup !== stored.backup;
}

/** What is wrong with the files as they are offered, whatever the repository holds. */
export function checkFiles(offer: LoadOffer): LoadRefusal[] {
  const refusals: LoadRefusal[] = [];
  const seen = new Set<string>();
  const sizes = new Map<string, number>();
  for (const file of offer.files) {
    const fault = checkPath(file.path);
    if (fault !== null) refusals.push({ kind: "path", where: file.path, problem: fault.problem });
    if (seen.has(file.path))
      refusals.push({ kind: "load", where: file.path, problem: "it comes twice in this load" });
    seen.add(file.path);
    const size = sizes.get(file.sha256) ?? file.size;
    sizes.set(file.sha256, size);
    if (size !== file.size)
      refusals.push({
        kind: "load",
        where: file.path,
        problem: `it has ${file.size} bytes, another file with the same digest has ${size}`,
      });
    if (foldPath(file.path) === ARCHIVE_KEY)
      refusals.push({ kind: "path", where: file.path, problem: "the name is kept for the update archive" });
    for (const target of file.targets ?? [])
      if (parseTarget(target) === null)
        refusals.push({ kind: "load", where: file.path, problem: `${target} names no deploy target` });
  }
  return refusals;
}

/** What the repository has against the files: another module owns them, or a hotfix does not know them. */
export function checkOwners(offer: LoadOffer, module: string, state: RepositoryState): LoadRefusal[] {
  const refusals: LoadRefusal[] = [];
  for (const { path } of offer.files) {
    const stored = state.files.get(path);
    // A name that was only assigned so far belongs to whoever loads it first.
    if (stored !== undefined && stored.sha256 !== null && stored.module !== module)
      refusals.push({ kind: "load", where: path, problem: `it belongs to the module ${stored.module}` });
    if (stored === undefined && offer.kind === "hotfix")
      refusals.push({
        kind: "load",
        where: path,
        problem: "a hotfix changes only known files, and this one is unknown; a service pack may add it",
      });
  }
  return refusals;
}
