import {
  formatTarget,
  type ManifestRef,
  parsePackageName,
  parseRoleName,
  parseTarget,
  roleWithParents,
} from "@lockstep/core";
import { LockstepError, type RevisionDocument } from "@lockstep/protocol/wire";

/**
 * From what somebody chose to what is installed: a machine role brings its parents, a package what it needs
 * (behaviour 19), both as the software revision says that they are.
 */
export interface Selection {
  readonly roles: readonly string[];
  readonly rolesChosen: readonly string[];
  readonly packages: readonly string[];
  readonly packagesChosen: readonly string[];
}

/** The manifests that a selection consists of. */
export interface SelectedManifests {
  readonly refs: readonly ManifestRef[];
  /** Chosen roles and packages that this revision does not have (any more). */
  readonly vanished: readonly string[];
}

/** Resolves a choice. Throws USAGE for what is no name of a role or package. */
export function resolveSelection(
  document: Pick<RevisionDocument, "packageClosure">,
  roles: readonly string[],
  packages: readonly string[],
): Selection {
  const rolesChosen = ordered(roles.map((text) => parseRoleName(text) ?? throwName("machine role", text)));
  const packagesChosen = ordered(
    packages.map((text) => parsePackageName(text) ?? throwName("installation package", text)),
  );
  return {
    roles: ordered(rolesChosen.flatMap(roleWithParents)),
    rolesChosen,
    packages: ordered(packagesChosen.flatMap((name) => [name, ...(document.packageClosure[name] ?? [])])),
    packagesChosen,
  };
}

/**
 * Refuses a choice that nobody may make in this revision: unknown names (ROLE_UNKNOWN, PACKAGE_UNKNOWN), and roles and
 * packages that only come with others (ROLE_NOT_SELECTABLE, PACKAGE_NOT_SELECTABLE). All faults at once.
 */
export function demandSelectable(document: RevisionDocument, selection: Selection): void {
  const known = new Set(document.manifests.map((ref) => ref.target));
  demand("role", document.number, selection.rolesChosen, document.selectableRoles, known);
  demand("package", document.number, selection.packagesChosen, document.selectablePackages, known);
}

function demand(
  kind: "role" | "package",
  revision: number,
  chosen: readonly string[],
  selectable: readonly string[],
  known: ReadonlySet<string>,
): void {
  const bad = chosen.filter((name) => !selectable.includes(name));
  const [first] = bad;
  if (first === undefined) return;
  const what = kind === "role" ? "machine role" : "installation package";
  const unknown = bad.filter((name) => !known.has(`${kind}:${name}`));
  const near = selectable.find((name) => name.toLowerCase() === first.toLowerCase());
  const list = selectable.length === 0 ? "none" : selectable.slice(0, 20).join(", ");
  const hint =
    near === undefined
      ? `Choose one of: ${list}${selectable.length > 20 ? ", ..." : ""}. A new one exists once a release with it was loaded.`
      : `Names are case-sensitive: did you mean ${near}?`;
  const isUnknown = unknown.length > 0;
  const code = isUnknown
    ? kind === "role"
      ? "ROLE_UNKNOWN"
      : "PACKAGE_UNKNOWN"
    : kind === "role"
      ? "ROLE_NOT_SELECTABLE"
      : "PACKAGE_NOT_SELECTABLE";
  throw new LockstepError(
    code,
    isUnknown
      ? `software revision ${revision} has no ${what} ${unknown.join(", ")}`
      : `the ${what} ${bad.join(", ")} cannot be chosen by hand`,
    {
      expected: list,
      found: bad.join(", "),
      hint,
      faults: bad.map((name) => ({
        where: name,
        problem: known.has(`${kind}:${name}`) ? "it only comes with others" : "it is unknown",
      })),
    },
  );
}

/**
 * The manifests of a selection. A role that only groups others may have none. Throws ROLE_UNKNOWN when nothing at all
 * of what was chosen is left: an installation is not emptied because a name has vanished.
 */
export function selectManifests(document: RevisionDocument, selection: Selection): SelectedManifests {
  const wanted = new Set([
    ...selection.roles.map((name) => formatTarget({ kind: "role", name })),
    ...selection.packagesChosen.map((name) => formatTarget({ kind: "package", name })),
  ]);
  const refs: ManifestRef[] = [];
  for (const { target: text, ...ref } of document.manifests) {
    if (!wanted.has(text)) continue;
    const target = parseTarget(text);
    if (target !== null) refs.push({ target, ...ref });
  }
  const found = new Set(refs.map((ref) => formatTarget(ref.target)));
  const vanished = [
    ...selection.rolesChosen.filter((name) => !found.has(`role:${name}`)),
    ...selection.packagesChosen.filter((name) => !found.has(`package:${name}`)),
  ];
  const chosen = selection.rolesChosen.length + selection.packagesChosen.length;
  if (chosen > 0 && vanished.length === chosen)
    throw new LockstepError(
      "ROLE_UNKNOWN",
      `software revision ${document.number} knows nothing of what is installed here`,
      {
        expected: vanished.join(", "),
        found: document.selectableRoles.join(", ") || "no machine role",
        hint: "Nothing was changed. Load a release that has these roles, or install others into another directory.",
      },
    );
  return { refs, vanished };
}

function ordered(names: readonly string[]): string[] {
  return [...new Set(names)].sort();
}

function throwName(what: string, text: string): never {
  throw new LockstepError("USAGE", `${JSON.stringify(text)} is not the name of a ${what}`, {
    expected: what === "machine role" ? "Server/JobServer" : "MODULE/Package",
    found: text,
  });
}
