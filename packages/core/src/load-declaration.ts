import { counted } from "./count-text.ts";
import {
  type DeployTarget,
  parsePackageName,
  parseRoleName,
  parseTarget,
  roleWithParents,
} from "./deploy-target.ts";
import type { DeclaredTargets, LoadOffer, LoadRefusal, StoredFile } from "./load-offer.ts";
import { checkPath } from "./path.ts";
import type {
  Layout,
  LayoutPackage,
  LayoutRole,
  PackageOfRole,
  PackageRequirement,
} from "./revision-layout.ts";

/**
 * What a load does to machine roles and packages.
 *
 * Roles also come into being by an assignment, with their parents; packages only by a declaration, since they are
 * nothing without their requirements. Several modules may declare one role: the first one describes it, each adds its
 * packages (domain 1.2). A `version` takes back what its module declared before and does not declare any more, but a
 * role or package that anything else still uses stays: an installation that holds it must go on finding it.
 */
export interface LayoutChange {
  readonly targetPuts: readonly TargetPut[];
  readonly targetRemovals: readonly DeployTarget[];
  readonly relationPuts: readonly PackageOfRole[];
  readonly relationRemovals: readonly PackageOfRole[];
  readonly requirementPuts: readonly PackageRequirement[];
  readonly requirementRemovals: readonly PackageRequirement[];
}

/** A role or package to insert or to describe anew. */
export interface TargetPut {
  readonly kind: DeployTarget["kind"];
  readonly name: string;
  readonly description: string;
  readonly selectable: boolean;
  readonly module: string | null;
}

export const NO_LAYOUT_CHANGE: LayoutChange = {
  targetPuts: [],
  targetRemovals: [],
  relationPuts: [],
  relationRemovals: [],
  requirementPuts: [],
  requirementRemovals: [],
};

const NOTHING: DeclaredTargets = { roles: [], packages: [] };

/** What is wrong with the declared roles and packages. */
export function checkDeclaration(offer: LoadOffer, module: string, layout: Layout): LoadRefusal[] {
  const declared = offer.declared ?? NOTHING;
  const refusals: LoadRefusal[] = [];
  const refuse = (where: string, problem: string) => refusals.push({ kind: "load", where, problem });
  const packages = new Set(layout.packages.map((p) => p.name));
  const seen = new Set<string>();
  for (const { name } of declared.packages) {
    if (parsePackageName(name) !== name)
      refuse(`package ${name}`, "it is no name of a package: MODULE/Package");
    else if (!name.startsWith(`${module}/`)) refuse(`package ${name}`, `its name must begin with ${module}/`);
    if (seen.has(name)) refuse(`package ${name}`, "it is declared twice");
    seen.add(name);
    packages.add(name);
  }
  for (const { name, requires } of declared.packages)
    for (const needed of requires)
      if (!packages.has(needed))
        refuse(`package ${name}`, `it requires the package ${needed}, which nobody declares`);
  for (const role of declared.roles) {
    const where = `role ${role.path}`;
    if (parseRoleName(role.path) !== role.path) refuse(where, "it is no full path of a machine role");
    if (seen.has(`:${role.path}`)) refuse(where, "it is declared twice");
    seen.add(`:${role.path}`);
    const own = new Set<string>();
    for (const relation of role.packages) {
      if (!packages.has(relation.package))
        refuse(where, `its package ${relation.package} is declared by nobody`);
      if (own.has(relation.package)) refuse(where, `it names the package ${relation.package} twice`);
      own.add(relation.package);
      const fault = relation.subdirectory === "" ? null : checkPath(relation.subdirectory);
      if (fault !== null)
        refuse(where, `the subdirectory ${relation.subdirectory} cannot be used: ${fault.problem}`);
    }
  }
  const missing = new Map<string, number>();
  for (const { targets } of offer.files)
    for (const text of targets ?? []) {
      const target = parseTarget(text);
      if (target?.kind === "package" && !packages.has(target.name))
        missing.set(target.name, (missing.get(target.name) ?? 0) + 1);
    }
  for (const [name, files] of missing)
    refuse(
      `package ${name}`,
      `${counted(files, "file is", "files are")} assigned to it, but nobody declares it`,
    );
  return refusals;
}

export interface Declared {
  readonly change: LayoutChange;
  /** The layout afterwards. */
  readonly layout: Layout;
  readonly notices: readonly string[];
}

/** Computes the layout after the load and what leads to it. `after`: all files of the repository after the load. */
export function declareTargets(
  offer: LoadOffer,
  module: string,
  before: Layout,
  after: ReadonlyMap<string, StoredFile>,
): Declared {
  const { declared } = offer;
  const notices: string[] = [];
  const relations = new Map(before.relations.map((r) => [relationKey(r), r]));
  const requirements = new Map(before.requirements.map((r) => [requirementKey(r), r]));
  const roles = new Map(before.roles.map((role) => [role.path, role]));
  const packages = new Map(before.packages.map((p) => [p.name, p]));

  if (declared !== null && offer.kind === "version") {
    for (const [key, relation] of relations) if (relation.module === module) relations.delete(key);
    for (const [key, { package: name }] of requirements)
      if (packages.get(name)?.module === module) requirements.delete(key);
  }
  for (const role of declared?.roles ?? []) {
    putRole(roles, { path: role.path, description: role.description, selectable: role.selectable, module });
    for (const { package: name, subdirectory } of role.packages) {
      const relation = { role: role.path, package: name, subdirectory, module };
      relations.set(relationKey(relation), relation);
    }
  }
  for (const { name, description, selectable, requires } of declared?.packages ?? []) {
    packages.set(name, { name, description, selectable, module });
    for (const [key, requirement] of requirements) if (requirement.package === name) requirements.delete(key);
    for (const needed of requires) {
      const requirement = { package: name, requires: needed };
      requirements.set(requirementKey(requirement), requirement);
    }
  }
  const used = usedTargets(after);
  for (const role of [...roles.keys(), ...used.roles])
    for (const path of roleWithParents(role))
      if (!roles.has(path)) {
        roles.set(path, { path, description: "", selectable: true, module: null });
        if (used.roles.has(path))
          notices.push(`The machine role ${path} is new: this load brings it in by assigning files to it.`);
      }
  if (declared !== null && offer.kind === "version")
    takeBack(module, declared, { roles, packages, relations, requirements }, used, notices);

  const layout: Layout = {
    roles: [...roles.values()],
    packages: [...packages.values()],
    relations: [...relations.values()],
    requirements: [...requirements.values()],
  };
  return { change: diffLayouts(before, layout), layout, notices };
}

