import { findImports, type Import, importedPackage, packageOf } from "./imports.ts";
import { isTest, sources, type Tree } from "./tree.ts";

/**
 * Read from top to bottom, this is the architecture: left may import right, and nothing else. npm would let every
 * package import every other one, whatever its package.json says, so the table is held here.
 */
export const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  core: [],
  protocol: ["core"],
  platform: ["core", "protocol"],
  store: ["core", "protocol", "platform"],
  delta: ["core", "protocol"],
  trust: ["core", "protocol", "platform"],
  client: ["core", "protocol", "platform"],
  hub: ["core", "protocol", "platform", "store", "delta", "trust"],
  updater: ["core", "protocol", "platform", "store", "delta", "trust", "client"],
  relay: ["core", "protocol", "platform", "store", "client", "trust"],
  service: ["core", "protocol", "platform", "client"],
  cluster: ["core", "protocol", "platform", "client"],
  cli: ["core", "protocol", "platform", "client", "trust"],
  // Imported by tests alone; never shipped.
  testing: ["core", "protocol", "platform", "store"],
};

/**
 * The command that starts a program loads it then and only then, so that `lockstep check` does not pay for the hub:
 * a dynamic import in a file of packages/cli/src/commands or in the one that keeps the process (hub-process.ts). Types
 * cost nothing at run time, so the command line may take them to show what it started.
 */
const STARTED_BY_COMMANDS = ["cluster", "hub", "relay", "service", "updater"];

/** Each import that goes against the table. */
export function findLayerBreaks(tree: Tree): string[] {
  const breaks: string[] = [];
  for (const path of sources(tree)) {
    const from = packageOf(path);
    if (from === null) continue;
    const allowed = MAY_IMPORT[from];
    if (allowed === undefined) {
      breaks.push(`${path}: package ${from} is not in the table of layers`);
      continue;
    }
    for (const { specifier, how } of findImports(tree.read(path))) {
      const to = importedPackage(path, specifier);
      if (to === null) continue;
      if (specifier.startsWith(".")) {
        if (to !== from) breaks.push(`${path}: reaches into ${to} by ${specifier}, not through its name`);
        continue;
      }
      if (to === from) breaks.push(`${path}: imports its own package by name`);
      else if (allowed.includes(to) || (to === "testing" && isTest(path))) continue;
      else if (from === "cli" && STARTED_BY_COMMANDS.includes(to) && mayStart(path, how)) continue;
      else breaks.push(`${path}: ${from} may not import ${to}`);
    }
  }
  return breaks;
}

const mayStart = (path: string, how: Import["how"]) =>
  how === "type" || (how === "dynamic" && /^packages\/cli\/src\/(commands\/|[^/]+-process\.ts$)/.test(path));

/** Programs that start often, or travel to every installation: they must not carry the schemas. */
const WITHOUT_SCHEMAS = [
  "platform",
  "store",
  "trust",
  "client",
  "relay",
  "service",
  "cluster",
  "updater",
  "cli",
];

/** Imports of the whole protocol where `@lockstep/protocol/wire` would do. */
export function findSchemaImports(tree: Tree): string[] {
  return sources(tree)
    .filter((path) => WITHOUT_SCHEMAS.includes(packageOf(path) ?? "") && !isTest(path))
    .filter((path) =>
      findImports(tree.read(path)).some(
        ({ specifier, how }) => specifier === "@lockstep/protocol" && how !== "type",
      ),
    )
    .map((path) => `${path}: imports @lockstep/protocol with its schemas; take @lockstep/protocol/wire`);
}
