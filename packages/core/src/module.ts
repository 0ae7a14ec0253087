import { type DeployTarget, isModuleId, parsePackageName, parseRoleName } from "./deploy-target.ts";
import type { Glob } from "./glob.ts";
import { checkPath } from "./path.ts";
import { compareVersions, isVersion, isVersionBound } from "./version.ts";

/**
 * The module description: what a vendor or customer says of a module beside its files (domain 1.2).
 *
 * It names the machine roles and installation packages that the module brings, and puts its files into them. Several
 * modules may declare the same role: what it holds is the union. A package belongs to the one module in its name.
 */
export interface ModuleDescription {
  readonly id: string;
  readonly version: string;
  readonly name: string | null;
  readonly requires: readonly ModuleRequirement[];
  readonly roles: readonly RoleDeclaration[];
  readonly packages: readonly PackageDeclaration[];
  readonly files: readonly FileRule[];
}

/** Another module that must be there, with inclusive bounds of its version. */
export interface ModuleRequirement {
  readonly module: string;
  readonly min: string | null;
  readonly max: string | null;
}

export interface RoleDeclaration {
  readonly path: string;
  readonly description: string;
  /** Whether people may choose it for an installation; others are set by programs. */
  readonly selectable: boolean;
  readonly packages: readonly { readonly package: string; readonly subdirectory: string }[];
}

export interface PackageDeclaration {
  /** `MODULE/Package` */
  readonly id: string;
  readonly description: string;
  /** False: it comes along with packages that need it, and cannot be chosen. */
  readonly selectable: boolean;
  readonly requires: readonly string[];
}

/** What a rule says of the files that it matches; null leaves it to the rules before it. */
export interface FileRule {
  readonly match: Glob;
  readonly targets: readonly DeployTarget[] | null;
  readonly version: string | null;
  readonly backup: boolean | null;
  /** Permission bits. */
  readonly mode: number | null;
}

/** A place in the description: keys and, within lists, indexes counted from 0. */
export type KeyPath = readonly (string | number)[];

export interface ModuleFault {
  readonly at: KeyPath;
  readonly problem: string;
}

/** Holds a description against everything that it must obey by itself, without a repository. Returns all faults. */
export function checkModule(module: ModuleDescription): ModuleFault[] {
  return [
    ...checkIdentity(module),
    ...checkRequirements(module),
    ...checkRoles(module),
    ...checkPackages(module),
    ...checkFileRules(module),
  ];
}

function* checkIdentity(module: ModuleDescription): Generator<ModuleFault> {
  if (!isModuleId(module.id))
    yield { at: ["id"], problem: `${quote(module.id)} is no module id (letters, digits and _ . + - inside)` };
  if (!isVersion(module.version))
    yield { at: ["version"], problem: `${quote(module.version)} is no version` };
}

function* checkRequirements(module: ModuleDescription): Generator<ModuleFault> {
  for (const { module: other, min, max } of module.requires) {
    const at = ["requires", other];
    if (!isModuleId(other)) yield { at, problem: `${quote(other)} is no module id` };
    if (other === module.id) yield { at, problem: "a module cannot require itself" };
    for (const [key, bound] of [["min", min] as const, ["max", max] as const])
      if (bound !== null && !isVersionBound(bound))
        yield {
          at: [...at, key],
          problem: `${quote(bound)} is no version (7.1, or 7.1.* for all of a series)`,
        };
    if (
      min !== null &&
      max !== null &&
      !max.endsWith(".*") &&
      compareVersions(min.replace(/\.\*$/, ""), max) > 0
    )
      yield { at: [...at, "max"], problem: `no version is at least ${min} and at most ${max}` };
  }
}

function* checkRoles(module: ModuleDescription): Generator<ModuleFault> {
  const seen = new Map<string, string>();
  for (const [index, role] of module.roles.entries()) {
    const at = ["role", index];
    if (parseRoleName(role.path) === null)
      yield { at: [...at, "path"], problem: `${quote(role.path)} is no machine role (Server/JobServer)` };
    const twin = seen.get(role.path.toLowerCase());
    if (twin !== undefined) yield { at: [...at, "path"], problem: `the role ${twin} is declared twice` };
    seen.set(role.path.toLowerCase(), role.path);
    const related = new Set<string>();
    for (const [position, { package: id, subdirectory }] of role.packages.entries()) {
      const here = [...at, "packages", position];
      yield* checkPackageName(module, id, [...here, "id"]);
      if (related.has(id)) yield { at: here, problem: `the package ${id} is related to the role twice` };
      related.add(id);
      const fault = subdirectory === "" ? null : checkPath(subdirectory);
      if (fault !== null)
        yield { at: [...here, "subdirectory"], problem: `${quote(subdirectory)}: ${fault.problem}` };
    }
  }
}

