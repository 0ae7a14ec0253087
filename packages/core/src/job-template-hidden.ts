import { forEachText, type Parameters } from "./job-template-text.ts";

/**
 * Hidden parameters (passwords, tokens) are for the component that works with them and for nobody else. Their values
 * also turn up where nobody declared them: in a command's output, in an error message. So whatever is shown of a process
 * is searched for every hidden value of that process.
 */
export const HIDDEN = "<HIDDEN>";

/** Shorter values would blacken half of every text, and hide nothing that could not be guessed. */
const SECRET_LENGTH_MIN = 4;

/** Collects the texts to search for: those inside the hidden parameters, as they are and as JSON writes them. */
export function collectSecrets(
  sources: Iterable<{ readonly parameters: Parameters; readonly hidden: readonly string[] }>,
): string[] {
  const secrets = new Set<string>();
  for (const { parameters, hidden } of sources)
    for (const name of hidden) {
      const value = Object.hasOwn(parameters, name) ? parameters[name] : undefined;
      if (typeof value === "number") secrets.add(String(value));
      forEachText(value, [], (text) => {
        secrets.add(text);
        secrets.add(JSON.stringify(text).slice(1, -1));
      });
    }
  // Longest first: one secret may be a part of another one.
  return [...secrets].filter((text) => text.length >= SECRET_LENGTH_MIN).sort((a, b) => b.length - a.length);
}

/** A text with every secret replaced. */
export function maskText(text: string, secrets: readonly string[]): string {
  let masked = text;
  for (const secret of secrets) if (masked.includes(secret)) masked = masked.replaceAll(secret, HIDDEN);
  return masked;
}

/** Parameters as they may be shown: hidden ones whole, secrets wherever else they stand, keys included. */
export function maskParameters(
  parameters: Parameters,
  hidden: readonly string[],
  secrets: readonly string[],
): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(parameters).map(([name, value]) => [
      maskText(name, secrets),
      hidden.includes(name) ? HIDDEN : maskValue(value, secrets),
    ]),
  );
}

function maskValue(value: unknown, secrets: readonly string[]): unknown {
  if (typeof value === "string") return maskText(value, secrets);
  if (typeof value === "number") {
    const text = String(value);
    return secrets.includes(text) ? HIDDEN : value;
  }
  if (Array.isArray(value)) return value.map((each) => maskValue(each, secrets));
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, each]) => [maskText(key, secrets), maskValue(each, secrets)]),
  );
}
