import { createContext, runInContext } from "node:vm";

/** How long a pattern may think. A careless one can take years over a text of a few lines. */
const PATTERN_MS = 1_000;

/** Why this is no pattern for `extractPattern`; null: it is one. */
export function patternProblem(pattern: string): string | null {
  try {
    new RegExp(pattern, "mu");
  } catch {
    return "is not a regular expression";
  }
  return /\(\?<[A-Za-z_]/.test(pattern) ? null : "needs a named group, such as (?<id>\\d+)";
}

/** The named groups of the first match as texts, or why there are none. */
export function extractPattern(pattern: string, text: string): Record<string, string> | string {
  try {
    // In a context of its own, because only a script run can be stopped in the middle of a match.
    const groups: unknown = runInContext(
      "JSON.stringify(expression.exec(text)?.groups)",
      createContext({ expression: new RegExp(pattern, "mu"), text }),
      { timeout: PATTERN_MS },
    );
    return typeof groups === "string"
      ? (JSON.parse(groups) as Record<string, string>)
      : "the pattern does not match its output";
  } catch {
    return `the pattern found no answer within ${PATTERN_MS / 1000} s; write it without nested repetitions`;
  }
}
