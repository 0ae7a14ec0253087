import {
  checkModule,
  compileGlob,
  type DeployTarget,
  type FileRule,
  isGlobFault,
  type KeyPath,
  type ModuleDescription,
  type ModuleFault,
  type ModuleRequirement,
  type PackageDeclaration,
  parsePackageName,
  parseRoleName,
  type RoleDeclaration,
  suggest,
} from "@lockstep/core";
import { LockstepError } from "./errors.ts";
import { readToml } from "./toml-lines.ts";

/** The name of a module description beside the files of the module. It is not loaded as a file of the product. */
export const MODULE_FILE_NAME = "module.toml";

const FORMAT = 1;

/**
 * Reads a module description (docs/reference/module-file.md). `fileName` names it in faults.
 *
 * Throws MODULE_FILE_INVALID with every fault and its line: what TOML refuses (with line and column; then nothing
 * else can be told), unknown keys, values of the wrong kind, and all that checkModule of core finds.
 */
export function parseModuleFile(text: string, fileName: string = MODULE_FILE_NAME): ModuleDescription {
  const read = readToml(text);
  if (read.kind === "fault") {
    const { line, column, problem, cause } = read;
    throw invalid(fileName, [{ where: `${fileName}:${line}:${column}`, problem }], cause);
  }
  const { value: document, lines } = read;
  const reader = new Reader();
  const module = readModule(reader, reader.table(document, []));
  const faults = [...reader.faults, ...checkModule(module)]
    .map((fault) => ({ line: lines.lineOf(fault.at), fault }))
    .sort((a, b) => a.line - b.line);
  // One place is told once: a value of the wrong kind is also a value out of range.
  const told = new Set<string>();
  const unique = faults.filter(({ fault }) => {
    const key = JSON.stringify(fault.at);
    return told.has(key) ? false : told.add(key);
  });
  if (unique.length > 0)
    throw invalid(
      fileName,
      unique.map(({ line, fault }) => ({
        where: `${fileName}:${line}`,
        problem: `${formatKeyPath(fault.at)}${fault.problem}`,
      })),
    );
  return module;
}

function invalid(
  fileName: string,
  faults: { where: string; problem: string }[],
  cause?: unknown,
): LockstepError {
  const count = faults.length === 1 ? "one fault" : `${faults.length} faults`;
  return new LockstepError("MODULE_FILE_INVALID", `the module description ${fileName} has ${count}`, {
    faults,
    cause,
    hint: "Correct the lines named; docs/reference/module-file.md describes each key.",
  });
}

function readModule(reader: Reader, root: Table): ModuleDescription {
  reader.known(root, ["format", "id", "version", "name", "requires", "role", "package", "files"]);
  const format = root.values.format;
  if (format !== FORMAT)
    reader.fault([...root.at, "format"], format === undefined ? "is missing; write format = 1" : "must be 1");
  return {
    id: reader.text(root, "id") ?? "",
    version: reader.text(root, "version") ?? "",
    name: reader.text(root, "name", { optional: true }),
    requires: readRequires(reader, root),
    roles: reader.tables(root, "role").map((table) => readRole(reader, table)),
    packages: reader.tables(root, "package").map((table) => readPackage(reader, table)),
    files: reader.tables(root, "files").map((table) => readFileRule(reader, table)),
  };
}

function readRequires(reader: Reader, root: Table): ModuleRequirement[] {
  const value = root.values.requires;
  if (value === undefined) return [];
  const requires = reader.table(value, ["requires"]);
  return Object.entries(requires.values).map(([module, bounds]) => {
    const table = reader.table(bounds, ["requires", module]);
    reader.known(table, ["min", "max"]);
    return {
      module,
      min: reader.text(table, "min", { optional: true }),
      max: reader.text(table, "max", { optional: true }),
    };
  });
}

function readRole(reader: Reader, table: Table): RoleDeclaration {
  reader.known(table, ["path", "description", "selectable", "packages"]);
  const path = reader.text(table, "path") ?? "";
  return {
    path: parseRoleName(path) ?? path,
    description: reader.text(table, "description", { optional: true }) ?? "",
    selectable: reader.flag(table, "selectable") ?? true,
    packages: reader.tables(table, "packages").map((related) => {
      reader.known(related, ["id", "subdirectory"]);
      return {
        package: reader.text(related, "id") ?? "",
        subdirectory: reader.text(related, "subdirectory", { optional: true }) ?? "",
      };
    }),
  };
}

function readPackage(reader: Reader, table: Table): PackageDeclaration {
  reader.known(table, ["id", "description", "selectable", "requires"]);
  return {
    id: reader.text(table, "id") ?? "",
    description: reader.text(table, "description", { optional: true }) ?? "",
    selectable: reader.flag(table, "selectable") ?? true,
    requires: reader.texts(table, "requires") ?? [],
  };
}

