import { type DeployTarget, parsePackageName, parseRoleName } from "./deploy-target.ts";
import { compileGlob, type Glob, type GlobFault, isGlobFault } from "./glob.ts";

/** One `--assign 'GLOB=ROLE'`: files that match belong to these deploy targets, and to no others. */
export interface AssignRule {
  readonly glob: Glob;
  /** Empty: stored, but never distributed. */
  readonly targets: readonly DeployTarget[];
}

/**
 * Reads `GLOB=ROLE`. ROLE is the full path of a machine role, `package:MODULE/Package`, several of them separated by
 * commas, or empty. The last `=` separates, because names of files may hold one. Returns a fault where it is none.
 */
export function parseAssignRule(text: string): AssignRule | GlobFault {
  const equals = text.lastIndexOf("=");
  if (equals <= 0) return { problem: "it has not the form GLOB=ROLE" };
  const glob = compileGlob(text.slice(0, equals));
  if (isGlobFault(glob)) return glob;
  const targets = parseTargets(text.slice(equals + 1));
  return Array.isArray(targets) ? { glob, targets } : targets;
}

/** Reads a comma list of roles and `package:` names, as `--assign` and `files assign` take it. */
export function parseTargets(text: string): DeployTarget[] | GlobFault {
  if (text.trim() === "") return [];
  const targets: DeployTarget[] = [];
  for (const word of text.split(",")) {
    const target = parseTargetWord(word.trim());
    if (target === null) return { problem: `${JSON.stringify(word.trim())} is no machine role` };
    targets.push(target);
  }
  return targets;
}

function parseTargetWord(word: string): DeployTarget | null {
  const isPackage = word.startsWith("package:");
  const bare = word.replace(/^(?:package|role):/, "");
  const name = isPackage ? parsePackageName(bare) : parseRoleName(bare);
  return name === null ? null : { kind: isPackage ? "package" : "role", name };
}

/** The targets that the rules give to a path: those of the last rule that matches, or null where none does. */
export function assignTargets(rules: readonly AssignRule[], path: string): readonly DeployTarget[] | null {
  return rules.findLast((rule) => rule.glob.matches(path))?.targets ?? null;
}
