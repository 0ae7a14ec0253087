/**
 * Where files land: machine roles, installation packages, and what leads from one to the other.
 *
 * A role has packages (the union over all modules that say so), each below a subdirectory or at the root; a package
 * needs further packages (domain 1.2). So one file can land in several places of one installation, and two files of
 * different names can land in the same place: the subdirectory `bin` and a file `a.dll` meet another file's `bin/a.dll`.
 */
export interface Layout {
  readonly roles: readonly LayoutRole[];
  readonly packages: readonly LayoutPackage[];
  readonly relations: readonly PackageOfRole[];
  readonly requirements: readonly PackageRequirement[];
}

export interface LayoutRole {
  /** Full path: `Server/JobServer`. */
  readonly path: string;
  readonly description: string;
  /** Whether people may choose it; otherwise only programs set it. */
  readonly selectable: boolean;
  /** The module that describes it, or null where it came into being by an assignment. */
  readonly module: string | null;
}

export interface LayoutPackage {
  /** `MODULE/Package`. */
  readonly name: string;
  readonly description: string;
  readonly selectable: boolean;
  readonly module: string | null;
}

export interface PackageOfRole {
  readonly role: string;
  readonly package: string;
  /** Empty: at the root of the installation. */
  readonly subdirectory: string;
  /** The module that says so. */
  readonly module: string;
}

export interface PackageRequirement {
  readonly package: string;
  readonly requires: string;
}

export const EMPTY_LAYOUT: Layout = { roles: [], packages: [], relations: [], requirements: [] };

/** A package and the subdirectory in which its files land. */
export interface Placement {
  readonly package: string;
  readonly subdirectory: string;
}

/** For each package all packages that it needs, all the way down, itself not among them, sorted. Cycles are fine. */
export function packageClosure(layout: Layout): Map<string, string[]> {
  const direct = new Map<string, string[]>();
  for (const { name } of layout.packages) direct.set(name, []);
  for (const { package: name, requires } of layout.requirements) {
    const list = direct.get(name);
    if (list === undefined) direct.set(name, [requires]);
    else list.push(requires);
  }
  const closure = new Map<string, string[]>();
  for (const name of direct.keys()) {
    const reached = new Set<string>();
    const open = [...(direct.get(name) ?? [])];
    for (let next = open.pop(); next !== undefined; next = open.pop()) {
      if (next === name || reached.has(next)) continue;
      reached.add(next);
      open.push(...(direct.get(next) ?? []));
    }
    closure.set(name, [...reached].sort());
  }
  return closure;
}

/**
 * For each role the packages that come with it, and where (behaviours 19 and 20).
 *
 * A package that the role names itself lands where the role says, and only there; a package that is merely needed by
 * another lands beside the one that needs it, because that one looks for it there.
 */
export function placementsOfRoles(layout: Layout): Map<string, Placement[]> {
  const closure = packageClosure(layout);
  const named = new Map<string, PackageOfRole[]>();
  for (const relation of layout.relations) {
    const list = named.get(relation.role);
    if (list === undefined) named.set(relation.role, [relation]);
    else list.push(relation);
  }
  const result = new Map<string, Placement[]>();
  for (const { path } of layout.roles) {
    const relations = named.get(path) ?? [];
    const own = new Set(relations.map((relation) => relation.package));
    const placements = new Map<string, Placement>();
    const place = (name: string, subdirectory: string) =>
      placements.set(`${subdirectory}:${name}`, { package: name, subdirectory });
    for (const relation of relations) {
      place(relation.package, relation.subdirectory);
      for (const needed of closure.get(relation.package) ?? [])
        if (!own.has(needed)) place(needed, relation.subdirectory);
    }
    result.set(
      path,
      [...placements.keys()].sort().flatMap((key) => placements.get(key) ?? []),
    );
  }
  return result;
}

/** A path below a subdirectory. */
export function placePath(subdirectory: string, path: string): string {
  return subdirectory === "" ? path : `${subdirectory}/${path}`;
}
