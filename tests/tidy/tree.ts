import { execFileSync } from "node:child_process";
import { existsSync, globSync, readFileSync } from "node:fs";
import { join } from "node:path";

/** The project as rules see it: each file that is or would be tracked, by its path from the root. */
export interface Tree {
  readonly paths: readonly string[];
  /** Text of a file; empty where there is none. */
  readonly read: (path: string) => string;
}

export const ROOT = join(import.meta.dirname, "..", "..");

/** The checkout. What git ignores does not count; without git, everything outside node_modules and dist does. */
export function checkout(): Tree {
  const paths = listFiles().filter((path) => existsSync(join(ROOT, path)));
  return { paths, read: (path) => (paths.includes(path) ? readFileSync(join(ROOT, path), "utf8") : "") };
}

function listFiles(): string[] {
  if (!existsSync(join(ROOT, ".git")))
    return globSync("**/*.*", { cwd: ROOT, exclude: ["node_modules/**", "dist/**", ".cache/**"] });
  const git = ["ls-files", "--cached", "--others", "--exclude-standard", "-z"];
  return execFileSync("git", ["-c", `safe.directory=${ROOT}`, ...git], { cwd: ROOT, encoding: "utf8" })
    .split("\0")
    .filter((path) => path !== "");
}

/** A tree made of texts, to try a rule on. */
export function treeOf(files: Readonly<Record<string, string>>): Tree {
  return { paths: Object.keys(files), read: (path) => files[path] ?? "" };
}

/** TypeScript and JavaScript sources. */
export function sources(tree: Tree): string[] {
  return tree.paths.filter((path) => /\.(ts|mts|mjs|js)$/.test(path));
}

export const isTest = (path: string): boolean => /\.test\.ts$/.test(path);

/** A source without its comments, each replaced by as many line feeds as it held, so that line numbers stay. */
export function withoutComments(text: string): string {
  // Texts and patterns are matched first, so that a comment sign inside them is not taken for one.
  return text.replaceAll(
    /("(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|`(?:[^`\\]|\\.)*`)|\/\*[\s\S]*?\*\/|(?<![:\\/])\/\/[^\n]*/g,
    (all, literal: string | undefined) => literal ?? all.replaceAll(/[^\n]/g, ""),
  );
}