function* checkPackages(module: ModuleDescription): Generator<ModuleFault> {
  const seen = new Set<string>();
  for (const [index, declared] of module.packages.entries()) {
    const at = ["package", index];
    if (parsePackageName(declared.id) === null)
      yield { at: [...at, "id"], problem: `${quote(declared.id)} is no package name (MODULE/Package)` };
    else if (!declared.id.startsWith(`${module.id}/`))
      yield {
        at: [...at, "id"],
        problem: `${declared.id} belongs to another module; ours begin with ${module.id}/`,
      };
    if (seen.has(declared.id))
      yield { at: [...at, "id"], problem: `the package ${declared.id} is declared twice` };
    seen.add(declared.id);
    for (const [position, id] of declared.requires.entries())
      yield* checkPackageName(module, id, [...at, "requires", position]);
  }
  yield* checkCycles(module);
}

/** A package of our own must be declared here; those of other modules are for the repository to know. */
function* checkPackageName(module: ModuleDescription, id: string, at: KeyPath): Generator<ModuleFault> {
  if (parsePackageName(id) === null)
    yield { at, problem: `${quote(id)} is no package name (MODULE/Package)` };
  else if (id.startsWith(`${module.id}/`) && !module.packages.some((declared) => declared.id === id))
    yield { at, problem: `the package ${id} is not declared` };
}

function* checkCycles(module: ModuleDescription): Generator<ModuleFault> {
  const requires = new Map(module.packages.map((declared) => [declared.id, declared.requires]));
  const done = new Set<string>();
  for (const [index, { id: start }] of module.packages.entries()) {
    // Depth first with an explicit path, so that the fault can name the whole circle.
    const trail: { id: string; next: number }[] = [];
    if (!done.has(start)) trail.push({ id: start, next: 0 });
    for (let top = trail.at(-1); top !== undefined; top = trail.at(-1)) {
      const needed = requires.get(top.id)?.[top.next++];
      if (needed === undefined) {
        done.add(top.id);
        trail.pop();
        continue;
      }
      const back = trail.findIndex((entry) => entry.id === needed);
      if (back >= 0) {
        const circle = [...trail.slice(back).map((entry) => entry.id), needed].join(" needs ");
        yield {
          at: ["package", index, "requires"],
          problem: `packages need each other in a circle: ${circle}`,
        };
        done.add(needed);
      } else if (!done.has(needed) && requires.has(needed)) trail.push({ id: needed, next: 0 });
    }
  }
}

function* checkFileRules(module: ModuleDescription): Generator<ModuleFault> {
  for (const [index, rule] of module.files.entries()) {
    for (const target of rule.targets ?? [])
      if (target.kind === "package")
        yield* checkPackageName(module, target.name, ["files", index, "packages"]);
  }
}

/** What the rules of a module say of one file. */
export interface FileAttributes {
  /** Null: no rule names any. */
  readonly targets: readonly DeployTarget[] | null;
  /** Null: no rule says one. */
  readonly version: string | null;
  readonly backup: boolean | null;
  /** Null: the mode of the file itself. */
  readonly mode: number | null;
}

/** Applies the file rules to a path: for each attribute the last matching rule that names it. */
export function fileAttributes(rules: readonly FileRule[], path: string): FileAttributes {
  let targets: readonly DeployTarget[] | null = null;
  let version: string | null = null;
  let backup: boolean | null = null;
  let mode: number | null = null;
  for (const rule of rules) {
    if (!rule.match.matches(path)) continue;
    targets = rule.targets ?? targets;
    version = rule.version ?? version;
    backup = rule.backup ?? backup;
    mode = rule.mode ?? mode;
  }
  return { targets, version, backup, mode };
}

function quote(text: string): string {
  return JSON.stringify(text);
}
