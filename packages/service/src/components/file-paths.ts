import type { Stats } from "node:fs";
import { lstat, realpath } from "node:fs/promises";
import { dirname, isAbsolute, join, parse, relative, resolve, sep } from "node:path";
import { compileGlob, type Glob, isGlobFault } from "@lockstep/core";
import { systemErrorCode } from "@lockstep/platform";
import { LockstepError } from "@lockstep/protocol/wire";

/**
 * Which paths the file tasks touch. Paths come from templates with values of a process put in, so a value must not be
 * able to lead elsewhere: no `..`, nothing empty, never a root directory; with a base directory nothing outside it, and
 * below it no symbolic link is followed unless the step asks for that.
 *
 * Not promised: protection from somebody who exchanges directories for links while the step runs.
 */
export interface PathOptions {
  readonly base: string | undefined;
  readonly followLinks: boolean;
}

/** The absolute path that a parameter means. Throws PATH_REFUSED. */
export async function resolvePath(name: string, text: string, options: PathOptions): Promise<string> {
  const refuse = (problem: string) => refused(name, text, problem);
  if (text.trim() === "") throw refuse("it is empty");
  if (text.includes("\0")) throw refuse("it holds a NUL");
  if (text.split(/[/\\]/).includes("..")) throw refuse("it holds ..");
  if (options.base === undefined) {
    if (!isAbsolute(text)) throw refuse("it is relative, and the step names no base directory");
    const path = resolve(text);
    if (path === parse(path).root) throw refuse("it is a root directory");
    return path;
  }
  const base = resolveBase(options.base);
  const path = resolve(base, text);
  if (!isInside(base, path)) throw refuse(`it leads out of the base directory ${base}`);
  if (options.followLinks) {
    const [realBase, real] = [await realpath(base), await realpath(await nearest(path))];
    if (!isInside(realBase, real)) throw refuse(`by a link it leads out of the base directory ${base}`);
  } else await refuseLinks(name, base, dirname(path));
  return path;
}

function resolveBase(text: string): string {
  if (!isAbsolute(text) || text.split(/[/\\]/).includes(".."))
    throw refused("base", text, "it is not an absolute path without ..");
  const base = resolve(text);
  if (base === parse(base).root) throw refused("base", text, "it is a root directory");
  return base;
}

/** Whether a path is the directory itself or lies below it, by its text alone. */
export function isInside(directory: string, path: string): boolean {
  const way = relative(directory, path);
  return way === "" || (way !== ".." && !way.startsWith(`..${sep}`) && !isAbsolute(way));
}

/** Throws PATH_REFUSED where a directory below `from` on the way to `to` is a link. */
async function refuseLinks(name: string, from: string, to: string): Promise<void> {
  let path = from;
  for (const part of relative(from, to).split(sep)) {
    if (part === "" || part === "..") continue;
    path = join(path, part);
    if ((await lstatOrNull(path))?.isSymbolicLink() === true)
      throw refused(name, path, "it is a symbolic link; followLinks: true follows it");
  }
}

async function nearest(path: string): Promise<string> {
  let at = path;
  while ((await lstatOrNull(at)) === null && at !== dirname(at)) at = dirname(at);
  return at;
}

/** What stands there, itself and not what it points at; null: nothing. */
export async function lstatOrNull(path: string): Promise<Stats | null> {
  try {
    return await lstat(path);
  } catch (error) {
    if (["ENOENT", "ENOTDIR"].includes(systemErrorCode(error) ?? "")) return null;
    throw error;
  }
}

export function refused(name: string, path: string, problem: string): LockstepError {
  return new LockstepError("PATH_REFUSED", `${name} ${JSON.stringify(path)}: ${problem}`);
}

/** Whether a relative path is meant by the globs. */
export type Selection = (path: string) => boolean;

/** A selection out of globs that name and globs that take away. The globs were checked as parameters. */
export function compileSelection(match: readonly string[], exclude: readonly string[]): Selection {
  const [wanted, unwanted] = [match, exclude].map((globs) =>
    globs.map(compileGlob).filter((glob): glob is Glob => !isGlobFault(glob)),
  );
  return (path) => {
    const normal = path.normalize("NFC");
    return (
      wanted?.some((glob) => glob.matches(normal)) === true && !unwanted?.some((glob) => glob.matches(normal))
    );
  };
}

/** A fault of a parameter that holds globs, or null. */
export function globProblem(value: unknown): string | null {
  for (const pattern of value as readonly string[]) {
    const compiled = compileGlob(pattern);
    if (isGlobFault(compiled)) return `holds a pattern that cannot be used: ${compiled.problem}`;
  }
  return null;
}
