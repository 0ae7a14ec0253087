import type { HubClient } from "@lockstep/client";
import { checkPath, compileGlob, findTwins, isGlobFault, parseTarget, roleWithParents } from "@lockstep/core";
import { LockstepError, parseManifest } from "@lockstep/protocol/wire";
import { usage } from "../options.ts";

/** A file that an export writes. */
export interface WantedFile {
  readonly path: string;
  readonly size: number;
  readonly sha256: string;
  readonly mode: number;
}

export interface ExportSelection {
  readonly role?: readonly string[];
  readonly package?: readonly string[];
  readonly match?: string;
}

/**
 * What an export has to write: with machine roles or packages exactly what an installation of them holds (parents,
 * needed packages and subdirectories included), else every stored file under its own path.
 *
 * Throws ROLE_UNKNOWN, PACKAGE_UNKNOWN, and PATH_REFUSED when a hub names files that must not be written.
 */
export async function listWanted(
  hub: HubClient,
  selection: ExportSelection,
  signal: AbortSignal,
): Promise<WantedFile[]> {
  const byRole = (selection.role?.length ?? 0) + (selection.package?.length ?? 0) > 0;
  const files = byRole ? await fromManifests(hub, selection, signal) : await fromRepository(hub, signal);
  const wanted = filterByMatch(files, selection.match);
  refuseHostile(wanted);
  return wanted;
}

async function fromRepository(hub: HubClient, signal: AbortSignal): Promise<WantedFile[]> {
  const files: WantedFile[] = [];
  for await (const { path, size, sha256, mode } of hub.allFiles({ signal }))
    if (size !== null && sha256 !== null) files.push({ path, size, sha256, mode });
  return files;
}

async function fromManifests(
  hub: HubClient,
  selection: ExportSelection,
  signal: AbortSignal,
): Promise<WantedFile[]> {
  const { revision: number } = await hub.currentSemaphore({ signal });
  const revision = await hub.revision(number, { signal });
  const known = new Map(revision.manifests.map((manifest) => [manifest.target, manifest]));
  const names = new Set<string>();
  for (const role of selection.role ?? []) {
    if (!known.has(`role:${role}`) && !revision.selectableRoles.includes(role))
      throw unknown("ROLE_UNKNOWN", "machine role", role);
    for (const parent of roleWithParents(role)) names.add(`role:${parent}`);
  }
  for (const each of selection.package ?? []) {
    if (!known.has(`package:${each}`) && revision.packageClosure[each] === undefined)
      throw unknown("PACKAGE_UNKNOWN", "installation package", each);
    names.add(`package:${each}`);
  }
  const files = new Map<string, WantedFile>();
  for (const name of names) {
    const reference = known.get(name);
    const target = parseTarget(name);
    // A parent role without files of its own has no manifest.
    if (reference === undefined || target === null) continue;
    const manifest = parseManifest(await hub.manifest({ ...reference, target }, { signal }));
    for (const entry of manifest.entries) files.set(entry.path, entry);
  }
  return [...files.values()];
}

function unknown(code: "ROLE_UNKNOWN" | "PACKAGE_UNKNOWN", what: string, name: string): LockstepError {
  return new LockstepError(code, `the repository has no ${what} ${JSON.stringify(name)}`, {
    hint: "lockstep roles shows what there is.",
  });
}

function filterByMatch(files: readonly WantedFile[], match: string | undefined): WantedFile[] {
  if (match === undefined) return [...files];
  const glob = compileGlob(match);
  if (isGlobFault(glob)) throw usage(`--match ${JSON.stringify(match)}: ${glob.problem}`);
  return files.filter((file) => glob.matches(file.path));
}

/** The hub has refused such names when they were loaded; whoever exports need not trust it. */
function refuseHostile(files: readonly WantedFile[]): void {
  const faults = files.flatMap(({ path }) => {
    const fault = checkPath(path);
    return fault === null ? [] : [{ where: path, problem: fault.problem }];
  });
  for (const twin of findTwins(files.map((file) => file.path)))
    faults.push({ where: twin.path, problem: `it cannot stand beside ${twin.other}` });
  if (faults.length > 0)
    throw new LockstepError("PATH_REFUSED", "the hub named files that must not be written", {
      faults,
      hint: "Nothing was written. A sound hub refuses such names when they are loaded: look at its log.",
    });
}