/** What leads from one layout to another. */
export function diffLayouts(from: Layout, to: Layout): LayoutChange {
  const before = new Map(targetsOf(from).map((target) => [targetKey(target), target]));
  const after = new Map(targetsOf(to).map((target) => [targetKey(target), target]));
  const relationsBefore = new Map(from.relations.map((r) => [relationKey(r), r]));
  const relationsAfter = new Map(to.relations.map((r) => [relationKey(r), r]));
  const requirementsBefore = new Set(from.requirements.map(requirementKey));
  const requirementsAfter = new Set(to.requirements.map(requirementKey));
  return {
    targetPuts: [...after].filter(([key, put]) => !sameTarget(before.get(key), put)).map(([, put]) => put),
    targetRemovals: [...before]
      .filter(([key]) => !after.has(key))
      .map(([, { kind, name }]) => ({ kind, name })),
    relationPuts: [...relationsAfter]
      .filter(([key, { subdirectory }]) => relationsBefore.get(key)?.subdirectory !== subdirectory)
      .map(([, relation]) => relation),
    relationRemovals: [...relationsBefore].filter(([key]) => !relationsAfter.has(key)).map(([, r]) => r),
    requirementPuts: to.requirements.filter((r) => !requirementsBefore.has(requirementKey(r))),
    requirementRemovals: from.requirements.filter((r) => !requirementsAfter.has(requirementKey(r))),
  };
}

function takeBack(
  module: string,
  declared: DeclaredTargets,
  now: {
    roles: Map<string, LayoutRole>;
    packages: Map<string, LayoutPackage>;
    relations: Map<string, PackageOfRole>;
    requirements: Map<string, PackageRequirement>;
  },
  used: { roles: Set<string>; packages: Set<string> },
  notices: string[],
): void {
  const rolesUsed = new Set(
    [...used.roles, ...[...now.relations.values()].map((r) => r.role)].flatMap(roleWithParents),
  );
  const packagesUsed = new Set([
    ...used.packages,
    ...[...now.relations.values()].map((r) => r.package),
    ...[...now.requirements.values()].map((r) => r.requires),
  ]);
  const stay = new Set(declared.roles.flatMap((role) => roleWithParents(role.path)));
  // Others' roles below one of ours hold it as well.
  for (const role of now.roles.values())
    if (role.module !== module && role.module !== null)
      for (const path of roleWithParents(role.path)) stay.add(path);
  for (const role of [...now.roles.values()]) {
    if (role.module !== module || stay.has(role.path)) continue;
    if (!rolesUsed.has(role.path)) now.roles.delete(role.path);
    else
      notices.push(
        `${module} no longer declares the machine role ${role.path}; it stays, because it is used.`,
      );
  }
  const packagesDeclared = new Set(declared.packages.map((p) => p.name));
  for (const { name, module: owner } of [...now.packages.values()]) {
    if (owner !== module || packagesDeclared.has(name)) continue;
    if (!packagesUsed.has(name)) now.packages.delete(name);
    else notices.push(`${module} no longer declares the package ${name}; it stays, because it is used.`);
  }
}

function putRole(roles: Map<string, LayoutRole>, role: LayoutRole): void {
  const present = roles.get(role.path);
  if (present === undefined || present.module === null || present.module === role.module)
    roles.set(role.path, role);
}

function usedTargets(files: ReadonlyMap<string, StoredFile>): { roles: Set<string>; packages: Set<string> } {
  const texts = new Set<string>();
  for (const { targets } of files.values()) for (const target of targets) texts.add(target);
  const roles = new Set<string>();
  const packages = new Set<string>();
  for (const text of texts) {
    const target = parseTarget(text);
    if (target !== null) (target.kind === "role" ? roles : packages).add(target.name);
  }
  return { roles, packages };
}

function targetsOf(layout: Layout): TargetPut[] {
  return [
    ...layout.roles.map(({ path, ...rest }) => ({ kind: "role" as const, name: path, ...rest })),
    ...layout.packages.map((row) => ({ kind: "package" as const, ...row })),
  ];
}

function sameTarget(a: TargetPut | undefined, b: TargetPut): boolean {
  return (
    a !== undefined &&
    a.description === b.description &&
    a.selectable === b.selectable &&
    a.module === b.module
  );
}

function targetKey(target: { kind: string; name: string }): string {
  return `${target.kind}:${target.name}`;
}

function relationKey(relation: PackageOfRole): string {
  return `${relation.role}\0${relation.package}\0${relation.module}`;
}

function requirementKey(requirement: PackageRequirement): string {
  return `${requirement.package}\0${requirement.requires}`;
}
