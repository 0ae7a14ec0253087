import { posix } from "node:path";
import { findImports, importedPackage, packageOf } from "./imports.ts";
import { isTest, sources, type Tree, withoutComments } from "./tree.ts";

/** What the compiler lets pass in core although it would make a decision depend on more than its arguments. */
const BANNED_IN_CORE: readonly { readonly pattern: RegExp; readonly instead: string }[] = [
  { pattern: /\bDate\.now\b/, instead: "take `now` as a parameter" },
  { pattern: /\bnew Date\(\s*\)/, instead: "take `now` as a parameter" },
  { pattern: /\bMath\.random\b/, instead: "take a number drawn outside as a parameter" },
];

/** Hidden inputs in core. */
export function findImpurity(tree: Tree): string[] {
  return sources(tree)
    .filter((path) => path.startsWith("packages/core/src/") && !isTest(path))
    .flatMap((path) => {
      const code = withoutComments(tree.read(path));
      return BANNED_IN_CORE.filter(({ pattern }) => pattern.test(code)).map(
        ({ pattern, instead }) => `${path}: ${pattern.source} is not for core; ${instead}`,
      );
    });
}

/** Tests in files that the test run does not look at. */
export function findHiddenTests(tree: Tree): string[] {
  const ours = sources(tree).filter((path) => /^(packages|tests)\//.test(path) && !isTest(path));
  return ours
    .filter(
      (path) =>
        /[._](spec|tests?)\.[cm]?[jt]s$/.test(path) ||
        // A file may take types and hooks from node:test; one that declares tests takes `test`, `it` or `suite`.
        /import\s+(?:test\b|(?:\w+\s*,\s*)?\{[^}]*(?<!type\s)\b(?:test|it|describe|suite)\b[^}]*\})[^;]*from\s+"node:test"/.test(
          withoutComments(tree.read(path)),
        ),
    )
    .map((path) => `${path}: holds tests, but its name does not end in .test.ts, so nobody runs them`);
}

const ENTRIES = /^packages\/[^/]+\/src\/(index|main|wire)\.ts$/;

/** Sources that nothing but their own tests imports. */
export function findOrphans(tree: Tree): string[] {
  const used = new Set<string>();
  for (const path of sources(tree)) {
    const text = tree.read(path);
    const isEvidence = !isTest(path) || path.startsWith("tests/");
    if (!isEvidence) continue;
    for (const { specifier } of findImports(text))
      used.add(specifier.startsWith(".") ? posix.join(posix.dirname(path), specifier) : specifier);
    // Workers and child programs are named by a URL relative to the file.
    for (const match of text.matchAll(/["'](\.{1,2}\/[^"'\n]+\.(?:ts|mjs))["']/g))
      used.add(posix.join(posix.dirname(path), match[1] ?? ""));
  }
  const exported = tree.paths
    .filter((path) => /^packages\/[^/]+\/package\.json$/.test(path))
    .flatMap((path) => findExports(tree.read(path)).map((target) => posix.join(posix.dirname(path), target)));
  return (
    sources(tree)
      .filter((path) => /^packages\/[^/]+\/src\//.test(path) && !isTest(path))
      .filter((path) => !ENTRIES.test(path) && !used.has(path) && !exported.includes(path))
      // Types for a package that has none are used where a module of it is imported.
      .filter(
        (path) => !path.endsWith(".d.ts") || !declaredModules(tree.read(path)).some((name) => used.has(name)),
      )
      .map((path) => `${path}: nothing but tests imports it`)
  );
}

function declaredModules(text: string): string[] {
  return [...text.matchAll(/^declare module "([^"]+)"/gm)].map((match) => match[1] ?? "");
}

function findExports(packageJson: string): string[] {
  const { exports } = JSON.parse(packageJson) as { exports?: Record<string, unknown> };
  return Object.values(exports ?? {}).filter((target) => typeof target === "string");
}

const LINES_MAX = 500;

/** Files that have grown beyond what one noun needs. */
export function findOversized(tree: Tree): string[] {
  return sources(tree)
    .map((path) => ({ path, lines: tree.read(path).split("\n").length - 1 }))
    .filter(({ lines }) => lines > LINES_MAX)
    .map(({ path, lines }) => `${path}: ${lines} lines, at most ${LINES_MAX}; split it by the second noun`);
}

/** Names that say nothing about what is inside. */
export function findEmptyNames(tree: Tree): string[] {
  return sources(tree)
    .filter((path) => /(^|[/-])(utils?|helpers?|common|misc|managers?)([./-])/.test(path))
    .map((path) => `${path}: a name that fits everything; name what the file is about`);
}

/** Orders to a tool to look away. */
export function findSilencers(tree: Tree): string[] {
  // Written so that this file does not hold what it looks for.
  const silencers = ["biome", "eslint"]
    .map((tool) => `${tool}-ignore`)
    .concat(["ignore", "nocheck"].map((word) => `@ts-${word}`));
  return sources(tree).flatMap((path) => {
    const text = tree.read(path);
    return silencers
      .filter((word) => text.includes(word))
      .map((word) => `${path}: ${word}; solve what it hides`);
  });
}

/** Packages that a source imports without its package.json saying so; npm would not notice until it is shipped. */
export function findUndeclared(tree: Tree): string[] {
  const problems = new Set<string>();
  for (const path of sources(tree)) {
    const own = packageOf(path);
    if (own === null || isTest(path)) continue;
    const manifest = JSON.parse(tree.read(`packages/${own}/package.json`) || "{}") as {
      dependencies?: Record<string, string>;
      optionalDependencies?: Record<string, string>;
    };
    const declared = { ...manifest.dependencies, ...manifest.optionalDependencies };
    for (const { specifier } of findImports(tree.read(path))) {
      if (specifier.startsWith(".") || specifier.startsWith("node:")) continue;
      const name = specifier.split("/", specifier.startsWith("@") ? 2 : 1).join("/");
      if (importedPackage(path, specifier) !== own && !Object.hasOwn(declared, name))
        problems.add(`packages/${own}/package.json: ${name} is imported by ${path}, but not declared`);
    }
  }
  return [...problems];
}
