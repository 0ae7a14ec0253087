import { isModuleId } from "./deploy-target.ts";
import {
  CUSTOM_MODULE,
  type LoadOffer,
  type LoadRefusal,
  OWN_MODULE,
  type RepositoryState,
  type StoredModule,
} from "./load-offer.ts";
import type { ModuleRequirement } from "./module.ts";
import { compareVersions, isVersion, isVersionBound, satisfiesVersion } from "./version.ts";

/** What is wrong with the module as it is offered, and with its version against the one that is there. */
export function checkModuleOffer(offer: LoadOffer, stored: StoredModule | null, own: boolean): LoadRefusal[] {
  const { id, version, requires } = offer.module;
  const refusals: LoadRefusal[] = [];
  const refuse = (where: string, problem: string) => refusals.push({ kind: "load", where, problem });
  if (!isModuleId(id))
    refuse(`module ${id}`, "it cannot be the id of a module: letters, digits, blanks and _.+- only");
  if (!isVersion(version))
    refuse(`version ${version}`, "it cannot be a version: letters, digits and ._-+ only");
  if (id === OWN_MODULE && !own)
    refuse(`module ${id}`, "the module is Lockstep's own; lockstep setup loads it");
  if (id === CUSTOM_MODULE && offer.kind !== "custom")
    refuse(`module ${id}`, `it holds custom files, which are loaded with the kind custom, not ${offer.kind}`);
  for (const { module, min, max } of requires)
    for (const bound of [min, max])
      if (bound !== null && !isVersionBound(bound))
        refuse(`module ${id}`, `the version ${bound} that it requires of ${module} cannot be one`);
  if (offer.kind === "hotfix" && (stored === null || stored.version === null))
    refuse(
      `module ${id}`,
      "nothing of it was ever loaded, so that there is nothing that a hotfix could change",
    );
  if (isDowngrade(offer, stored) && !offer.allowDowngrade)
    refuse(
      `version ${version}`,
      `it is lower than ${stored?.version}, which the repository holds; say that the downgrade is meant`,
    );
  return refusals;
}

/** Whether a `version` load would replace a module by an older one. */
export function isDowngrade(offer: LoadOffer, stored: StoredModule | null): boolean {
  return (
    offer.kind === "version" &&
    stored !== null &&
    stored.version !== null &&
    compareVersions(offer.module.version, stored.version) < 0
  );
}

/** Modules that the offered one needs and that are not there, or not in a version that it accepts. */
export function checkRequirements(offer: LoadOffer, module: string, state: RepositoryState): LoadRefusal[] {
  const refusals: LoadRefusal[] = [];
  for (const requirement of offer.module.requires) {
    const found =
      requirement.module === module ? offer.module.version : state.modules.get(requirement.module)?.version;
    if (found !== undefined && found !== null && satisfiesVersion(found, requirement)) continue;
    refusals.push({
      kind: "requirement",
      where: `module ${module}`,
      problem: `it needs ${formatRequirement(requirement)}, and the repository holds ${found ?? "none"}`,
    });
  }
  return refusals;
}

/** A requirement in words: `BASE 7.1 to 7.2.*`. */
export function formatRequirement({ module, min, max }: ModuleRequirement): string {
  if (min !== null && max !== null) return min === max ? `${module} ${min}` : `${module} ${min} to ${max}`;
  if (min !== null) return `${module} ${min} or higher`;
  return max === null ? module : `${module} up to ${max}`;
}

/** The version that the repository holds afterwards: a correction of an older state does not lower it. */
export function resultingVersion(offer: LoadOffer, stored: StoredModule | null): string {
  if (offer.kind === "version" || stored === null || stored.version === null) return offer.module.version;
  return compareVersions(offer.module.version, stored.version) < 0 ? stored.version : offer.module.version;
}

/** What whoever loads should know about the module, though it is no reason to refuse. */
export function moduleNotices(
  offer: LoadOffer,
  module: string,
  stored: StoredModule | null,
  state: RepositoryState,
): string[] {
  const notices: string[] = [];
  const version = resultingVersion(offer, stored);
  if (offer.kind === "custom" && offer.module.id !== module)
    notices.push(
      `Custom files are kept in the module ${module}; the module ${offer.module.id} stays as it is.`,
    );
  if (isDowngrade(offer, stored))
    notices.push(`Version ${version} replaces the higher version ${stored?.version} of ${module}.`);
  else if (version !== offer.module.version)
    notices.push(
      `The module ${module} keeps its version ${version}, which is higher than ${offer.module.version}.`,
    );
  // No refusal: two modules that need each other's new version could never be brought in one after the other.
  for (const other of state.modules.values())
    for (const requirement of other.requires)
      if (other.id !== module && requirement.module === module && !satisfiesVersion(version, requirement))
        notices.push(
          `The module ${other.id} needs ${formatRequirement(requirement)} and will not fit ${version}: load a matching ${other.id} next.`,
        );
  return notices;
}
