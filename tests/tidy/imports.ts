import { posix } from "node:path";
import { withoutComments } from "./tree.ts";

export interface Import {
  readonly specifier: string;
  readonly how: "static" | "type" | "dynamic";
}

/** What a source imports, re-exports or loads later by a literal name. */
export function findImports(text: string): Import[] {
  const code = withoutComments(text);
  const found: Import[] = [];
  for (const match of code.matchAll(
    /(?:^|[\n;}])\s*(?:import|export)\s+(type\s+)?(?:[\w*{}\s,$]+?\s+from\s+)?["']([^"'\n]+)["']/g,
  ))
    found.push({ specifier: match[2] ?? "", how: match[1] === undefined ? "static" : "type" });
  for (const match of code.matchAll(/\bimport\(\s*["']([^"'\n]+)["']/g))
    found.push({ specifier: match[1] ?? "", how: "dynamic" });
  return found;
}

/** The package of ours that a path lies in, or null. */
export function packageOf(path: string): string | null {
  return /^packages\/([^/]+)\//.exec(path)?.[1] ?? null;
}

/** The package of ours that an import in `path` reaches, or null: by name or by a relative path. */
export function importedPackage(path: string, specifier: string): string | null {
  const named = /^@lockstep\/([^/]+)/.exec(specifier)?.[1];
  if (named !== undefined) return named;
  if (!specifier.startsWith(".")) return null;
  return packageOf(posix.join(posix.dirname(path), specifier));
}