function readFileRule(reader: Reader, table: Table): FileRule {
  reader.known(table, ["match", "roles", "packages", "version", "backup", "mode"]);
  const match = reader.text(table, "match");
  let glob = compileGlob(match ?? "-");
  if (isGlobFault(glob)) {
    reader.fault([...table.at, "match"], glob.problem);
    glob = compileGlob("-");
  }
  if (isGlobFault(glob)) throw new TypeError("the pattern - compiles");
  const roles = reader.texts(table, "roles");
  const packages = reader.texts(table, "packages");
  return {
    match: glob,
    targets:
      roles === null && packages === null
        ? null
        : [...readRoles(reader, table, roles), ...readPackages(packages)],
    version: reader.text(table, "version", { optional: true, max: 200 }),
    backup: reader.flag(table, "backup"),
    mode: readMode(reader, table),
  };
}

function readRoles(reader: Reader, table: Table, roles: readonly string[] | null): DeployTarget[] {
  return (roles ?? []).flatMap((text, index) => {
    const name = parseRoleName(text);
    if (name !== null) return [{ kind: "role", name } as const];
    const problem = `${JSON.stringify(text)} is no machine role (Server/JobServer)`;
    reader.fault([...table.at, "roles", index], problem);
    return [];
  });
}

function readPackages(packages: readonly string[] | null): DeployTarget[] {
  return (packages ?? []).map((text) => ({ kind: "package", name: parsePackageName(text) ?? text }));
}

/** The nine permission bits in octal, as text: TOML's own 0o755 would read as a number without a meaning. */
function readMode(reader: Reader, table: Table): number | null {
  const text = reader.text(table, "mode", { optional: true });
  if (text === null) return null;
  if (/^0?[0-7]{3}$/.test(text)) return Number.parseInt(text, 8);
  reader.fault(
    [...table.at, "mode"],
    `${JSON.stringify(text)} is no mode; write three octal digits such as "755"`,
  );
  return null;
}

interface Table {
  readonly at: KeyPath;
  readonly values: Readonly<Record<string, unknown>>;
}

/** Takes values out of a parsed document and collects what is wrong with them, instead of stopping at the first. */
class Reader {
  readonly faults: ModuleFault[] = [];

  fault(at: KeyPath, problem: string): void {
    this.faults.push({ at, problem });
  }

  table(value: unknown, at: KeyPath): Table {
    if (isTable(value)) return { at, values: value };
    this.fault(at, "must be a table");
    return { at, values: {} };
  }

  known(table: Table, keys: readonly string[]): void {
    for (const key of Object.keys(table.values)) {
      if (keys.includes(key)) continue;
      const near = suggest(key, keys);
      const meant = near === null ? `known here: ${keys.join(", ")}` : `did you mean ${near}?`;
      this.fault([...table.at, key], `is not a known key; ${meant}`);
    }
  }

  text(table: Table, key: string, { optional = false, max = 2000 } = {}): string | null {
    const value = table.values[key];
    const at = [...table.at, key];
    if (value === undefined) {
      if (!optional) this.fault(at, "is missing");
      return null;
    }
    if (typeof value !== "string") this.fault(at, "must be a text in quotes");
    else if (value.length > max) this.fault(at, `is longer than ${max} characters`);
    else return value;
    return null;
  }

  flag(table: Table, key: string): boolean | null {
    const value = table.values[key];
    if (value === undefined || typeof value === "boolean") return value ?? null;
    this.fault([...table.at, key], "must be true or false");
    return null;
  }

  texts(table: Table, key: string): string[] | null {
    const value = table.values[key];
    if (value === undefined) return null;
    if (Array.isArray(value) && value.every((element) => typeof element === "string")) return value;
    this.fault([...table.at, key], "must be a list of texts in quotes");
    return null;
  }

  tables(table: Table, key: string): Table[] {
    const value = table.values[key];
    if (value === undefined) return [];
    const at = [...table.at, key];
    if (Array.isArray(value)) return value.map((element, index) => this.table(element, [...at, index]));
    this.fault(
      at,
      table.at.length === 0 ? `must be a list of tables; write [[${key}]]` : "must be a list of tables",
    );
    return [];
  }
}

function isTable(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Date);
}

/** `role[2].packages[0].id: `, lists counted from 1 as people count. */
function formatKeyPath(path: KeyPath): string {
  if (path.length === 0) return "";
  const parts = path.map((part, index) =>
    typeof part === "number" ? `[${part + 1}]` : `${index === 0 ? "" : "."}${part}`,
  );
  return `${parts.join("")}: `;
}
